// First come, first served: a call has its device to itself from its first network to its last. Calls that took turns step
// by step would all end as late as the last one, and with `offload: 'model'` load their networks anew for every step.
import { AsyncLocalStorage } from 'node:async_hooks'
import { Queue } from '../../networks/queue.js'

/** One queue per device, of all pipelines of this thread. */
const queues = new Map<string, Queue>()
/** The devices whose turn the running code has: a call from a callback of another belongs to that one's turn. */
const turns = new AsyncLocalStorage<readonly string[]>()

/** Runs `job` when all earlier ones on the device are done. An abort while it waits rejects at once. */
export async function inTurn<T>(device: string, signal: AbortSignal | undefined, job: () => Promise<T>): Promise<T> {
  const held = turns.getStore() ?? []
  if (held.includes(device)) return job()
  const queue = queues.get(device) ?? new Queue()
  queues.set(device, queue)
  return queue.enqueue(signal, () => turns.run([...held, device], job))
}

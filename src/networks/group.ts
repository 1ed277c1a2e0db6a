// Who may use a device next: calls queue, and networks that share a group take turns in memory.

/** What holds memory on the device until another needs it. */
export interface Resident {
  release(): Promise<void>
}

/** A queue of calls, and at most one network of those that share it on the device. */
export class NetworkGroup {
  /** the network that is loaded */
  resident: Resident | undefined
  #last: Promise<void> = Promise.resolve()

  /** Runs `job` after all earlier ones; an abort while it waits rejects at once and leaves the order intact. */
  async enqueue<T>(signal: AbortSignal | undefined, job: () => Promise<T>): Promise<T> {
    signal?.throwIfAborted()
    const previous = this.#last
    let release = () => {}
    this.#last = new Promise((resolve) => {
      release = resolve
    })
    try {
      await untilAborted(previous, signal)
      return await job()
    } finally {
      previous.then(release)
    }
  }
}

async function untilAborted(promise: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return promise
  let abort = () => {}
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
  })
  try {
    await Promise.race([promise, aborted])
    signal.throwIfAborted()
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

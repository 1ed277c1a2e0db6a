import { binding, type CancelFlag } from '../native.js'

/**
 * Runs a native job that `signal` can stop.
 * @throws `signal.reason` if it aborts before the job is done
 */
export async function cancellable<T>(
  signal: AbortSignal | undefined,
  job: (cancel: CancelFlag | undefined) => Promise<T>,
): Promise<T> {
  if (!signal) return job(undefined)
  signal.throwIfAborted()
  const flag = new (binding().CancelFlag)()
  const cancel = () => flag.cancel()
  signal.addEventListener('abort', cancel, { once: true })
  try {
    return await job(flag)
  } catch (error) {
    signal.throwIfAborted()
    throw error
  } finally {
    signal.removeEventListener('abort', cancel)
  }
}

/** Jobs one after the other, in the order they came. */
export class Queue {
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

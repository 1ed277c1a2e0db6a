// Jobs in this process: first come, first served, one at a time, since a picture uses the whole device.
import type { RawImage } from '../images/image.js'
import { expectRoom, type Job, type JobLimits, type JobQueue, Pace, shuttingDown } from './jobs.js'
import type { PictureRequest } from './request.js'

export class LocalQueue implements JobQueue {
  readonly #limits: { [Name in keyof JobLimits]-?: number }
  readonly #draw: (request: PictureRequest, job: Job) => Promise<RawImage[]>
  readonly #waiting: Map<Job, PictureRequest> = new Map()
  readonly #finished = new Map<string, { job: Job; bytes: number }>()
  readonly #onEnd: (job: Job) => void
  readonly #pace = new Pace()
  #running: Job | undefined
  #closed = false
  readonly #idle: (() => void)[] = []

  constructor(
    limits: JobLimits,
    draw: (request: PictureRequest, job: Job) => Promise<RawImage[]>,
    onEnd: (job: Job) => void,
  ) {
    const { maxJobs = 1000, maxJobsPerClient = maxJobs, keepMs = 600_000, keepBytes = 256 * 2 ** 20 } = limits
    this.#limits = { maxJobs, maxJobsPerClient, keepMs, keepBytes }
    this.#draw = draw
    this.#onEnd = onEnd
  }

  async ready(): Promise<void> {}

  running(api: string): Job | undefined {
    return this.#running?.api === api ? this.#running : undefined
  }

  async size(): Promise<number> {
    return this.#waiting.size
  }

  async outlook(job: Job) {
    const position = [...this.#waiting.keys()].indexOf(job)
    if (position === -1) return {}
    const ran = this.#running?.started === undefined ? 0 : Date.now() - this.#running.started
    return { position, etaMs: this.#pace.until(position, ran) }
  }

  get retryAfter(): number {
    return this.#pace.retryAfter
  }

  async add(job: Job, request: PictureRequest): Promise<void> {
    if (this.#closed) throw shuttingDown()
    const own = [...this.#waiting.keys()].filter(({ client }) => client === job.client).length
    expectRoom(this.#waiting.size, own, this.#limits)
    this.#waiting.set(job, request)
    job.signal.addEventListener('abort', () => {
      if (job.state === 'queued') this.#end(job, 'cancelled')
    })
    this.#next()
  }

  async find(id: string): Promise<Job | undefined> {
    this.#forget()
    return this.#finished.get(id)?.job ?? [...this.#waiting.keys()].find((job) => job.id === id)
  }

  async close(graceMs: number): Promise<void> {
    this.#closed = true
    if (this.#waiting.size === 0) return
    const timer = graceMs < Infinity ? setTimeout(() => this.#cancelAll(), graceMs) : undefined
    await new Promise<void>((resolve) => this.#idle.push(resolve))
    clearTimeout(timer)
  }

  #cancelAll(): void {
    // From the last: a running one that ends would start the next.
    for (const job of [...this.#waiting.keys()].reverse()) job.cancel(shuttingDown())
  }

  #next(): void {
    if (this.#running) return
    const [first] = this.#waiting
    if (!first) {
      for (const resolve of this.#idle.splice(0)) resolve()
      return
    }
    void this.#do(...first)
  }

  async #do(job: Job, request: PictureRequest): Promise<void> {
    this.#running = job
    job.state = 'running'
    job.started = Date.now()
    job.changed()
    try {
      const images = await this.#draw(request, job)
      job.pictures = images.map((image) => ({ recipe: image.recipe, read: async () => image }))
      this.#pace.note(Date.now() - job.started)
      this.#end(
        job,
        'done',
        images.reduce((sum, { data }) => sum + data.length, 0),
      )
    } catch (error) {
      job.error = error
      this.#end(job, job.signal.aborted ? 'cancelled' : 'failed')
    }
  }

  #end(job: Job, state: 'done' | 'failed' | 'cancelled', bytes = 0): void {
    this.#waiting.delete(job)
    this.#finished.set(job.id, { job, bytes })
    job.end(state)
    this.#forget()
    this.#onEnd(job)
    if (this.#running === job) this.#running = undefined
    this.#next()
    for (const waiting of this.#waiting.keys()) waiting.changed()
  }

  /** Lets go of what was kept long enough or takes too much. */
  #forget(): void {
    const { keepMs, keepBytes } = this.#limits
    let total = [...this.#finished.values()].reduce((sum, { bytes }) => sum + bytes, 0)
    for (const [id, { job, bytes }] of this.#finished) {
      if (total <= keepBytes && Date.now() - job.ended! <= keepMs) break
      total -= bytes
      this.#finished.delete(id)
    }
  }
}

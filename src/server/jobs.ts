// Jobs in this process: first come, first served, one at a time, since a picture uses the whole device.
import { randomUUID } from 'node:crypto'
import type { RawImage } from '../images/image.js'
import { RequestError } from './fields.js'

export type JobState = 'queued' | 'running' | 'done' | 'failed' | 'cancelled'

/** How many jobs may wait, and how long their pictures stay. */
export interface JobLimits {
  /** jobs that wait or run, in all (default 1000) */
  maxJobs?: number | undefined
  /** of one client, by its address (default: no limit of its own) */
  maxJobsPerClient?: number | undefined
  /** how long finished jobs and their pictures stay, in ms (default 10 minutes) */
  keepMs?: number | undefined
  /** bytes of pixels that finished jobs may hold; the oldest leave first (default 256 MiB) */
  keepBytes?: number | undefined
}

/** How far a job is. */
export interface JobProgress {
  stage: 'loading' | 'prior' | 'decoder'
  step: number
  steps: number
  /** of this stage */
  etaMs: number
}

/** What is being done for whom. */
export class Job {
  readonly id = randomUUID()
  readonly created = Date.now()
  state: JobState = 'queued'
  started: number | undefined
  ended: number | undefined
  progress: JobProgress | undefined
  /** what the pictures look like so far, one pixel per latent cell */
  preview: RawImage[] | undefined
  images: RawImage[] = []
  /** counts the reports of `preview` */
  previews = 0
  error: unknown
  readonly #abort = new AbortController()
  readonly #listeners = new Set<() => void>()

  /**
   * @param client whose it is, for its limit
   * @param api that it came through
   */
  constructor(
    readonly client: string,
    readonly api: string,
  ) {}

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  get isOver(): boolean {
    return this.ended !== undefined
  }

  /** Ends the job within a step. Idempotent. */
  cancel(): void {
    if (this.isOver) return
    this.#abort.abort(new DOMException('The job was cancelled', 'AbortError'))
  }

  changed(): void {
    for (const listener of [...this.#listeners]) listener()
  }

  /** Yields at once, after every change, and when the job is over; changes that come faster than they are read are one. */
  async *changes(signal?: AbortSignal): AsyncGenerator<void, void, undefined> {
    let wake = () => {}
    let isNew = true
    const listener = () => {
      isNew = true
      wake()
    }
    this.#listeners.add(listener)
    signal?.addEventListener('abort', listener)
    try {
      while (!signal?.aborted) {
        if (!isNew)
          await new Promise<void>((resolve) => {
            wake = resolve
          })
        isNew = false
        if (signal?.aborted) return
        const isLast = this.isOver
        yield
        if (isLast) return
      }
    } finally {
      this.#listeners.delete(listener)
      signal?.removeEventListener('abort', listener)
    }
  }

  /** @throws what the job failed with; a RequestError if it was cancelled */
  async result(): Promise<RawImage[]> {
    for await (const _ of this.changes());
    if (this.state === 'cancelled') throw new RequestError(499, 'The job was cancelled', 'cancelled')
    if (this.state === 'failed') throw this.error
    return this.images
  }
}

export class JobQueue {
  readonly #limits: { [Name in keyof JobLimits]-?: number }
  readonly #run: Map<Job, (job: Job) => Promise<RawImage[]>> = new Map()
  readonly #finished = new Map<string, Job>()
  readonly #onEnd: (job: Job) => void
  #running: Job | undefined
  #closed = false
  /** a moving average */
  #millisecondsPerJob: number | undefined
  readonly #idle: (() => void)[] = []

  constructor(limits: JobLimits, onEnd: (job: Job) => void) {
    const { maxJobs = 1000, maxJobsPerClient = maxJobs, keepMs = 600_000, keepBytes = 256 * 2 ** 20 } = limits
    this.#limits = { maxJobs, maxJobsPerClient, keepMs, keepBytes }
    this.#onEnd = onEnd
  }

  get running(): Job | undefined {
    return this.#running
  }

  /** waiting and running */
  get size(): number {
    return this.#run.size
  }

  /** how many jobs come before it; undefined for one that is over */
  position(job: Job): number | undefined {
    const index = [...this.#run.keys()].indexOf(job)
    return index === -1 ? undefined : index
  }

  /** Estimated milliseconds until a job is done; undefined as long as none was. */
  eta(job: Job): number | undefined {
    const position = this.position(job)
    if (position === undefined || this.#millisecondsPerJob === undefined) return undefined
    const ran = this.#running?.started === undefined ? 0 : Date.now() - this.#running.started
    return Math.round(Math.max(0, this.#millisecondsPerJob * (position + 1) - ran))
  }

  /** @throws RequestError 429 beyond a limit, 503 once closed */
  add(job: Job, run: (job: Job) => Promise<RawImage[]>): Job {
    if (this.#closed) throw new RequestError(503, 'The server is shutting down', 'shutting_down')
    const { maxJobs, maxJobsPerClient } = this.#limits
    const own = [...this.#run.keys()].filter(({ client }) => client === job.client).length
    if (this.size >= maxJobs || own >= maxJobsPerClient) {
      const whose = own >= maxJobsPerClient ? `${own} jobs of this client` : `${this.size} jobs`
      throw new RequestError(429, `${whose} are waiting or running already: try again later`, 'rate_limit_exceeded')
    }
    this.#run.set(job, run)
    job.signal.addEventListener('abort', () => {
      if (job.state === 'queued') this.#end(job, 'cancelled')
    })
    this.#next()
    return job
  }

  /** Seconds after which a client that met a limit may be luckier. */
  get retryAfter(): number {
    return Math.max(1, Math.ceil((this.#millisecondsPerJob ?? 0) / 1000))
  }

  /** A job that waits, runs, or was finished not long ago. */
  find(id: string): Job | undefined {
    this.#forget()
    return this.#finished.get(id) ?? [...this.#run.keys()].find((job) => job.id === id)
  }

  /** Takes no more jobs and waits for those that are here. */
  async close(): Promise<void> {
    this.#closed = true
    if (this.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  #next(): void {
    if (this.#running) return
    const [first] = this.#run
    if (!first) {
      for (const resolve of this.#idle.splice(0)) resolve()
      return
    }
    void this.#do(...first)
  }

  async #do(job: Job, run: (job: Job) => Promise<RawImage[]>): Promise<void> {
    this.#running = job
    job.state = 'running'
    job.started = Date.now()
    job.changed()
    try {
      job.images = await run(job)
      const took = Date.now() - job.started
      this.#millisecondsPerJob =
        this.#millisecondsPerJob === undefined ? took : 0.8 * this.#millisecondsPerJob + 0.2 * took
      this.#end(job, 'done')
    } catch (error) {
      job.error = error
      this.#end(job, job.signal.aborted ? 'cancelled' : 'failed')
    }
  }

  #end(job: Job, state: JobState): void {
    job.state = state
    job.ended = Date.now()
    this.#run.delete(job)
    this.#finished.set(job.id, job)
    this.#forget()
    job.changed()
    this.#onEnd(job)
    if (this.#running === job) this.#running = undefined
    this.#next()
    for (const waiting of this.#run.keys()) waiting.changed()
  }

  /** Lets go of what was kept long enough or takes too much. */
  #forget(): void {
    const { keepMs, keepBytes } = this.#limits
    const bytesOf = ({ images }: Job) => images.reduce((sum, { data }) => sum + data.length, 0)
    let bytes = [...this.#finished.values()].reduce((sum, job) => sum + bytesOf(job), 0)
    for (const [id, job] of this.#finished) {
      if (bytes <= keepBytes && Date.now() - job.ended! <= keepMs) break
      bytes -= bytesOf(job)
      this.#finished.delete(id)
    }
  }
}

// Jobs, and what a queue of them does: in this process (local-queue.ts), or in Redis for many (redis-queue.ts).
import { randomUUID } from 'node:crypto'
import type { RawImage } from '../images/image.js'
import type { Recipe } from '../images/recipe.js'
import { expectInteger } from '../pipelines/call/options.js'
import { RequestError } from './fields.js'
import type { PictureRequest } from './request.js'

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

/** The longest that a timer waits, in ms: beyond, it rings at once. */
const LONGEST_MS = 2 ** 31 - 1

/** Limits that are numbers, and the least and most that each can be. */
const RANGES: Readonly<Record<string, readonly [least: number, most: number]>> = {
  maxJobs: [1, Number.MAX_SAFE_INTEGER],
  maxJobsPerClient: [1, Number.MAX_SAFE_INTEGER],
  maxSide: [1, Number.MAX_SAFE_INTEGER],
  maxBody: [1, Number.MAX_SAFE_INTEGER],
  maxInputBytes: [0, Number.MAX_SAFE_INTEGER],
  keepBytes: [0, Number.MAX_SAFE_INTEGER],
  keepMs: [1, Number.MAX_SAFE_INTEGER],
  graceMs: [0, LONGEST_MS],
}

/** @throws KandinskyError `INVALID_ARGUMENT` for a limit that is none */
export function checkLimits(options: object): void {
  for (const [name, value] of Object.entries(options)) {
    const range = Object.hasOwn(RANGES, name) ? RANGES[name] : undefined
    if (range && value !== undefined) expectInteger(name, value, ...range)
  }
}

/** How far a job is. */
export interface JobProgress {
  stage: 'loading' | 'prior' | 'decoder'
  step: number
  steps: number
  /** of this stage */
  etaMs: number
}

/** A finished picture, wherever it is kept. */
export interface Picture {
  recipe: Recipe | undefined
  /** @throws RequestError 404 if it is gone */
  read(): Promise<RawImage>
}

/** What is being done for whom. */
export class Job {
  state: JobState = 'queued'
  started: number | undefined
  ended: number | undefined
  progress: JobProgress | undefined
  /** what the pictures look like so far, one pixel per latent cell */
  preview: RawImage[] | undefined
  pictures: Picture[] = []
  /** counts the reports of `preview` */
  previews = 0
  error: unknown
  readonly #abort = new AbortController()
  readonly #listeners = new Set<() => void>()

  /**
   * @param client whose it is, for its limit
   * @param api that it came through
   * @param isAwaited whether a connection is open until it is over: without that connection nobody gets its pictures
   */
  constructor(
    readonly client: string,
    readonly api: string,
    readonly isAwaited = false,
    readonly id: string = randomUUID(),
    readonly created = Date.now(),
  ) {}

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  get isOver(): boolean {
    return this.ended !== undefined
  }

  /**
   * Ends the job within a step. Idempotent.
   * @param reason that whoever waits for it is told
   */
  cancel(reason = new RequestError(499, 'The job was cancelled', 'cancelled')): void {
    if (!this.isOver) this.#abort.abort(reason)
  }

  /** Says that it is over. */
  end(state: 'done' | 'failed' | 'cancelled', at = Date.now()): void {
    this.state = state
    this.ended = at
    this.changed()
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

  /** Resolves when it is over, however it ended. */
  async over(): Promise<void> {
    for await (const _ of this.changes());
  }

  /** @throws what the job failed with; a RequestError if it was cancelled */
  async result(): Promise<RawImage[]> {
    await this.over()
    if (this.state === 'cancelled')
      throw this.signal.reason ?? new RequestError(499, 'The job was cancelled', 'cancelled')
    if (this.state === 'failed') throw this.error
    return Promise.all(this.pictures.map((picture) => picture.read()))
  }
}

/** Where jobs wait, and whoever computes them finds them. */
export interface JobQueue {
  /** Rejects unless the queue is there. */
  ready(): Promise<void>
  /** Takes a job, which changes from then on. @throws RequestError 429 beyond a limit, 503 once closed or out of reach */
  add(job: Job, request: PictureRequest): Promise<void>
  /** A job that waits, runs, or was finished not long ago. */
  find(id: string): Promise<Job | undefined>
  /** The oldest job of an API that runs and came through this server. */
  running(api: string): Job | undefined
  /** waiting and running */
  size(): Promise<number>
  /** How many jobs come before it, and milliseconds until it is done as far as is known; nothing of one that is over. */
  outlook(job: Job): Promise<{ position?: number | undefined; etaMs?: number | undefined }>
  /** Seconds after which a client that met a limit may be luckier. */
  readonly retryAfter: number
  /**
   * Takes no more jobs, and waits for those that would be lost.
   * @param graceMs after which what is left ends
   */
  close(graceMs: number): Promise<void>
}

export const shuttingDown = () => new RequestError(503, 'The server is shutting down', 'shutting_down')

/** @throws RequestError 429 */
export function expectRoom(waiting: number, ofClient: number, limits: { maxJobs: number; maxJobsPerClient: number }) {
  if (waiting < limits.maxJobs && ofClient < limits.maxJobsPerClient) return
  const whose = ofClient >= limits.maxJobsPerClient ? `${ofClient} jobs of this client` : `${waiting} jobs`
  throw new RequestError(429, `${whose} are waiting or running already: try again later`, 'rate_limit_exceeded')
}

/** How long jobs take, as a moving average. */
export class Pace {
  #ms: number | undefined

  /** undefined before the first one */
  get ms(): number | undefined {
    return this.#ms
  }

  /** in seconds, at least one */
  get retryAfter(): number {
    return Math.max(1, Math.ceil((this.#ms ?? 0) / 1000))
  }

  note(ms: number): void {
    this.#ms = this.#ms === undefined ? ms : 0.8 * this.#ms + 0.2 * ms
  }

  /** Milliseconds until a job is done that has so many before it, each of them done by one of the workers. */
  until(position: number, ranMs: number, workers = 1): number | undefined {
    if (this.#ms === undefined) return undefined
    return Math.round(Math.max(0, this.#ms * (Math.floor(position / workers) + 1) - ranMs))
  }
}

// The queue of several machines, as a server sees it: jobs are BullMQ's entries in Redis, and the `Job` here is a mirror that
// follows their events. A job that another server took is mirrored once somebody asks for it.
import type { Queue, QueueEvents } from 'bullmq'
import type { Redis } from 'ioredis'
import { loadImage, RawImage } from '../images/image.js'
import { Generator } from '../random.js'
import { RequestError } from './fields.js'
import { expectRoom, Job, type JobLimits, type JobQueue, Pace, type Picture, shuttingDown } from './jobs.js'
import {
  CANCELLED,
  cancelledKey,
  connect,
  FORGET,
  type ForgetData,
  type JobData,
  type JobResult,
  loadBullMq,
  type PictureEntry,
  type PictureQueue,
  PREFIX,
  type Progress,
  pack,
  pictureKey,
  previewKey,
  queueOf,
  unpackPreview,
} from './redis.js'
import type { PictureRequest } from './request.js'
import { openResults, type ResultStore } from './results.js'

/** Between two counts of workers, in ms: Redis lists all its clients for it. */
const COUNT_MS = 5000

/** A job that is not over, and which model's. */
interface Mirror {
  job: Job
  queue: PictureQueue
  /** it came through this server */
  own: boolean
}

interface Link {
  redis: Redis
  store: ResultStore
  queues: Map<string, PictureQueue>
  forget: Queue<ForgetData>
  close(): Promise<void>
}

export class RedisQueue implements JobQueue {
  readonly #limits: { maxJobs: number; maxJobsPerClient: number; keepMs: number }
  readonly #onEnd: (job: Job) => void
  readonly #link: Promise<Link>
  readonly #mirrors = new Map<string, Mirror>()
  readonly #pace = new Pace()
  #workers = { at: 0, count: 1 }
  #closed = false

  /**
   * @param models names; workers have the models
   * @param onEnd called for jobs that came through this server
   */
  constructor(
    url: string,
    results: string | ResultStore | undefined,
    models: readonly string[],
    limits: JobLimits,
    onEnd: (job: Job) => void,
  ) {
    const { maxJobs = 1000, maxJobsPerClient = maxJobs, keepMs = 600_000 } = limits
    this.#limits = { maxJobs, maxJobsPerClient, keepMs }
    this.#onEnd = onEnd
    this.#link = this.#open(url, results, models)
    this.#link.catch(() => {}) // whoever needs it is told
  }

  async ready(): Promise<void> {
    await this.#link
  }

  running(api: string): Job | undefined {
    return [...this.#mirrors.values()].find(({ job, own }) => own && job.api === api && job.state === 'running')?.job
  }

  async size(): Promise<number> {
    const { queues } = await this.#link
    const counts = await Promise.all(
      [...queues.values()].map((queue) => reach(queue.getJobCountByTypes('wait', 'active', 'delayed'))),
    )
    return counts.reduce((sum, count) => sum + count, 0)
  }

  async outlook(job: Job) {
    const mirror = this.#mirrors.get(job.id)
    if (!mirror || job.isOver) return {}
    const { redis } = await this.#link
    const { queue } = mirror
    const [active, length, index] = await reach(
      Promise.all([
        redis.llen(queue.toKey('active')),
        redis.llen(queue.toKey('wait')),
        redis.lpos(queue.toKey('wait'), job.id),
      ]),
    )
    const position = index === null ? 0 : active + length - 1 - index
    if (Date.now() - this.#workers.at > COUNT_MS)
      this.#workers = { at: Date.now(), count: Math.max(1, await reach(queue.getWorkersCount())) }
    const ran = job.started === undefined ? 0 : Date.now() - job.started
    return { position, etaMs: this.#pace.until(position, ran, this.#workers.count) }
  }

  get retryAfter(): number {
    return this.#pace.retryAfter
  }

  async add(job: Job, request: PictureRequest): Promise<void> {
    if (this.#closed) throw shuttingDown()
    const { queues, forget, store } = await this.#link
    const ofClient = [...this.#mirrors.values()].filter(({ job: { client }, own }) => own && client === job.client)
    expectRoom(await this.size(), ofClient.length, this.#limits)
    const model = request.model!
    // Whoever draws it again, after a worker died, draws the same.
    const seed = request.seed ?? BigInt(new Generator().seed)
    const { stored, inputs } = pack(job.id, { ...request, seed })
    const pictures = Array.from({ length: request.count ?? 1 }, (_, i) => pictureKey(job.id, i))
    const { keepMs } = this.#limits
    const queue = queues.get(model)!
    this.#mirrors.set(job.id, { job, queue, own: true })
    job.signal.addEventListener('abort', () => void this.#cancel(job, queue))
    try {
      // First of all: whatever ends here, what it leaves is deleted.
      const keys = [...pictures, ...inputs.map(({ key }) => key)]
      await reach(forget.add(FORGET, { model, keys, keepMs }, { jobId: job.id, delay: keepMs }))
      for (const { key, bytes } of inputs) await store.put(key, bytes, 'application/octet-stream')
      const data: JobData = { api: job.api, client: job.client, request: stored }
      await reach(queue.add('picture', data, { jobId: job.id, timestamp: job.created }))
    } catch (error) {
      this.#mirrors.delete(job.id)
      throw error
    }
    if (job.signal.aborted) await this.#cancel(job, queue)
  }

  async find(id: string): Promise<Job | undefined> {
    const known = this.#mirrors.get(id)
    if (known) return known.job
    if (!/^[\da-f-]{36}$/.test(id)) return undefined
    const { queues, redis } = await this.#link
    for (const queue of queues.values()) {
      const entry = await reach(queue.getJob(id))
      if (!entry) continue
      const { api, client } = entry.data
      const job = new Job(client, api, false, id, entry.timestamp)
      // Before its state is read: what changes from then on is an event.
      this.#mirrors.set(id, { job, queue, own: false })
      job.signal.addEventListener('abort', () => void this.#cancel(job, queue))
      await this.#catchUp(job, entry, await reach(entry.getState()))
      return job
    }
    if ((await reach(redis.exists(cancelledKey(id)))) === 0) return undefined
    const job = new Job('', '', false, id)
    job.end('cancelled')
    return job
  }

  /** Jobs stay in the queue; what ends with this process are those that a connection waits for. */
  async close(graceMs: number): Promise<void> {
    this.#closed = true
    const awaited = [...this.#mirrors.values()].map(({ job }) => job).filter(({ isAwaited }) => isAwaited)
    const stop = () => {
      for (const job of awaited) job.cancel(shuttingDown())
    }
    const timer = graceMs < Infinity && awaited.length > 0 ? setTimeout(stop, graceMs) : undefined
    await Promise.all(awaited.map((job) => job.over()))
    clearTimeout(timer)
    const link = await this.#link.catch(() => undefined)
    await link?.close()
  }

  async #open(url: string, results: string | ResultStore | undefined, models: readonly string[]): Promise<Link> {
    const { Queue, QueueEvents } = await loadBullMq()
    const store = await openResults(results)
    const redis = await connect(url, false)
    const patient = await connect(url, true)
    const base = { connection: redis, prefix: PREFIX, skipWaitingForReady: true }
    const removed = { removeOnComplete: true, removeOnFail: true }
    const forget = new Queue<ForgetData>(FORGET, { ...base, defaultJobOptions: { ...removed, attempts: 5 } })
    const queues = new Map(models.map((model) => [model, new Queue<JobData, JobResult>(queueOf(model), base)]))
    const events = await Promise.all(
      [...queues.values()].map(async (queue) => {
        // From here on, not from whenever it is connected: no job's end is missed.
        const [last] = await redis.xrevrange(queue.toKey('events'), '+', '-', 'COUNT', 1)
        const lastEventId = last?.[0] ?? '0-0'
        const follower = new QueueEvents(queue.name, { connection: patient, prefix: PREFIX, lastEventId })
        this.#follow(follower, queue)
        await follower.waitUntilReady()
        return follower
      }),
    )
    for (const each of [forget, ...queues.values()]) each.on('error', () => {}) // whoever asks is told
    const close = async () => {
      await Promise.all([...events, ...queues.values(), forget].map((each) => each.close()))
      redis.disconnect()
      patient.disconnect()
    }
    return { redis, store, queues, forget, close }
  }

  #follow(events: QueueEvents, queue: PictureQueue): void {
    const on = (id: string, change: (job: Job) => void) => {
      const job = this.#mirrors.get(id)?.job
      if (job && !job.isOver) change(job)
    }
    const moved = () => {
      for (const { job, queue: its } of this.#mirrors.values())
        if (its === queue && job.state === 'queued') job.changed()
    }
    events.on('error', () => {}) // it connects again and goes on where it was
    events.on('active', ({ jobId }) => {
      on(jobId, start)
      moved()
    })
    events.on('waiting', ({ jobId }) => on(jobId, wait))
    events.on('progress', ({ jobId, data }) => on(jobId, (job) => this.#progress(job, data as unknown as Progress)))
    events.on('completed', ({ jobId, returnvalue }) => {
      // BullMQ's events have it as JSON or as what it stands for, by version.
      const result = (
        typeof returnvalue === 'string' && returnvalue !== 'cancelled' ? JSON.parse(returnvalue) : returnvalue
      ) as JobResult
      on(jobId, (job) => this.#finish(job, result))
      moved()
    })
    events.on('failed', ({ jobId, failedReason }) => on(jobId, (job) => this.#fail(job, failedReason)))
    events.on('removed', ({ jobId }) => on(jobId, (job) => this.#end(job, 'cancelled')))
  }

  /** What happened before this server followed it. */
  async #catchUp(job: Job, entry: PictureEntry, state: string): Promise<void> {
    if (job.isOver) return
    if (entry.processedOn !== undefined) job.started = entry.processedOn
    if (state === 'completed') return this.#finish(job, (await reach(this.#again(entry))).returnvalue, entry.finishedOn)
    if (state === 'failed') return this.#fail(job, (await reach(this.#again(entry))).failedReason, entry.finishedOn)
    if (state === 'unknown') return this.#end(job, 'cancelled')
    if (state !== 'active') return
    job.state = 'running'
    const progress = entry.progress as unknown as Progress | 0
    if (progress !== 0) await this.#progress(job, progress)
  }

  /** It may have ended since it was read. */
  async #again(entry: PictureEntry): Promise<PictureEntry> {
    if (entry.finishedOn !== undefined) return entry
    const queue = this.#mirrors.get(entry.id!)!.queue
    return (await queue.getJob(entry.id!)) ?? entry
  }

  async #progress(job: Job, { previews, ...progress }: Progress): Promise<void> {
    start(job)
    job.progress = progress
    job.changed()
    if (previews <= job.previews) return
    job.previews = previews
    const { redis } = await this.#link
    const text = await redis.get(previewKey(job.id)).catch(() => null)
    if (text === null || job.isOver) return
    job.preview = unpackPreview(text)
    job.changed()
  }

  #finish(job: Job, result: JobResult, at?: number): void {
    const recipes = result === 'cancelled' ? [] : result.recipes
    job.pictures = recipes.map((recipe, i) => this.#picture(job.id, i, recipe ?? undefined))
    this.#end(job, result === 'cancelled' ? result : 'done', at)
    if (result !== 'cancelled' && job.started !== undefined) this.#pace.note(job.ended! - job.started)
  }

  #fail(job: Job, reason: string, at?: number): void {
    job.error = errorOf(reason)
    this.#end(job, 'failed', at)
  }

  #end(job: Job, state: 'done' | 'failed' | 'cancelled', at?: number): void {
    if (job.isOver) return
    const own = this.#mirrors.get(job.id)?.own
    this.#mirrors.delete(job.id)
    job.end(state, at)
    if (own) this.#onEnd(job)
  }

  #picture(id: string, index: number, recipe: Picture['recipe']): Picture {
    return {
      recipe,
      read: async () => {
        const { store } = await this.#link
        const bytes = await store.get(pictureKey(id, index))
        if (!bytes) throw new RequestError(404, 'The picture is gone: it was too long ago', 'not_found')
        const { data, width, height, channels } = await loadImage(bytes)
        return new RawImage(data, width, height, channels, recipe)
      },
    }
  }

  /** One that waits leaves the queue; the worker of one that runs is told, and says when it has ended. */
  async #cancel(job: Job, queue: PictureQueue): Promise<void> {
    try {
      const { redis } = await this.#link
      await redis.set(cancelledKey(job.id), '1', 'PX', this.#limits.keepMs)
      const entry = await queue.getJob(job.id)
      if (!entry || job.isOver) return
      try {
        await entry.remove()
        this.#end(job, 'cancelled')
      } catch {
        await redis.publish(CANCELLED, job.id)
      }
    } catch (error) {
      // Out of reach: nothing more will be heard of it here.
      job.error = error
      this.#end(job, 'cancelled')
    }
  }
}

function start(job: Job): void {
  if (job.state === 'running') return
  job.state = 'running'
  job.started = Date.now()
  job.changed()
}

/** Its worker died, or gave it back. */
function wait(job: Job): void {
  if (job.state !== 'running') return
  job.state = 'queued'
  job.started = undefined
  job.progress = undefined
  job.preview = undefined
  job.previews = 0
  job.changed()
}

/** Workers fail with what a client may see, as JSON; BullMQ itself with a sentence, if workers died again and again. */
function errorOf(reason: string): RequestError {
  try {
    const { status, message, code, field } = JSON.parse(reason) as RequestError
    return new RequestError(status, message, code, field)
  } catch {
    return new RequestError(500, 'The picture could not be made: its workers died', 'WORKER_DIED')
  }
}

/** What Redis answers. @throws RequestError 503 if it does not */
async function reach<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (cause) {
    throw Object.assign(new RequestError(503, 'The queue is out of reach: try again later', 'queue_unreachable'), {
      cause,
    })
  }
}

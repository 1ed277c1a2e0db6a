// A worker of a queue in Redis: takes jobs of the models that it has, one at a time, and puts the pictures where servers find
// them. BullMQ renews its claim on a job while it lives; what a dead worker leaves is taken by another.
import { hostname } from 'node:os'
import type { Worker } from 'bullmq'
import { KandinskyError } from '../errors.js'
import { expectOptions } from '../pipelines/call/options.js'
import { RequestError } from './fields.js'
import { checkLimits, Job } from './jobs.js'
import { type ModelLimits, Models, type ServerModel } from './models.js'
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
  PREFIX,
  packPreview,
  pictureKey,
  previewKey,
  queueOf,
  unpack,
} from './redis.js'
import { openResults, type ResultStore } from './results.js'
import { eventOf, explain, modelsOf, type ServerEvent } from './service.js'

/** A worker's models, and where its jobs come from. */
export interface QueueWorkerOptions extends ModelLimits {
  /** `redis://…`, as the servers have it */
  queue: string
  /** a folder that the servers reach, too, `s3://bucket/prefix`, or a store of your own */
  results: string | ResultStore
  /** sources by the names that servers have (default: the packaged demo) */
  models?: Readonly<Record<string, string | ServerModel>> | undefined
  /** on closing, how long the job may still take before it is given back, in ms (default: as long as it does) */
  graceMs?: number | undefined
  /** called with every job that ends here, and every model that is loaded or makes room */
  onEvent?: ((event: ServerEvent) => void) | undefined
}

/** A running worker. */
export interface QueueWorker extends AsyncDisposable {
  /** Takes no more jobs, finishes the one that runs or gives it back, and frees the models. */
  close(): Promise<void>
}

/** A worker that was not heard of for so long is dead, in ms; it is looked for half as often. */
const LOST_MS = 10_000
/** A job that ended so many workers ends no more. */
const MAX_LOST = 3
/** In ms: a step of a large model on a slow machine takes minutes. */
const PREVIEW_MS = 3_600_000

/**
 * Computes jobs of a queue in this process, one at a time: one worker for each device.
 * @throws KandinskyError `INVALID_ARGUMENT`; `FILE_NOT_FOUND` unless `bullmq` and `ioredis` are installed beside this package
 */
export async function createQueueWorker(options: QueueWorkerOptions): Promise<QueueWorker> {
  expectOptions(options, ['queue', 'results', 'models', 'maxLoaded', 'memory', 'graceMs', 'onEvent'])
  checkLimits(options)
  const { queue: url, graceMs = Infinity, onEvent } = options
  if (typeof url !== 'string') throw new KandinskyError('INVALID_ARGUMENT', 'Expected a URL for queue')
  const { Queue, Worker, DelayedError, WaitingError, UnrecoverableError } = await loadBullMq()
  const store = await openResults(options.results)
  const models = new Models(modelsOf(options.models), options, (event) => onEvent?.(event))
  const redis = await connect(url, true)
  const listener = await connect(url, true)
  const base = { connection: redis, prefix: PREFIX }
  let running: { job: Job; isReturned: boolean } | undefined
  let isClosing = false

  listener.on('message', (_, id) => {
    if (running?.job.id === id) running!.job.cancel()
  })
  await listener.subscribe(CANCELLED)

  const workers = models.names.map((model) => {
    const worker: Worker<JobData, JobResult> = new Worker(
      queueOf(model),
      (entry, token) => take(entry, token!, worker),
      {
        ...base,
        name: hostname(),
        lockDuration: LOST_MS,
        stalledInterval: LOST_MS / 2,
        maxStalledCount: MAX_LOST,
      },
    )
    // Another worker has the job by now.
    worker.on('lockRenewalFailed', (ids) => {
      if (running && ids.includes(running.job.id)) running.job.cancel()
    })
    return worker
  })
  const forgetter = new Worker<ForgetData>(FORGET, forget, base)
  for (const worker of [...workers, forgetter]) worker.on('error', () => {}) // it connects again and goes on

  async function take(entry: PictureEntry, token: string, worker: Worker): Promise<JobResult> {
    // One device, one job, whichever model's: what was fetched in the same moment goes to the front of its queue.
    if (running || isClosing) {
      await entry.moveToWait(token)
      throw new WaitingError()
    }
    const job = new Job(entry.data.client, entry.data.api, false, entry.id!, entry.timestamp)
    const own = { job, isReturned: false }
    running = own
    const others = workers.filter((other) => other !== worker)
    for (const other of others) void other.pause(true)
    try {
      const result = await draw(entry, job)
      if (!own.isReturned) return result
      await entry.moveToWait(token)
    } finally {
      running = undefined
      if (!isClosing) for (const other of others) void other.resume()
    }
    throw new WaitingError()
  }

  async function draw(entry: PictureEntry, job: Job): Promise<JobResult> {
    job.state = 'running'
    job.started = Date.now()
    const told = tell(entry, job)
    let state: 'done' | 'failed' | 'cancelled' = 'cancelled'
    try {
      if (await redis.exists(cancelledKey(job.id))) job.cancel()
      job.signal.throwIfAborted()
      const images = await models.draw(await unpack(entry.data.request, store), job)
      for (const [i, image] of images.entries())
        await store.put(pictureKey(job.id, i), await image.toBuffer('png'), 'image/png')
      job.pictures = images.map((image) => ({ recipe: image.recipe, read: async () => image }))
      state = 'done'
      return { recipes: images.map(({ recipe }) => recipe ?? null) }
    } catch (error) {
      if (job.signal.aborted) return 'cancelled'
      state = 'failed'
      job.error = error
      const { status, message, code, field } = explain(error)
      throw new UnrecoverableError(JSON.stringify({ status, message, code, field }))
    } finally {
      job.end(state)
      await told
      await redis.del(previewKey(job.id))
      onEvent?.(eventOf(job))
    }
  }

  /** Progress and previews for whoever follows it, as fast as Redis takes them. */
  async function tell(entry: PictureEntry, job: Job): Promise<void> {
    let seen = 0
    for await (const _ of job.changes()) {
      if (job.isOver || !job.progress) continue
      if (job.preview && job.previews !== seen) {
        seen = job.previews
        await redis.set(previewKey(job.id), packPreview(job.preview), 'PX', PREVIEW_MS)
      }
      await entry.updateProgress({ ...job.progress, previews: seen }).catch(() => {}) // another worker's, or cancelled
    }
  }

  /** Deletes what a job left, once it was kept long enough. */
  async function forget(entry: import('bullmq').Job<ForgetData>, token?: string): Promise<void> {
    const { model, keys, keepMs } = entry.data
    const queue = new Queue<JobData, JobResult>(queueOf(model), base)
    const job = await queue.getJob(entry.id!)
    const due = job ? (job.finishedOn ?? Date.now()) + keepMs : 0
    if (due > Date.now()) {
      await entry.moveToDelayed(due, token)
      throw new DelayedError()
    }
    await job?.remove()
    for (const key of keys) await store.delete(key)
  }

  const close = async () => {
    isClosing = true
    const timer = graceMs < Infinity ? setTimeout(giveBack, graceMs) : undefined
    await Promise.all([...workers, forgetter].map((worker) => worker.close()))
    clearTimeout(timer)
    await models.dispose()
    redis.disconnect()
    listener.disconnect()
  }
  function giveBack() {
    if (!running) return
    running.isReturned = true
    running.job.cancel(new RequestError(503, 'The worker is shutting down', 'shutting_down'))
  }
  return { close, [Symbol.asyncDispose]: close }
}

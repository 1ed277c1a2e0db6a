// What the APIs share: requests become jobs, errors become answers.
import type { Context } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { invalid, KandinskyError } from '../errors.js'
import type { ImageFormat, RawImage } from '../images/image.js'
import { schedulerByName } from '../schedulers/registry.js'
import { type Fields, RequestError } from './fields.js'
import { Job, type JobLimits, type JobQueue } from './jobs.js'
import { LocalQueue } from './local-queue.js'
import { type ModelEvent, type ModelLimits, Models, type ServerModel } from './models.js'
import { RedisQueue } from './redis-queue.js'
import type { PictureRequest } from './request.js'
import type { ResultStore } from './results.js'

/** What happened, for logs. */
export type ServerEvent = JobEvent | ModelEvent | FailureEvent

/** A request was answered with an error that is the server's own. */
export interface FailureEvent {
  event: 'failure'
  method: string
  path: string
  status: number
  /** with paths, unlike what clients get */
  error: string
}

/** A job ended. */
export interface JobEvent {
  event: 'job'
  id: string
  api: string
  state: string
  waitedMs: number
  ranMs: number
  pictures: number
  /** with paths, unlike what clients get */
  error?: string | undefined
}

export interface ServiceOptions extends JobLimits, ModelLimits {
  /** sources by the names that clients use; the first is the default (default: the packaged demo) */
  models?: Readonly<Record<string, string | ServerModel>> | undefined
  /** largest width and height that may be asked for, in pixels (default 2048) */
  maxSide?: number | undefined
  /** bytes of start pictures, masks and mixes that jobs bring and keep until they are over (default 512 MiB) */
  maxInputBytes?: number | undefined
  /**
   * `redis://…`: jobs wait there, and workers (`createQueueWorker`) make their pictures; default: this process does. `memory`,
   * `maxLoaded` and `keepBytes` mean nothing then and are refused
   */
  queue?: string | undefined
  /** where workers put the pictures: a folder, `s3://bucket/prefix`, or a store of your own. Needed with a queue */
  results?: string | ResultStore | undefined
  /** on closing, how long jobs may still take, in ms (default: as long as they do) */
  graceMs?: number | undefined
  /** called with every job that ends, and every model that is loaded or makes room */
  onEvent?: ((event: ServerEvent) => void) | undefined
}

export const maxCount = 10
const maxSteps = 1000
const demo: ServerModel = { source: 'demo', inpainting: 'demo-inpaint' }

/** Models by name. @throws KandinskyError `INVALID_ARGUMENT` if there is none */
export function modelsOf(models: ServiceOptions['models'] = { demo }): Map<string, ServerModel> {
  const named = Object.entries(models).map(
    ([name, model]) => [name, typeof model === 'string' ? { source: model } : model] as const,
  )
  if (named.length === 0) throw new KandinskyError('INVALID_ARGUMENT', 'Expected at least one model')
  return new Map(named)
}

export class Service {
  readonly models: Models
  readonly jobs: JobQueue
  readonly started = Math.floor(Date.now() / 1000)
  /** for whoever runs the server */
  readonly tell: (event: ServerEvent) => void
  readonly #maxSide: number
  readonly #maxInputBytes: number
  readonly #graceMs: number
  readonly #closed = new AbortController()
  #inputBytes = 0

  constructor(options: ServiceOptions) {
    const {
      models,
      maxLoaded,
      memory,
      maxSide = 2048,
      maxInputBytes = 512 * 2 ** 20,
      queue,
      results,
      graceMs = Infinity,
      onEvent,
      ...limits
    } = options
    if (queue !== undefined)
      for (const [name, value] of Object.entries({ memory, maxLoaded, keepBytes: limits.keepBytes }))
        if (value !== undefined)
          throw invalid(
            name,
            'nothing beside a queue, whose workers have the models and whose results the pictures,',
            value,
          )
    this.tell = (event) => onEvent?.(event)
    this.models = new Models(modelsOf(models), { maxLoaded, memory }, this.tell)
    const onEnd = (job: Job) => this.tell(eventOf(job))
    this.jobs =
      queue === undefined
        ? new LocalQueue(limits, (request, job) => this.models.draw(request, job), onEnd)
        : new RedisQueue(queue, results, this.models.names, limits, onEnd)
    this.#graceMs = graceMs
    this.#maxSide = maxSide
    this.#maxInputBytes = maxInputBytes
  }

  /** Ranges of the numbers that every API has under names of its own. */
  get ranges() {
    const side = { integer: true, min: 1, max: this.#maxSide }
    return {
      count: { integer: true, min: 1, max: maxCount },
      steps: { integer: true, min: 1, max: maxSteps },
      guidance: { min: 0, max: 100 },
      strength: { min: 0, max: 1 },
      side,
    }
  }

  /** `1024x768`; undefined for `auto`. */
  size(fields: Fields, name: string): { width?: number; height?: number } {
    const text = fields.text(name)
    if (text === undefined || text === 'auto') return {}
    const [, width = 0, height = 0] = (/^(\d{1,5})x(\d{1,5})$/.exec(text) ?? []).map(Number)
    const max = this.#maxSide
    if (width < 1 || height < 1 || width > max || height > max)
      throw fields.wrong(name, `auto, or width and height as 1024x768, of at most ${max} each,`)
    return { width, height }
  }

  /**
   * Checks what can be checked at once, and puts a job into the queue.
   * @param signal ends the job: of the connection that waits for it
   */
  async submit(c: Context, api: string, request: PictureRequest, signal?: AbortSignal): Promise<Job> {
    const model = this.models.expect(request.model)
    if (request.scheduler !== undefined) schedulerByName(request.scheduler, {})
    if (request.mask && !request.image) throw new RequestError(400, 'A mask needs an image', null, 'mask')
    const bytes = inputBytesOf(request)
    if (bytes > 0 && this.#inputBytes > 0 && this.#inputBytes + bytes > this.#maxInputBytes)
      throw new RequestError(429, 'Waiting jobs brought too many pictures: try again later', 'rate_limit_exceeded')
    const job = new Job(clientOf(c), api, signal !== undefined)
    this.#inputBytes += bytes
    const release = () => {
      this.#inputBytes -= bytes
    }
    try {
      await this.jobs.add(job, { ...request, model })
    } catch (error) {
      release()
      throw error
    }
    void job.over().then(release)
    if (signal?.aborted) job.cancel()
    else signal?.addEventListener('abort', () => job.cancel(), { once: true })
    return job
  }

  /** Aborted once nothing more happens here. */
  get closed(): AbortSignal {
    return this.#closed.signal
  }

  async close(): Promise<void> {
    await this.jobs.close(this.#graceMs)
    this.#closed.abort()
    await this.models.dispose()
  }
}

function inputBytesOf({ image, mask, mix = [] }: PictureRequest): number {
  return [image, mask, ...mix.map(({ item }) => item)].reduce((sum, input) => sum + (input?.length ?? 0), 0)
}

/** An error as a client may see it. What is not the client's own says nothing of this machine. */
export function explain(error: unknown): RequestError {
  if (error instanceof RequestError) return error
  if (!(error instanceof KandinskyError)) return new RequestError(500, 'The picture could not be made', 'INTERNAL')
  if (error.code === 'INVALID_ARGUMENT' || error.code === 'SHAPE_MISMATCH')
    return new RequestError(400, error.message, error.code)
  return new RequestError(500, `The picture could not be made (${error.code})`, error.code)
}

/** The answer to a request that failed; the body is the API's. */
export function refuse(
  c: Context,
  service: Service,
  thrown: unknown,
  bodyOf: (error: RequestError) => object,
): Response {
  const error = explain(thrown)
  const { status } = error
  if (status === 429) c.header('Retry-After', String(service.jobs.retryAfter))
  if (status >= 500) {
    const { method, path } = c.req
    service.tell({ event: 'failure', method, path, status, error: messageOf(error.cause ?? thrown) })
  }
  return c.json(bodyOf(error), status as ContentfulStatusCode)
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The body of a request as JSON. @throws RequestError 400 */
export async function readJson(c: Context): Promise<unknown> {
  const text = await c.req.text()
  if (text.trim() === '') return {}
  try {
    return JSON.parse(text)
  } catch {
    throw new RequestError(400, 'Expected JSON in the body', 'invalid_json')
  }
}

export async function toBase64(image: RawImage, format: ImageFormat = 'png', quality?: number): Promise<string> {
  return (await image.toBuffer(format, { quality })).toString('base64')
}

/** How a preview of latent cells looks at the size of the picture. */
export function enlarge(preview: RawImage): RawImage {
  return preview.resize(preview.width * 8, preview.height * 8)
}

/** The whole of a job: the prior is a small part of the work. */
export function fractionOf({ state, progress }: Job): number {
  if (state === 'done') return 1
  if (!progress || progress.stage === 'loading') return 0
  const done = progress.step / progress.steps
  return progress.stage === 'prior' ? 0.1 * done : 0.1 + 0.9 * done
}

/** The address that a request came from, where the host of the handler tells. */
function clientOf(c: Context): string {
  const { incoming } = (c.env ?? {}) as { incoming?: { socket?: { remoteAddress?: string } } }
  return incoming?.socket?.remoteAddress ?? 'unknown'
}

export function eventOf(job: Job): JobEvent {
  const { id, api, state, created, started, ended = created, pictures, error } = job
  const message = state === 'failed' ? messageOf(error) : undefined
  return {
    ...{ event: 'job', id, api, state },
    ...{ waitedMs: (started ?? ended) - created, ranMs: started === undefined ? 0 : ended - started },
    ...{ pictures: pictures.length, error: message },
  }
}

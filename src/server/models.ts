// The models that a server draws with, by name. Pipelines are loaded when they are first needed; those that were not used
// for longest make room.
import { combineCheckpoints } from '../checkpoint/open.js'
import { invalid, KandinskyError } from '../errors.js'
import { loadImage, RawImage } from '../images/image.js'
import { resolveDevice } from '../networks/devices.js'
import { AutoPipeline, type AutoPretrainedOptions } from '../pipelines/auto.js'
import type { StepEvent } from '../pipelines/call/progress.js'
import { estimate } from '../pipelines/estimate.js'
import { type PromptPipeline, type Task, type TaskOptions, taskFor } from '../pipelines/families.js'
import { findPrior, openSource } from '../pipelines/loading/open.js'
import { Generator } from '../random.js'
import { schedulerByName } from '../schedulers/registry.js'
import type { Scheduler } from '../schedulers/scheduler.js'
import { RequestError } from './fields.js'
import type { Job } from './jobs.js'
import type { MixPart, PictureRequest } from './request.js'

/** A source for `fromPretrained`, with its options. */
export interface ServerModel extends Omit<AutoPretrainedOptions<Task>, 'task' | 'signal' | 'onProgress'> {
  source: string
  /** the checkpoint that repaints for it: inpainting has networks of its own */
  inpainting?: string | undefined
}

/** Pixels of a picture that a request brings: beyond any model's use, but no bomb. */
export const maxInputPixels = 16 * 2 ** 20
const SEED_BITS = 64

/** What stays loaded. */
export interface ModelLimits {
  /** pipelines that stay loaded; a model has one for each of its tasks (default 2, beside `memory` any number) */
  maxLoaded?: number | undefined
  /**
   * bytes that loaded pipelines may take in all, each as `kandinsky estimate` has it for pictures of 512 x 512, on a GPU with all
   * of its networks at once (default: no limit)
   */
  memory?: number | undefined
}

/** A pipeline was loaded, or made room for another. */
export interface ModelEvent {
  event: 'model'
  model: string
  task: Task
  state: 'loaded' | 'unloaded'
  /** how long that took */
  ms: number
  /** what it is estimated to take, where memory has a limit */
  bytes?: number | undefined
}

interface Loaded {
  name: string
  task: Task
  pipe: PromptPipeline<TaskOptions[Task]>
  scheduler: Scheduler
  bytes: number
}

export class Models {
  readonly #models: ReadonlyMap<string, ServerModel>
  readonly #limits: { maxLoaded: number; memory: number }
  readonly #onEvent: (event: ModelEvent) => void
  /** least recently used first */
  readonly #loaded = new Map<string, Loaded>()
  /** in bytes, by source */
  readonly #sizes = new Map<string, number>()

  /** @throws KandinskyError `INVALID_ARGUMENT` for limits that are none */
  constructor(
    models: ReadonlyMap<string, ServerModel>,
    { memory = Infinity, maxLoaded = memory < Infinity ? Infinity : 2 }: ModelLimits,
    onEvent: (event: ModelEvent) => void,
  ) {
    for (const [what, value] of Object.entries({ memory, maxLoaded }))
      if (typeof value !== 'number' || !(value > 0)) throw invalid(what, 'a number above 0', value)
    this.#models = models
    this.#limits = { maxLoaded, memory }
    this.#onEvent = onEvent
  }

  get names(): string[] {
    return [...this.#models.keys()]
  }

  get first(): string {
    return this.names[0]!
  }

  /** The name of a model that is there, the first one without a name. @throws RequestError 404 */
  expect(name: string | undefined): string {
    if (name === undefined) return this.first
    if (this.#models.has(name)) return name
    const known = this.names.join(', ')
    throw new RequestError(404, `There is no model of that name: expected one of ${known}`, 'model_not_found', 'model')
  }

  /** Makes the pictures of a request. Not to be called again before it is done. */
  async draw(request: PictureRequest, job: Job): Promise<RawImage[]> {
    const { prompt, mix, negativePrompt, count = 1, width, height, steps, guidance, strength, hiresFix } = request
    const maskImage = await maskOf(request)
    const wanted = mix ? { mix: await mixOf(mix) } : { prompt }
    const inputs = {
      ...(request.image && { image: await decode('image', request.image, 'RGB') }),
      ...(maskImage && { maskImage }),
      ...(strength !== undefined && { strength }),
    }
    const seed = request.seed ?? BigInt(new Generator().seed)
    const { pipe, scheduler } = await this.#load(this.expect(request.model), taskFor(inputs), job)
    pipe.scheduler = request.scheduler === undefined ? scheduler : schedulerByName(request.scheduler, scheduler.config)
    const { images } = (await pipe.generate({
      ...wanted,
      negativePrompt,
      ...{ width, height, numInferenceSteps: steps, guidanceScale: guidance, numImagesPerPrompt: count },
      ...inputs,
      ...(hiresFix && { hiresFix }),
      generator: Array.from({ length: count }, (_, i) => new Generator(BigInt.asUintN(SEED_BITS, seed + BigInt(i)))),
      preview: true,
      signal: job.signal,
      onStep: ({ stage, step, steps, etaMs, preview }: StepEvent) => {
        job.progress = { stage, step, steps, etaMs }
        if (preview) job.previews++
        job.preview = preview ?? job.preview
        job.changed()
      },
    } as unknown as TaskOptions[Task])) as { images: RawImage[] }
    return images
  }

  async dispose(): Promise<void> {
    const loaded = [...this.#loaded.values()]
    this.#loaded.clear()
    await Promise.all(loaded.map(({ pipe }) => pipe.dispose()))
  }

  async #load(name: string, task: Task, job: Job) {
    const key = `${task} ${name}`
    const known = this.#loaded.get(key)
    this.#loaded.delete(key)
    if (known) {
      this.#loaded.set(key, known)
      return known
    }
    const { maxLoaded, memory } = this.#limits
    const bytes = memory < Infinity ? await this.#bytesOf(name, task, job) : 0
    const fits = () => this.#loaded.size < maxLoaded && sumOf(this.#loaded) + bytes <= memory
    if (bytes > memory) {
      const [takes, allowed] = [bytes, memory].map((value) => `${(value / 1e9).toFixed(1)} GB`)
      throw new KandinskyError('OUT_OF_MEMORY', `${name} takes about ${takes}, where models may take ${allowed}`)
    }
    // Room is made before it is needed.
    while (!fits()) {
      const [oldest, { pipe, name, task, bytes }] = this.#loaded.entries().next().value!
      const started = performance.now()
      this.#loaded.delete(oldest)
      await pipe.dispose()
      this.#tell({ model: name, task, state: 'unloaded', bytes }, started)
    }
    const started = performance.now()
    const pipe = await this.#open(name, task, job)
    const loaded = { name, task, pipe, scheduler: pipe.scheduler, bytes }
    this.#loaded.set(key, loaded)
    this.#tell({ model: name, task, state: 'loaded', bytes }, started)
    return loaded
  }

  #tell({ bytes, ...event }: Omit<ModelEvent, 'event' | 'ms'>, started: number): void {
    const known = bytes === 0 ? {} : { bytes }
    this.#onEvent({ event: 'model', ...event, ms: Math.round(performance.now() - started), ...known })
  }

  #sourceOf(name: string, task: Task) {
    const { source, inpainting = source, ...options } = this.#models.get(name)!
    return { source: task === 'inpainting' ? inpainting : source, options }
  }

  /** Found without loading it. */
  async #bytesOf(name: string, task: Task, job: Job): Promise<number> {
    const { source, options } = this.#sourceOf(name, task)
    const known = this.#sizes.get(source)
    if (known !== undefined) return known
    const from = { ...options, signal: job.signal }
    const checkpoint = await openSource(source, from)
    const decoder = checkpoint.side('prior') ? undefined : checkpoint.side('decoder')
    const prior = options.prior ?? (decoder && (await findPrior(decoder)))
    const elsewhere = { ...from, subfolder: undefined, revision: undefined }
    const whole = prior === undefined ? checkpoint : combineCheckpoints(checkpoint, await openSource(prior, elsewhere))
    const { disk, memory } = await estimate(whole, { weights: options.weights, signal: job.signal })
    const compute = Math.max(...memory.stages.map((stage) => stage.compute))
    const bytes = resolveDevice(options.device) === 'cpu' ? memory.peak : disk.total + compute
    this.#sizes.set(source, bytes)
    return bytes
  }

  async #open(name: string, task: Task, job: Job) {
    const { source, options } = this.#sourceOf(name, task)
    try {
      return await AutoPipeline.fromPretrained<Task>(source, {
        ...options,
        task,
        signal: job.signal,
        onProgress: ({ done, total }) => {
          job.progress = { stage: 'loading', step: done, steps: total, etaMs: 0 }
          job.changed()
        },
      })
    } catch (error) {
      // Its message names the file.
      if (error instanceof KandinskyError && error.code === 'UNSUPPORTED_MODEL')
        throw new RequestError(400, `The model ${name} does not do ${task}`, 'unsupported_task', 'model')
      throw error
    }
  }
}

function sumOf(loaded: ReadonlyMap<string, Loaded>): number {
  return [...loaded.values()].reduce((sum, { bytes }) => sum + bytes, 0)
}

async function mixOf(parts: readonly MixPart[]) {
  const items = parts.map(({ item }) => (typeof item === 'string' ? item : decode('mix', item, 'RGB')))
  return { items: await Promise.all(items), weights: parts.map(({ weight }) => weight) }
}

/** The mask with what is repainted in white. */
export async function maskOf({ image, mask, repaint = 'white' }: PictureRequest): Promise<RawImage | undefined> {
  if (repaint === 'transparent') {
    const source = mask ?? image
    const picture = source && (await decode(mask ? 'mask' : 'image', source, 'RGBA'))
    const { data, width, height } = picture ?? { data: new Uint8Array(), width: 0, height: 0 }
    const opacity = data.filter((_, i) => i % 4 === 3)
    if (opacity.some((value) => value < 255))
      return new RawImage(
        opacity.map((value) => 255 - value),
        width,
        height,
        1,
      )
  }
  if (!mask) return undefined
  const { data, width, height } = await decode('mask', mask, 'L')
  return new RawImage(repaint === 'black' ? data.map((value) => 255 - value) : data, width, height, 1)
}

/** Of at most so many pixels. @throws RequestError naming the field */
export async function decode(field: string, bytes: Uint8Array, mode: 'RGB' | 'RGBA' | 'L'): Promise<RawImage> {
  try {
    return await loadImage(bytes, { maxPixels: maxInputPixels, mode })
  } catch (error) {
    if (!(error instanceof KandinskyError)) throw error
    throw new RequestError(400, `${field}: ${error.message}`, 'invalid_image', field)
  }
}

// The models that a server draws with, by name. Pipelines are loaded when they are first needed; those that were not used
// for longest make room.
import { KandinskyError } from '../errors.js'
import { loadImage, RawImage } from '../images/image.js'
import { AutoPipeline, type AutoPretrainedOptions } from '../pipelines/auto.js'
import type { StepEvent } from '../pipelines/call/progress.js'
import { type PromptPipeline, type Task, type TaskOptions, taskFor } from '../pipelines/families.js'
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

export class Models {
  readonly #models: ReadonlyMap<string, ServerModel>
  readonly #keep: number
  /** least recently used first */
  readonly #loaded = new Map<string, { pipe: PromptPipeline<TaskOptions[Task]>; scheduler: Scheduler }>()

  /** @param keep how many pipelines stay loaded */
  constructor(models: ReadonlyMap<string, ServerModel>, keep: number) {
    this.#models = models
    this.#keep = keep
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
    // Room is made before it is needed.
    while (this.#loaded.size >= this.#keep) {
      const [oldest, { pipe }] = this.#loaded.entries().next().value!
      this.#loaded.delete(oldest)
      await pipe.dispose()
    }
    const pipe = await this.#open(name, task, job)
    const loaded = { pipe, scheduler: pipe.scheduler }
    this.#loaded.set(key, loaded)
    return loaded
  }

  async #open(name: string, task: Task, job: Job) {
    const { source, inpainting = source, ...options } = this.#models.get(name)!
    try {
      return await AutoPipeline.fromPretrained<Task>(task === 'inpainting' ? inpainting : source, {
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

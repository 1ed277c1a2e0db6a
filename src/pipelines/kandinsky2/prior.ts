// What the priors share (unCLIP: text to CLIP image embedding), after diffusers' pipeline_kandinsky2_2_prior.py.
import { invalid, KandinskyError } from '../../errors.js'
import type { ImageInput, RawImage } from '../../images/image.js'
import { type ClipProcessorConfig, clipPreprocess, resolveImages } from '../../images/processing.js'
import { type RandomSource, randnTensor } from '../../random.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import { elementCount, repeatRows, sliceRows, Tensor, tileRows } from '../../tensor.js'
import { ClipTokenizer } from '../../tokenizers/clip.js'
import {
  type Exact,
  expectInteger,
  expectNoise,
  expectNumber,
  expectOptions,
  expectPrompts,
  expectTensor,
  maxImages,
  type NoiseOptions,
} from '../call/options.js'
import { type CallOptions, callOptionNames, checkCallOptions, streamCall } from '../call/progress.js'
import { Recent } from '../call/recent.js'
import { inTurn } from '../call/turns.js'
import { loraRecipe } from '../loading/lora.js'
import {
  type ComponentsOf,
  callDefaults,
  network,
  optionalNetwork,
  scheduler,
  settings,
  tokenizer,
  zeroImageEmbeds,
} from '../loading/parts.js'
import { guided, isGuided } from '../sampling/guidance.js'
import { SamplingPipeline } from '../sampling/pipeline.js'
import { type Predict, type Start, sample } from '../sampling/sample.js'
import { scaledNoise } from '../sampling/start.js'
import { EmbeddingCache } from './embedding-cache.js'
import { type EncodedText, encodeText, joinText } from './prior-text.js'

/** What every call of a prior takes. */
export interface PriorCallOptions extends CallOptions, NoiseOptions {
  /** one prompt or a batch */
  prompt: string | string[]
  /**
   * What the image should not show. `''` is not the same as leaving it out: any negative prompt makes the prior compute
   * an embedding for it (twice the work), otherwise the embedding of an all-zero image stands for it.
   */
  negativePrompt?: string | string[] | undefined
  /** images per prompt, default 1 */
  numImagesPerPrompt?: number | undefined
  /** denoising steps, default 25 */
  numInferenceSteps?: number | undefined
  /** classifier-free guidance, off up to 1; default 4 */
  guidanceScale?: number | undefined
}

/** A call of a prior for texts. */
export interface PriorOptions extends PriorCallOptions {
  /** initial noise [rows, embeddingDim] instead of a drawn one; rows double when there is a negative prompt */
  latents?: Tensor | undefined
}

/**
 * Embeddings can be kept and mixed: `JSON.stringify` and `Tensor.from` take them to a file and back without loss.
 */
export interface PriorResult {
  /** [prompts * numImagesPerPrompt, embeddingDim] */
  imageEmbeds: Tensor
  /** same shape; the embeddings of the negative prompts, or of an all-zero image */
  negativeImageEmbeds: Tensor
}

/** A call of a prior for a mix; see `interpolate`. */
export interface InterpolateOptions extends Omit<PriorOptions, 'prompt' | 'negativePrompt'> {
  /** negative prompt of the prior runs for the strings */
  negativePriorPrompt?: string | undefined
  /** prompt whose embedding becomes `negativeImageEmbeds`; `''` stands for an all-zero image's embedding */
  negativePrompt?: string | undefined
}

/** A string is a prompt; an image is anything else that `loadImage` takes, or preprocessed pixels [1, 3, size, size]. */
export type ImageOrPrompt = string | Exclude<ImageInput, string> | Tensor

export const priorParts = {
  scheduler: scheduler(),
  tokenizer: tokenizer(ClipTokenizer),
  imageProcessor: settings<ClipProcessorConfig>('image_processor/preprocessor_config.json'),
  defaults: callDefaults(),
  textEncoder: network('CLIPTextModelWithProjection'),
  prior: network('PriorTransformer'),
  // The largest network of all; only needed for image inputs, and for the zero image where its embedding is not stored.
  imageEncoder: optionalNetwork('CLIPVisionModelWithProjection', { late: true }),
  zeroImageEmbeds: zeroImageEmbeds(),
}
export type PriorComponents = ComponentsOf<typeof priorParts>

export const priorCallOptionNames = [
  ...['prompt', 'negativePrompt', 'numImagesPerPrompt', 'numInferenceSteps', 'guidanceScale', 'seed', 'generator'],
  ...callOptionNames,
]
const textOptionNames = [...priorCallOptionNames, 'latents']
const interpolateOptionNames = [...textOptionNames.filter((name) => name !== 'prompt'), 'negativePriorPrompt']

/** The options of one run, checked and with defaults. */
export interface PriorCall extends CallOptions {
  prompts: string[]
  negatives: string[] | undefined
  /** images per prompt */
  count: number
  /** (prompts + negatives) * count */
  rows: number
  steps: number
  guidanceScale: number
  generator: RandomSource | RandomSource[]
  /** this run's own, its timesteps set */
  scheduler: Scheduler
}

/** A call that is checked; nothing is computed yet. */
export interface PriorJob extends PriorCall {
  /** where the run begins; called once the texts are encoded, as the reference draws its noise then */
  begin(): Start | Promise<Start>
}

/** @typeParam Options those of `generate` */
export abstract class PriorPipeline<Options extends PriorCallOptions> extends SamplingPipeline<PriorComponents> {
  static readonly parts = priorParts
  static override readonly side = 'prior'
  #zeroImageEmbeds: Tensor | undefined
  readonly #cache = new EmbeddingCache<PriorResult>()
  readonly #texts = new Recent<EncodedText>()

  constructor(components: PriorComponents) {
    super(components)
    this.#zeroImageEmbeds = components.zeroImageEmbeds
  }

  /**
   * Image embeddings for prompts, ordered prompt by prompt; all noise is drawn from `generator` in diffusers' order.
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH` before anything is computed
   */
  async generate<Given extends Options>(options: Exact<Options, Given>): Promise<PriorResult> {
    const job = await this.check(options)
    return inTurn(this.components.prior.device, job.signal, () => this.run(job))
  }

  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', ... }` event. */
  stream<Given extends Options>(options: Exact<Options, Given>) {
    return streamCall((withEvents: Exact<Options, Given>) => this.generate<Given>(withEvents), options)
  }

  /** Checks the options of a call, resolves its defaults and loads its pictures. */
  abstract check(options: Options): PriorJob | Promise<PriorJob>

  /** Does what was checked. */
  async run(job: PriorJob): Promise<PriorResult> {
    const { prior } = this.components
    const { negatives, rows, scheduler, generator, guidanceScale, signal } = job
    const text = await this.#encodeTexts(job)
    const model: Predict = async (hidden_states, { timestep }) => {
      const inputs = { ...text, hidden_states, timestep: Tensor.scalar(timestep) }
      return (await prior.run('forward', inputs, { signal })).predicted_image_embedding
    }
    const predict = guided({ guidanceScale }, { both: model, alone: model })
    const start = await job.begin()
    const embeds = await sample({
      ...{ stage: 'prior', scheduler, predict, generator, namesNextTimestep: true },
      ...start,
      ...checkCallOptions(job),
    })
      .then(async (latents) => (await prior.run('post_process', { latents }, { signal })).image_embeds)
      .finally(() => prior.releaseWeights())
    if (negatives)
      return { imageEmbeds: sliceRows(embeds, 0, rows / 2), negativeImageEmbeds: sliceRows(embeds, rows / 2, rows) }
    return { imageEmbeds: embeds, negativeImageEmbeds: repeatRows(await this.zeroImageEmbeds(signal), rows) }
  }

  /**
   * Weighted sum of the embeddings of texts and images.
   *
   * Every string costs one run of the prior from noise, in order, all from the same streams; one more run makes the
   * negative embedding. Weights are used as they are, not normalised. Runs that were made before with the same noise, as
   * for each frame of an interpolation, are remembered, and report no steps.
   */
  async interpolate(
    imagesAndPrompts: readonly ImageOrPrompt[],
    weights: readonly number[],
    options: InterpolateOptions = {},
  ): Promise<PriorResult> {
    expectOptions(options, interpolateOptionNames)
    if (!Array.isArray(imagesAndPrompts) || imagesAndPrompts.length === 0)
      throw invalid('imagesAndPrompts', 'a non-empty array of strings and images', imagesAndPrompts)
    if (!Array.isArray(weights) || weights.length !== imagesAndPrompts.length)
      throw invalid('weights', `an array of ${imagesAndPrompts.length} numbers, one per item`, weights)
    for (const [i, weight] of weights.entries()) expectNumber(`weights[${i}]`, weight)
    const { negativePriorPrompt, negativePrompt, ...shared } = options
    if (negativePrompt !== undefined && typeof negativePrompt !== 'string')
      throw invalid('negativePrompt', 'a string', negativePrompt)
    const unseeded = { ...shared, negativePrompt: negativePriorPrompt }
    const { count, generator: sources } = this.checkText({ ...unseeded, prompt: '' })
    // The same streams for all runs.
    const generator = shared.generator ?? [sources].flat().slice(0, count)
    const call = { ...unseeded, seed: undefined, generator }
    const items = await Promise.all(imagesAndPrompts.map((item) => this.#resolve(item, shared.signal)))

    return inTurn(this.components.prior.device, shared.signal, async () => {
      let sum: Tensor | undefined
      for (const [i, item] of items.entries()) {
        const embeds =
          typeof item === 'string'
            ? (await this.#runOnce({ ...call, prompt: item })).imageEmbeds
            : tileRows(await this.#encodeOnce(item, shared.signal), shared.numImagesPerPrompt ?? 1)
        sum = addWeighted(sum, embeds, weights[i]!, `imagesAndPrompts[${i}]`)
      }
      return { imageEmbeds: sum!, negativeImageEmbeds: await this.negativeEmbeds(negativePrompt, call, sum!.shape) }
    })
  }

  /** CLIP embedding [n, embeddingDim] of an image, or of preprocessed pixels [n, 3, size, size]. */
  async encodeImage(image: ImageInput | readonly ImageInput[] | Tensor, signal?: AbortSignal): Promise<Tensor> {
    const encoder = this.#imageEncoder('an image input')
    const pixels = image instanceof Tensor ? image : await this.#preprocess(image, signal)
    return (await encoder.run('forward', { pixel_values: pixels }, { signal })).image_embeds
  }

  /** The embedding [1, embeddingDim] of an all-zero pixel tensor (not of a black image), computed at most once. */
  async zeroImageEmbeds(signal?: AbortSignal): Promise<Tensor> {
    if (!this.#zeroImageEmbeds) {
      const encoder = this.#imageEncoder(
        'text-to-image without a negative prompt (this file stores no zero-image embedding)',
      )
      const size = Number(encoder.config.image_size ?? 224)
      const shape = [1, 3, size, size]
      const zeros = new Tensor(new Float32Array(elementCount(shape)), shape)
      this.#zeroImageEmbeds = (await encoder.run('forward', { pixel_values: zeros }, { signal })).image_embeds
    }
    return this.#zeroImageEmbeds
  }

  /** Checks what every call of a prior takes and resolves its defaults. */
  protected checkCall(options: PriorCallOptions): PriorCall {
    const prompts = expectPrompts('prompt', options.prompt)
    const negatives =
      options.negativePrompt === undefined ? undefined : expectPrompts('negativePrompt', options.negativePrompt)
    if (negatives && negatives.length !== prompts.length)
      throw invalid('negativePrompt', `as many negative prompts as prompts (${prompts.length})`, options.negativePrompt)
    const count = expectInteger('numImagesPerPrompt', options.numImagesPerPrompt ?? 1, 1, maxImages)
    const pictures = prompts.length * count
    const rows = negatives ? 2 * pictures : pictures
    const { defaults = {} } = this.components
    const wanted = options.numInferenceSteps ?? defaults.numInferenceSteps ?? 25
    const steps = expectInteger('numInferenceSteps', wanted, 1, 1000)
    const guidanceScale = expectNumber('guidanceScale', options.guidanceScale ?? defaults.guidanceScale ?? 4)
    const generator = expectNoise(options, pictures, rows)
    const scheduler = this.scheduler.clone()
    scheduler.setTimesteps(steps)
    const call = checkCallOptions(options)
    return { ...call, prompts, negatives, count, rows, steps, guidanceScale, generator, scheduler }
  }

  /** Checks the options of a run that starts from noise. */
  protected checkText(options: PriorOptions): PriorJob {
    expectOptions(options, textOptionNames)
    const call = this.checkCall(options)
    const { scheduler, rows, generator } = call
    const shape = [rows, this.dimensions]
    const given = options.latents && expectTensor('latents', options.latents, shape)
    const begin = () => ({
      timesteps: scheduler.timesteps,
      latents: scaledNoise(given ?? randnTensor(shape, generator), scheduler),
    })
    return { ...call, begin }
  }

  /** The negative embedding of `interpolate`. */
  protected async negativeEmbeds(
    negativePrompt: string | undefined,
    call: Omit<PriorOptions, 'prompt'>,
    _shape: readonly number[],
  ): Promise<Tensor> {
    const { imageEmbeds, negativeImageEmbeds } = await this.#runOnce({ ...call, prompt: negativePrompt ?? '' })
    const { data, shape } = negativePrompt ? imageEmbeds : negativeImageEmbeds
    return new Tensor(data.slice(), shape) // what is remembered stays as it is, whatever the caller does
  }

  /** Length of an embedding. */
  protected get dimensions(): number {
    return Number(this.components.prior.config.embedding_dim ?? 768)
  }

  #runOnce(options: PriorOptions): Promise<PriorResult> {
    const job = this.checkText(options)
    // A callback may change the result.
    if (options.latents || job.callbackOnStepEnd) return this.run(job)
    const { prompts, negatives, count, steps, guidanceScale, generator } = job
    const inputs = [prompts, negatives, count, steps, guidanceScale, loraRecipe(this.networks)]
    return this.#cache.run(inputs, this.scheduler, generator, () => this.run(job))
  }

  #encodeOnce(image: RawImage | Tensor, signal?: AbortSignal): Promise<Tensor> {
    const shape = image instanceof Tensor ? image.shape : [image.height, image.width, image.channels]
    return this.#cache.image({ data: image.data, shape }, () => this.encodeImage(image, signal))
  }

  /** What is remembered of a disposed pipeline must not make its calls succeed. */
  override async dispose(): Promise<void> {
    this.#cache.clear()
    this.#texts.clear()
    await super.dispose()
  }

  /** The texts of a run, unconditional ones first where guidance is on. */
  async #encodeTexts({ prompts, negatives, count, guidanceScale, signal }: PriorCall) {
    // A negative prompt runs as a prompt of its own in the same batch: its result is the negative embedding.
    const texts = negatives ? [...prompts, ...negatives] : prompts
    const withGuidance = isGuided(guidanceScale)
    const uncond = negatives ? [...negatives, ...negatives] : texts.map(() => '')
    const inputs = [texts, withGuidance && uncond, count, loraRecipe([this.components.textEncoder])]
    return this.#texts.get(inputs, async () => {
      const text = await encodeText(this.components, texts, { count, warn: true, signal })
      if (!withGuidance) return text
      return joinText(await encodeText(this.components, uncond, { count, warn: false, signal }), text)
    })
  }

  /** Loads an image of `interpolate`; prompts stay as they are. */
  async #resolve(item: ImageOrPrompt, signal?: AbortSignal): Promise<string | RawImage | Tensor> {
    if (typeof item === 'string') return item
    this.#imageEncoder('an image input')
    if (item instanceof Tensor) return expectTensor('imagesAndPrompts', item, [null, 3, null, null])
    return (await resolveImages(item, { signal }))[0]!
  }

  async #preprocess(image: ImageInput | readonly ImageInput[], signal?: AbortSignal): Promise<Tensor> {
    const { imageProcessor } = this.components
    if (!imageProcessor)
      throw new KandinskyError('UNSUPPORTED_MODEL', 'This checkpoint has no image_processor/preprocessor_config.json')
    return clipPreprocess(image, imageProcessor, { signal })
  }

  #imageEncoder(purpose: string) {
    const { imageEncoder } = this.components
    if (imageEncoder) return imageEncoder
    throw new KandinskyError('UNSUPPORTED_MODEL', `Expected a checkpoint with an image_encoder for ${purpose}`)
  }
}

/** sum + weight * embeds in float32. */
function addWeighted(sum: Tensor | undefined, embeds: Tensor, weight: number, name: string): Tensor {
  if (sum) expectTensor(name, embeds, sum.shape)
  const factor = Math.fround(weight)
  const data = embeds.data.map((value, i) => Math.fround(value * factor) + (sum?.data[i] ?? 0))
  return new Tensor(data, embeds.shape)
}

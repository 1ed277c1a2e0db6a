// What the decoder pipelines share: an image embedding and the task's own inputs become latents, latents a picture.
// A pipeline adds its options and where its latents come from (`check`); the rest of a call is here.
import { invalid, KandinskyError } from '../../errors.js'
import type { RawImage } from '../../images/image.js'
import { postprocess, toRawImages } from '../../images/processing.js'
import type { Recipe } from '../../images/recipe.js'
import type { Model } from '../../networks/network.js'
import type { RandomSource } from '../../random.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import { concatRows, repeatRows, rowsOf, type Tensor } from '../../tensor.js'
import type { Tokenizer } from '../../tokenizers/tokenizer.js'
import type { CallDefaults } from '../call/defaults.js'
import {
  expectBoolean,
  expectGenerator,
  expectInteger,
  expectNumber,
  expectOneOf,
  expectOptions,
  expectTensor,
  maxImages,
  maxSide,
} from '../call/options.js'
import { type CallOptions, callOptionNames, checkCallOptions, streamCall } from '../call/progress.js'
import { attachRecipe, type ModelIdentity, type RecipeSources } from '../call/provenance.js'
import { loadDecoderComponents, openSide, type PretrainedOptions } from '../loading/load.js'
import { denoise, latentSide, movqScaleFactor } from '../sampling/denoise.js'
import { previewer } from '../sampling/preview.js'

export type OutputType = 'image' | 'float' | 'latent'

/** Embeddings of a prior, or of several to be joined. */
export interface Embeds {
  /** [n, embeddingDim], or an array of such tensors */
  imageEmbeds: Tensor | Tensor[]
  /** same shape; not read where guidance is off */
  negativeImageEmbeds: Tensor | Tensor[]
}

/** What every decoder pipeline takes beside its embeddings. */
export interface DecodingOptions extends CallOptions {
  /**
   * pixels, default 512; rounded up to a multiple of 64. A checkpoint may have defaults of its own for this and the
   * next three (generation_config.json)
   */
  height?: number | undefined
  width?: number | undefined
  /** denoising steps, default 100 */
  numInferenceSteps?: number | undefined
  /** classifier-free guidance, off up to 1; default 4 */
  guidanceScale?: number | undefined
  /** pictures per embedding, default 1 */
  numImagesPerPrompt?: number | undefined
  /** source of noise, or one per picture; default: a randomly seeded one */
  generator?: RandomSource | RandomSource[] | undefined
  /** `image`: RawImage; `float`: Tensor [n, height, width, 3] in 0..1; `latent`: Tensor [n, 4, h, w]. Default `image` */
  outputType?: OutputType | undefined
  /** step events carry small pictures of the state so far; default false */
  preview?: boolean | undefined
}

/** `images` is RawImage[] for `image`, one Tensor for `float` and `latent`. */
export interface ImageResult<Images = RawImage[]> {
  images: Images
}
export type ImagesOf<Options> = Options extends { outputType: 'float' | 'latent' }
  ? Tensor
  : Options extends { outputType: OutputType }
    ? RawImage[] | Tensor
    : RawImage[]

export interface DecoderComponents {
  unet: Model
  movq: Model
  scheduler: Scheduler
  /** how the decoders of 2.1 read prompts */
  textEncoder?: Model | undefined
  tokenizer?: Tokenizer | undefined
  /** the checkpoint's own, before those of the reference */
  defaults?: CallDefaults | undefined
  /** named in the recipes of pictures */
  identity?: ModelIdentity | undefined
}

/** What a checkpoint must have been trained for; its config tells. */
export interface DecoderTask {
  name: string
  /** of the UNet's config: the kind of conditioning */
  additionEmbedType: string
  /** the UNet's: latents and what is joined to them */
  inChannels: number
  /** class of the network that reads prompts, where the decoder has one */
  textEncoder?: string
}

/** Where a run begins. */
export interface Start {
  timesteps: readonly number[]
  /** one row per picture */
  latents: Tensor
  /** further UNet inputs, one row per picture */
  conditioning?: Record<string, Tensor>
  /** for the negative half of guidance, where it has values of its own */
  negativeConditioning?: Record<string, Tensor>
  /** channels behind the latents, one row per picture */
  extraChannels?: Tensor
  afterStep?: (latents: Tensor, index: number) => Tensor
}

/** The options that all tasks share, checked, with defaults. */
export interface CheckedCall extends CallOptions {
  /** embeddings and pictures per embedding */
  embeddings: number
  count: number
  /** of the pictures, in pixels; multiples of 64 */
  height: number
  width: number
  /** [embeddings * count, channels, h, w] */
  latentShape: readonly number[]
  steps: number
  guidanceScale: number
  generator: RandomSource | RandomSource[]
  outputType: OutputType
  preview: boolean
  /** this call's own, its timesteps set */
  scheduler: Scheduler
}

/** A call whose options are checked and whose pictures are loaded; nothing is computed yet. */
export interface DecoderJob extends CheckedCall {
  /** computes what precedes the loop, and draws its noise */
  begin(): Promise<Start>
  /** what the pipeline adds to the recipe */
  recipe?: Recipe
  /** for the recipes */
  prompts?: RecipeSources['prompts']
}

/** Embeddings of one call, joined; no negative ones where guidance is off. */
interface JoinedEmbeds {
  imageEmbeds: Tensor
  negativeImageEmbeds?: Tensor | undefined
}

export interface DecoderClass<Pipeline> {
  readonly task: DecoderTask
  new (components: DecoderComponents): Pipeline
}

export const embedsNames = ['imageEmbeds', 'negativeImageEmbeds']
export const decodingOptionNames = [
  ...['height', 'width', 'numInferenceSteps', 'guidanceScale', 'numImagesPerPrompt', 'generator', 'outputType'],
  ...['preview', ...callOptionNames],
]

/** @typeParam Options the options of the task, without embeddings */
export abstract class DecoderPipeline<Options extends DecodingOptions> {
  scheduler: Scheduler
  readonly components: DecoderComponents
  /** `guidanceScale` where neither the call nor the checkpoint gives one */
  protected readonly defaultGuidanceScale: number = 4

  constructor(components: DecoderComponents) {
    this.components = components
    this.scheduler = components.scheduler
  }

  /**
   * @param source a .gguf file, a folder of them, a folder in the Hugging Face layout, or a hub id; it may hold a prior
   *   too
   * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL` (also for a checkpoint of another task),
   *   `DEVICE_UNAVAILABLE`, `OUT_OF_MEMORY`
   */
  static async fromPretrained<Pipeline>(
    this: DecoderClass<Pipeline>,
    source: string,
    options: PretrainedOptions = {},
  ): Promise<Pipeline> {
    const checkpoint = await openSide(source, 'decoder', options)
    // biome-ignore lint/complexity/noThisInStatic: the class that it is called on
    return new this(await loadDecoderComponents(checkpoint, options, this.task))
  }

  /**
   * Pictures for image embeddings.
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`, and those of `loadImage`, before anything is computed
   */
  async generate<Given extends Options & Embeds>(options: Given): Promise<ImageResult<ImagesOf<Given>>> {
    expectOptions(options, [...embedsNames, ...this.optionNames])
    const embeds = this.#joinEmbeds(options)
    const job = await this.check(options, embeds.imageEmbeds.shape[0]!)
    return { images: (await this.run(job, embeds)) as ImagesOf<Given> }
  }

  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', images }` event. */
  stream<Given extends Options & Embeds>(options: Given) {
    return streamCall((withEvents: Given) => this.generate(withEvents), options)
  }

  /** Names of the task's options. */
  abstract readonly optionNames: readonly string[]

  /** Checks the options of a call for so many embeddings, and loads its pictures. */
  abstract check(options: Options, embeddings: number): Promise<DecoderJob>

  /** Does what was checked; each embedding gets an equal share of the job's pictures. */
  async run(job: DecoderJob, embeds: JoinedEmbeds): Promise<RawImage[] | Tensor> {
    const { unet, movq, identity } = this.components
    const { scheduler, guidanceScale, generator, signal, latentShape, outputType, steps } = job
    const guided = guidanceScale > 1
    const perPicture = (tensor: Tensor) => repeatRows(tensor, latentShape[0]! / tensor.shape[0]!)
    const batched = (tensor: Tensor, negative = tensor) => (guided ? concatRows([negative, tensor]) : tensor)

    const { conditioning, negativeConditioning, extraChannels, ...start } = await job.begin()
    const positive: Record<string, Tensor> = { ...conditioning, image_embeds: perPicture(embeds.imageEmbeds) }
    const negative: Record<string, Tensor> = { ...negativeConditioning }
    if (guided) negative.image_embeds = perPicture(embeds.negativeImageEmbeds!)
    const latents = await denoise({
      ...start,
      ...checkCallOptions(job),
      ...{ unet, scheduler, guidanceScale, generator },
      conditioning: Object.fromEntries(
        Object.entries(positive).map(([name, tensor]) => [name, batched(tensor, negative[name])]),
      ),
      extraChannels: extraChannels && batched(extraChannels),
      preview: job.preview ? await previewer(movq) : undefined,
    }).finally(() => unet.releaseWeights())
    const images = await decodeImages(movq, latents, outputType, signal)
    const { name: model, hash: modelHash } = identity ?? {}
    const made = { scheduler: scheduler.constructor.name, numInferenceSteps: steps, guidanceScale, model, modelHash }
    attachRecipe(images, { ...made, ...job.recipe }, job)
    return images
  }

  /** Waits for running calls, then frees every network. Later calls reject with `DISPOSED`. */
  async dispose(): Promise<void> {
    await disposeDecoder(this.components)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  /** Checks what all tasks share and resolves its defaults. */
  protected checkDecoding(options: DecodingOptions, embeddings: number): CheckedCall {
    const { movq, defaults = {} } = this.components
    const count = expectInteger('numImagesPerPrompt', options.numImagesPerPrompt ?? 1, 1, maxImages)
    const factor = movqScaleFactor(movq)
    const side = (name: 'height' | 'width') =>
      latentSide(expectInteger(name, options[name] ?? defaults[name] ?? 512, 1, maxSide), factor)
    const [h, w] = [side('height'), side('width')]
    const wanted = options.numInferenceSteps ?? defaults.numInferenceSteps ?? 100
    const steps = expectInteger('numInferenceSteps', wanted, 1, 1000)
    const scheduler = this.scheduler.clone()
    scheduler.setTimesteps(steps)
    return {
      ...checkCallOptions(options),
      ...{ embeddings, count, steps, scheduler },
      ...{ height: h * factor, width: w * factor, latentShape: [embeddings * count, latentChannels(movq), h, w] },
      guidanceScale: expectNumber('guidanceScale', options.guidanceScale ?? this.#guidanceScale),
      generator: expectGenerator(options.generator, embeddings * count),
      outputType: expectOneOf('outputType', options.outputType ?? 'image', ['image', 'float', 'latent']),
      preview: expectBoolean('preview', options.preview ?? false),
    }
  }

  get #guidanceScale(): number {
    return this.components.defaults?.guidanceScale ?? this.defaultGuidanceScale
  }

  #joinEmbeds(options: Options & Embeds): JoinedEmbeds {
    const { imageEmbeds, negativeImageEmbeds, guidanceScale = this.#guidanceScale } = options
    const { encoder_hid_dim, cross_attention_dim, addition_embed_type } = this.components.unet.config
    // With text beside the image, encoder_hid_dim is the text's.
    const dimensions = Number(addition_embed_type === 'text_image' ? cross_attention_dim : encoder_hid_dim)
    const join = (name: string, value: Tensor | Tensor[]) => {
      const parts = Array.isArray(value) ? value : [value]
      if (parts.length === 0) throw invalid(name, 'a Tensor or a non-empty array of them', value)
      return concatRows(parts.map((part) => expectTensor(name, part, [null, dimensions])))
    }
    const positive = join('imageEmbeds', imageEmbeds)
    if (!(guidanceScale > 1)) return { imageEmbeds: positive }
    const negative = join('negativeImageEmbeds', negativeImageEmbeds)
    return {
      imageEmbeds: positive,
      negativeImageEmbeds: expectTensor('negativeImageEmbeds', negative, positive.shape),
    }
  }
}

export async function disposeDecoder({ textEncoder, unet, movq }: DecoderComponents): Promise<void> {
  await Promise.all([textEncoder, unet, movq].map((model) => model?.dispose()))
}

export function latentChannels(movq: Model): number {
  return Number(movq.config.latent_channels)
}

/** Latents to the wanted form of output. No scaling factor: Kandinsky's latents are MoVQ's own. */
export async function decodeImages(
  movq: Model,
  latents: Tensor,
  outputType: OutputType,
  signal?: AbortSignal,
): Promise<RawImage[] | Tensor> {
  if (outputType === 'latent') return latents
  const decoded: Tensor[] = []
  // One picture at a time: MoVQ's activations are by far the largest of the pipeline.
  for (const row of rowsOf(latents)) {
    const { sample } = await movq.run('decode', { latents: row }, { signal })
    if (!sample) throw new KandinskyError('INTERNAL', 'MoVQ returned no picture')
    decoded.push(sample)
  }
  const float = postprocess(concatRows(decoded))
  return outputType === 'float' ? float : toRawImages(float)
}

// Image embedding to picture with the Kandinsky 2.2 decoder, after diffusers' pipeline_kandinsky2_2.py.
import { KandinskyError } from '../errors.js'
import type { RawImage } from '../image.js'
import type { Model } from '../models.js'
import { postprocess, toRawImages } from '../processing.js'
import type { RandomSource } from '../random.js'
import type { Scheduler } from '../schedulers/scheduler.js'
import { concatRows, repeatRows, Tensor } from '../tensor.js'
import { denoise, latentSide, movqScaleFactor, prepareLatents } from './denoise.js'
import { loadDecoderComponents, openSide, type PretrainedOptions } from './load.js'
import {
  expectGenerator,
  expectInteger,
  expectNumber,
  expectOneOf,
  expectOptions,
  expectTensor,
  maxImages,
  maxSide,
} from './options.js'
import { type CallOptions, streamCall } from './progress.js'
import { attachRecipe, type ModelIdentity } from './provenance.js'

export type OutputType = 'image' | 'float' | 'latent'

export interface DecoderOptions extends CallOptions {
  /** [n, embeddingDim] from a prior, or an array of such tensors */
  imageEmbeds: Tensor | Tensor[]
  /** same shape */
  negativeImageEmbeds: Tensor | Tensor[]
  /** pixels, default 512; rounded up to a multiple of 64 */
  height?: number | undefined
  width?: number | undefined
  /** denoising steps, default 100 */
  numInferenceSteps?: number | undefined
  /** classifier-free guidance, off up to 1; default 4 */
  guidanceScale?: number | undefined
  /** pictures per embedding, default 1 */
  numImagesPerPrompt?: number | undefined
  generator?: RandomSource | RandomSource[] | undefined
  /** initial noise [rows, 4, height / 8, width / 8] instead of a drawn one */
  latents?: Tensor | undefined
  /** `image`: RawImage; `float`: Tensor [n, height, width, 3] in 0..1; `latent`: Tensor [n, 4, h, w]. Default `image` */
  outputType?: OutputType | undefined
}

/** `images` is RawImage[] for `image`, one Tensor for `float` and `latent`. */
export interface ImageResult<Images = RawImage[]> {
  images: Images
}
type ImagesOf<Options> = Options extends { outputType: 'float' | 'latent' }
  ? Tensor
  : Options extends { outputType: OutputType }
    ? RawImage[] | Tensor
    : RawImage[]

export interface DecoderComponents {
  unet: Model
  movq: Model
  scheduler: Scheduler
  /** named in the recipes of pictures */
  identity?: ModelIdentity | undefined
}

const generateOptions = [
  'imageEmbeds',
  'negativeImageEmbeds',
  'height',
  'width',
  'numInferenceSteps',
  'guidanceScale',
  'numImagesPerPrompt',
  'generator',
  'latents',
  'outputType',
  'signal',
  'onStep',
]

export class KandinskyV22Pipeline {
  scheduler: Scheduler
  readonly components: DecoderComponents

  constructor(components: DecoderComponents) {
    this.components = components
    this.scheduler = components.scheduler
  }

  /**
   * @param source a .gguf file, a folder of them, a folder in the Hugging Face layout, or a hub id; it may hold a prior
   *   too
   * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL`, `DEVICE_UNAVAILABLE`, `OUT_OF_MEMORY`
   */
  static async fromPretrained(source: string, options: PretrainedOptions = {}): Promise<KandinskyV22Pipeline> {
    const checkpoint = await openSide(source, 'decoder', options)
    return new KandinskyV22Pipeline(await loadDecoderComponents(checkpoint, options))
  }

  /**
   * Pictures for image embeddings.
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH` before anything is computed
   */
  async generate<Options extends DecoderOptions>(options: Options): Promise<ImageResult<ImagesOf<Options>>> {
    const { unet, movq } = this.components
    const { imageEmbeds, shape, steps, guidanceScale, outputType, generator } = this.check(options)
    const scheduler = this.scheduler.clone()
    scheduler.setTimesteps(steps)
    const latents = await denoise({
      unet,
      scheduler,
      timesteps: scheduler.timesteps,
      latents: prepareLatents(shape, scheduler, generator, options.latents),
      conditioning: { image_embeds: imageEmbeds },
      guidanceScale,
      generator,
      signal: options.signal,
      onStep: options.onStep,
    })
    const images = await decodeImages(movq, latents, outputType, options.signal)
    const { name: model, hash: modelHash } = this.components.identity ?? {}
    const made = { scheduler: scheduler.constructor.name, numInferenceSteps: steps, guidanceScale, model, modelHash }
    attachRecipe(images, made, generator)
    return { images: images as ImagesOf<Options> }
  }

  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', images }` event. */
  stream<Options extends DecoderOptions>(options: Options) {
    return streamCall((withEvents: Options) => this.generate(withEvents), options)
  }

  /** Checks the options of `generate` and resolves its defaults. */
  check(options: DecoderOptions) {
    expectOptions(options, generateOptions)
    const { unet, movq } = this.components
    const dimensions = Number(unet.config.encoder_hid_dim)
    const join = (name: 'imageEmbeds' | 'negativeImageEmbeds') => {
      const value = options[name]
      const parts = (Array.isArray(value) ? value : [value]).map((part) => expectTensor(name, part, [null, dimensions]))
      return concatRows(parts)
    }
    const positive = join('imageEmbeds')
    const guidanceScale = expectNumber('guidanceScale', options.guidanceScale ?? 4)
    const count = expectInteger('numImagesPerPrompt', options.numImagesPerPrompt ?? 1, 1, maxImages)
    // The reference forgets to repeat the embeddings when guidance is off; rows must match the latents either way.
    let imageEmbeds = repeatRows(positive, count)
    if (guidanceScale > 1) {
      const negative = expectTensor('negativeImageEmbeds', join('negativeImageEmbeds'), positive.shape)
      imageEmbeds = concatRows([repeatRows(negative, count), imageEmbeds])
    }
    const factor = movqScaleFactor(movq)
    const side = (name: 'height' | 'width') => latentSide(expectInteger(name, options[name] ?? 512, 1, maxSide), factor)
    const shape = [positive.shape[0]! * count, Number(unet.config.in_channels), side('height'), side('width')]
    if (options.latents) expectTensor('latents', options.latents, shape)
    return {
      imageEmbeds,
      shape,
      guidanceScale,
      generator: expectGenerator(options.generator, shape[0]!),
      steps: expectInteger('numInferenceSteps', options.numInferenceSteps ?? 100, 1, 1000),
      outputType: expectOneOf('outputType', options.outputType ?? 'image', ['image', 'float', 'latent']),
    }
  }

  /** Waits for running calls, then frees every network. Later calls reject with `DISPOSED`. */
  async dispose(): Promise<void> {
    await Promise.all([this.components.unet.dispose(), this.components.movq.dispose()])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }
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
  for (let row = 0; row < latents.shape[0]!; row++) {
    const size = latents.data.length / latents.shape[0]!
    const one = new Tensor(latents.data.slice(row * size, (row + 1) * size), [1, ...latents.shape.slice(1)])
    const { sample } = await movq.run('decode', { latents: one }, { signal })
    if (!sample) throw new KandinskyError('INTERNAL', 'MoVQ returned no picture')
    decoded.push(sample)
  }
  const float = postprocess(concatRows(decoded))
  return outputType === 'float' ? float : toRawImages(float)
}

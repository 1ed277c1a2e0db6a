// A prior and a decoder in one call, after diffusers' pipeline_kandinsky2_2_combined.py.
import { KandinskyError } from '../errors.js'
import type { RawImage } from '../image.js'
import { resolveImages, type TensorOrImage } from '../processing.js'
import { maskShape } from '../processing-inpaint.js'
import { Generator } from '../random.js'
import { rowsOf, Tensor } from '../tensor.js'
import type { DecoderClass, DecoderPipeline, DecodingOptions, ImageResult, ImagesOf } from './decoder.js'
import { KandinskyV22PriorPipeline } from './kandinsky-v22-prior.js'
import { type CombinedPretrainedOptions, loadCombined, openCombined } from './load.js'
import { expectOptions } from './options.js'
import type { PriorOptions } from './prior.js'
import { type CallOptions, streamCall } from './progress.js'

/** What every combined pipeline takes beside the options of its decoder. */
export interface CombinedPriorOptions extends Pick<PriorOptions, 'prompt' | 'negativePrompt' | 'numImagesPerPrompt'> {
  /** guidance of the prior, default 4; `guidanceScale` is the decoder's */
  priorGuidanceScale?: number | undefined
  /** steps of the prior, default 25; `numInferenceSteps` are the decoder's, default 100 */
  priorNumInferenceSteps?: number | undefined
  /** for the prior's steps; `callbackOnStepEnd` is for the decoder's, `onStep` for both */
  priorCallbackOnStepEnd?: CallOptions['callbackOnStepEnd']
  /** initial noise of the prior [rows, embeddingDim], as in the reference; the decoder always draws its own */
  latents?: PriorOptions['latents']
}

/** @typeParam Options those of the decoder */
export type CombinedOptions<Options extends DecodingOptions> = Omit<Options, 'latents'> & CombinedPriorOptions

const priorOnly = [
  ...['prompt', 'negativePrompt', 'priorGuidanceScale', 'priorNumInferenceSteps'],
  ...['priorCallbackOnStepEnd', 'latents'],
]

/** A combined pipeline and the decoder it wants. */
export interface CombinedClass<Pipeline, Decoder> {
  readonly decoderClass: DecoderClass<Decoder>
  new (priorPipe: KandinskyV22PriorPipeline, decoderPipe: Decoder): Pipeline
}

export abstract class CombinedPipeline<Options extends DecodingOptions> {
  readonly priorPipe: KandinskyV22PriorPipeline
  readonly decoderPipe: DecoderPipeline<Options>

  constructor(priorPipe: KandinskyV22PriorPipeline, decoderPipe: DecoderPipeline<Options>) {
    this.priorPipe = priorPipe
    this.decoderPipe = decoderPipe
  }

  /**
   * @param source a decoder, or one file or folder that holds prior and decoder together
   * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL` (also for a checkpoint of another task),
   *   `DEVICE_UNAVAILABLE`, `OUT_OF_MEMORY`; `INVALID_ARGUMENT` where no prior is found
   */
  static async fromPretrained<Pipeline, Decoder>(
    this: CombinedClass<Pipeline, Decoder>,
    source: string,
    options: CombinedPretrainedOptions = {},
  ): Promise<Pipeline> {
    // biome-ignore lint/complexity/noThisInStatic: the class that it is called on
    return combine(this, await openCombined(source, options), options)
  }

  /** The decoder's scheduler. */
  get scheduler() {
    return this.decoderPipe.scheduler
  }
  set scheduler(scheduler) {
    this.decoderPipe.scheduler = scheduler
  }

  /**
   * Pictures for prompts, ordered prompt by prompt.
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`, and those of `loadImage`, before anything is computed
   */
  async generate<Given extends CombinedOptions<Options>>(options: Given): Promise<ImageResult<ImagesOf<Given>>> {
    expectOptions(options, [...priorOnly, ...this.decoderPipe.optionNames])
    const { prompt, negativePrompt, priorGuidanceScale, priorNumInferenceSteps, priorCallbackOnStepEnd, ...rest } =
      options
    const { numImagesPerPrompt, latents, ...decoding } = rest
    // One generator for both: the decoder continues the stream where the prior stopped.
    const generator = options.generator ?? new Generator()
    const priorOptions = {
      ...{ prompt, negativePrompt, numImagesPerPrompt, generator, latents },
      guidanceScale: priorGuidanceScale,
      numInferenceSteps: priorNumInferenceSteps,
      callbackOnStepEnd: priorCallbackOnStepEnd,
      ...{ signal: options.signal, onStep: options.onStep },
    }
    const { prompts, negatives, count } = this.priorPipe.check(priorOptions)
    const pictures = await spreadImages(decoding, prompts.length, count)
    // The decoder's options must fail now, not after the prior has run.
    const decoderOptions = { ...decoding, ...pictures, generator } as unknown as Options
    const job = await this.decoderPipe.check(decoderOptions, prompts.length * count)
    const embeds = await this.priorPipe.generate(priorOptions)
    const images = await this.decoderPipe.run(job, embeds)
    if (Array.isArray(images))
      for (const [i, image] of images.entries()) {
        const row = Math.floor(i / count)
        image.recipe = { prompt: prompts[row], negativePrompt: negatives?.[row], ...image.recipe }
      }
    return { images: images as ImagesOf<Given> }
  }

  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', images }` event. */
  stream<Given extends CombinedOptions<Options>>(options: Given) {
    return streamCall((withEvents: Given) => this.generate(withEvents), options)
  }

  /** Waits for running calls, then frees every network. Later calls reject with `DISPOSED`. */
  async dispose(): Promise<void> {
    await Promise.all([this.priorPipe.dispose(), this.decoderPipe.dispose()])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }
}

/** Loads a combined pipeline from opened checkpoints. */
export async function combine<Pipeline, Decoder>(
  Combined: CombinedClass<Pipeline, Decoder>,
  checkpoints: Awaited<ReturnType<typeof openCombined>>,
  options: CombinedPretrainedOptions,
): Promise<Pipeline> {
  const { prior, decoder } = await loadCombined(checkpoints, options, Combined.decoderClass.task)
  return new Combined(new KandinskyV22PriorPipeline(prior), new Combined.decoderClass(decoder))
}

type ImageOption = TensorOrImage | readonly TensorOrImage[]

/**
 * The image options of a call with one picture per embedding, so that each gets noise of its own. The reference repeats
 * them as a whole, which pairs pictures with the wrong prompts where there are several of both.
 */
async function spreadImages(options: object, prompts: number, count: number): Promise<Record<string, ImageOption>> {
  const { image, maskImage, signal } = options as Record<string, ImageOption> & CallOptions
  const [images, masks] = await Promise.all([
    image === undefined ? undefined : resolveImages(image, { signal }),
    maskImage === undefined
      ? undefined
      : resolveImages(maskImage, { signal, name: 'maskImage', tensorShape: maskShape }),
  ])
  return {
    ...(images && { image: spread('image', images, prompts, count) }),
    ...(masks && { maskImage: spread('maskImage', masks, prompts, count) }),
  }
}

function spread(name: string, given: (RawImage | Tensor)[], prompts: number, count: number): TensorOrImage[] {
  const single = given.flatMap((item): TensorOrImage[] => (item instanceof Tensor ? rowsOf(item) : [item]))
  if (single.length === prompts * count) return single
  if (single.length !== 1 && single.length !== prompts)
    throw new KandinskyError(
      'SHAPE_MISMATCH',
      `Expected one ${name}, one per prompt (${prompts}) or one per result (${prompts * count}) ` +
        `but received ${single.length}`,
    )
  const times = single.length === 1 ? prompts * count : count
  return single.flatMap((item) => Array<TensorOrImage>(times).fill(item))
}

// A prior and a decoder in one call, after diffusers' pipeline_kandinsky_combined.py and pipeline_kandinsky2_2_combined.py.
import { KandinskyError } from '../../errors.js'
import type { RawImage } from '../../images/image.js'
import { resolveImages, type TensorOrImage } from '../../images/processing.js'
import { maskShape } from '../../images/processing-inpaint.js'
import { Generator } from '../../random.js'
import { rowsOf, Tensor } from '../../tensor.js'
import { expectOptions } from '../call/options.js'
import { type CallOptions, streamCall } from '../call/progress.js'
import { type CombinedPretrainedOptions, loadCombined, openCombined } from '../loading/load.js'
import type { DecoderClass, DecoderPipeline, DecodingOptions, ImageResult, ImagesOf } from './decoder.js'
import type { KandinskyPriorPipeline } from './kandinsky-prior.js'
import type { PriorComponents, PriorOptions } from './prior.js'

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

/** All combined pipelines have it, also where the decoder by itself has another. */
const DECODER_GUIDANCE = 4

const priorOnly = [
  ...['prompt', 'negativePrompt', 'priorGuidanceScale', 'priorNumInferenceSteps'],
  ...['priorCallbackOnStepEnd', 'latents'],
]

// biome-ignore lint/suspicious/noExplicitAny: a class goes with the options of its own decoder
type AnyDecoder = DecoderPipeline<any>

/** A combined pipeline and what it is made of. */
export interface CombinedClass<Pipeline> {
  readonly priorClass: new (components: PriorComponents) => KandinskyPriorPipeline
  readonly decoderClass: DecoderClass<AnyDecoder>
  new (priorPipe: KandinskyPriorPipeline, decoderPipe: AnyDecoder): Pipeline
}

export abstract class CombinedPipeline<Options extends DecodingOptions> {
  readonly priorPipe: KandinskyPriorPipeline
  readonly decoderPipe: DecoderPipeline<Options>

  constructor(priorPipe: KandinskyPriorPipeline, decoderPipe: DecoderPipeline<Options>) {
    this.priorPipe = priorPipe
    this.decoderPipe = decoderPipe
  }

  /**
   * @param source a decoder, or one file or folder that holds prior and decoder together
   * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL` (also for a checkpoint of another task),
   *   `DEVICE_UNAVAILABLE`, `OUT_OF_MEMORY`; `INVALID_ARGUMENT` where no prior is found
   */
  static async fromPretrained<Pipeline>(
    this: CombinedClass<Pipeline>,
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
    const decoderOptions = {
      ...{ ...decoding, generator },
      guidanceScale: options.guidanceScale ?? this.decoderPipe.components.defaults?.guidanceScale ?? DECODER_GUIDANCE,
      ...(await spreadImages(decoding, prompts.length, count)),
      // For the decoders of 2.1, which read prompts; as in the reference they do not get the negative ones.
      prompt: repeatEach(prompts, count),
    }
    // The decoder's options must fail now, not after the prior has run.
    const job = await this.decoderPipe.check(decoderOptions as unknown as Options, prompts.length * count)
    const embeds = await this.priorPipe.generate(priorOptions)
    const prompted = prompts.map((text, i) => ({ prompt: text, negativePrompt: negatives?.[i] }))
    const images = await this.decoderPipe.run({ ...job, prompts: prompted }, embeds)
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
export async function combine<Pipeline>(
  Combined: CombinedClass<Pipeline>,
  checkpoints: Awaited<ReturnType<typeof openCombined>>,
  options: CombinedPretrainedOptions,
): Promise<Pipeline> {
  const { prior, decoder } = await loadCombined(checkpoints, options, Combined.decoderClass.task)
  return new Combined(new Combined.priorClass(prior), new Combined.decoderClass(decoder))
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
  return repeatEach(single, single.length === 1 ? prompts * count : count)
}

function repeatEach<T>(items: readonly T[], times: number): T[] {
  return items.flatMap((item) => Array<T>(times).fill(item))
}

// Text to picture in one call: the 2.2 prior and decoder together, after pipeline_kandinsky2_2_combined.py.
import { Generator } from '../random.js'
import { elementCount, Tensor } from '../tensor.js'
import { type DecoderOptions, KandinskyV22Pipeline } from './kandinsky-v22.js'
import { KandinskyV22PriorPipeline, type PriorOptions } from './kandinsky-v22-prior.js'
import { type CombinedPretrainedOptions, loadCombined, openCombined } from './load.js'
import { expectOptions } from './options.js'
import { streamCall } from './progress.js'

export interface CombinedOptions
  extends Omit<PriorOptions, 'guidanceScale' | 'numInferenceSteps' | 'latents'>,
    Omit<DecoderOptions, 'imageEmbeds' | 'negativeImageEmbeds' | 'latents'> {
  /** guidance of the prior, default 4; `guidanceScale` is the decoder's */
  priorGuidanceScale?: number | undefined
  /** steps of the prior, default 25; `numInferenceSteps` are the decoder's, default 100 */
  priorNumInferenceSteps?: number | undefined
  /** initial noise of the prior [rows, embeddingDim], as in the reference; the decoder always draws its own */
  latents?: PriorOptions['latents']
}

const priorOnly = ['prompt', 'negativePrompt', 'priorGuidanceScale', 'priorNumInferenceSteps', 'latents']
const decoderOnly = ['height', 'width', 'numInferenceSteps', 'guidanceScale', 'outputType']
const shared = ['numImagesPerPrompt', 'generator', 'signal', 'onStep']

export class KandinskyV22CombinedPipeline {
  readonly priorPipe: KandinskyV22PriorPipeline
  readonly decoderPipe: KandinskyV22Pipeline

  constructor(priorPipe: KandinskyV22PriorPipeline, decoderPipe: KandinskyV22Pipeline) {
    this.priorPipe = priorPipe
    this.decoderPipe = decoderPipe
  }

  /** @param source a decoder, or one file or folder that holds prior and decoder together */
  static async fromPretrained(
    source: string,
    options: CombinedPretrainedOptions = {},
  ): Promise<KandinskyV22CombinedPipeline> {
    const { prior, decoder } = await loadCombined(await openCombined(source, options), options)
    return new KandinskyV22CombinedPipeline(new KandinskyV22PriorPipeline(prior), new KandinskyV22Pipeline(decoder))
  }

  /** The decoder's scheduler. */
  get scheduler() {
    return this.decoderPipe.scheduler
  }
  set scheduler(scheduler) {
    this.decoderPipe.scheduler = scheduler
  }

  /**
   * Pictures for prompts.
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH` before anything is computed
   */
  async generate<Options extends CombinedOptions>(options: Options) {
    expectOptions(options, [...priorOnly, ...decoderOnly, ...shared])
    const { prompt, negativePrompt, numImagesPerPrompt, latents, signal, onStep } = options
    const { height, width, numInferenceSteps, guidanceScale, outputType } = options
    // One generator for both: the decoder continues the stream where the prior stopped.
    const generator = options.generator ?? new Generator()
    const decoderOptions = { height, width, numInferenceSteps, guidanceScale, outputType, generator, signal, onStep }
    const priorOptions = {
      prompt,
      negativePrompt,
      numImagesPerPrompt,
      generator,
      latents,
      numInferenceSteps: options.priorNumInferenceSteps,
      guidanceScale: options.priorGuidanceScale,
      signal,
      onStep,
    }
    // The decoder's options must fail now, not after the prior has run.
    const { prompts, negatives, count, dimensions } = this.priorPipe.check(priorOptions)
    const shape = [prompts.length * count, dimensions]
    const placeholder = new Tensor(new Float32Array(elementCount(shape)), shape)
    this.decoderPipe.check({ ...decoderOptions, imageEmbeds: placeholder, negativeImageEmbeds: placeholder })

    const embeds = await this.priorPipe.generate(priorOptions)
    const result = await this.decoderPipe.generate({ ...decoderOptions, ...embeds } as Options & DecoderOptions)
    if (Array.isArray(result.images))
      for (const [i, image] of result.images.entries()) {
        const row = Math.floor(i / count)
        image.recipe = { prompt: prompts[row], negativePrompt: negatives?.[row], ...image.recipe }
      }
    return result
  }

  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', images }` event. */
  stream<Options extends CombinedOptions>(options: Options) {
    return streamCall((withEvents: Options) => this.generate(withEvents), options)
  }

  /** Waits for running calls, then frees every network. Later calls reject with `DISPOSED`. */
  async dispose(): Promise<void> {
    await Promise.all([this.priorPipe.dispose(), this.decoderPipe.dispose()])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }
}

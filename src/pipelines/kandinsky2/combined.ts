// A prior and a decoder in one call, after diffusers' pipeline_kandinsky_combined.py and pipeline_kandinsky2_2_combined.py.
import type { Checkpoint } from '../../checkpoint/pipeline-files.js'
import { invalid, KandinskyError } from '../../errors.js'
import { RawImage } from '../../images/image.js'
import { resolveImages, type TensorOrImage } from '../../images/processing.js'
import { maskShape } from '../../images/processing-inpaint.js'
import type { Recipe } from '../../images/recipe.js'
import { rowsOf, Tensor, tileRows } from '../../tensor.js'
import { type Exact, expectOptions, type NoiseOptions } from '../call/options.js'
import { type CallOptions, streamCall } from '../call/progress.js'
import { hashesOf } from '../call/provenance.js'
import { inTurn } from '../call/turns.js'
import { LoraLoader, loraRecipe } from '../loading/lora.js'
import { openPrior, openSource } from '../loading/open.js'
import {
  checkPretrainedOptions,
  expectNetworks,
  networksOf,
  offloadGroup,
  type PretrainedOptions,
} from '../loading/parts.js'
import { load, type PipelineClass, pretrainedOptionNames } from '../loading/pipeline.js'
import type { DecodingOptions, ImageResult, ImagesOf } from '../sampling/decoding.js'
import type { DecoderPipeline } from './decoder.js'
import type { KandinskyPriorPipeline } from './kandinsky-prior.js'
import type { ImageOrPrompt, PriorJob, PriorOptions, PriorResult } from './prior.js'

export interface CombinedPretrainedOptions extends PretrainedOptions {
  /** where the prior is, when `source` holds only the decoder and does not say */
  prior?: string | undefined
}

/** Texts and pictures whose embeddings are added up, each with its weight (the prior's `interpolate`). */
export interface Mix {
  items: readonly ImageOrPrompt[]
  /** used as they are, not normalised */
  weights: readonly number[]
}

/** What every combined pipeline takes beside the options of its decoder. */
export type CombinedPriorOptions = (
  | { prompt: PriorOptions['prompt']; mix?: undefined }
  /** instead of a prompt; of one negative prompt */
  | { mix: Mix; prompt?: undefined }
) &
  Pick<PriorOptions, 'negativePrompt' | 'numImagesPerPrompt'> & {
    /** guidance of the prior, default 4; `guidanceScale` is the decoder's */
    priorGuidanceScale?: number | undefined
    /** steps of the prior, default 25; `numInferenceSteps` are the decoder's, default 100 */
    priorNumInferenceSteps?: number | undefined
    /** for the prior's steps; `callbackOnStepEnd` is for the decoder's, `onStep` for both */
    priorCallbackOnStepEnd?: CallOptions['callbackOnStepEnd']
    /** initial noise of the prior [rows, embeddingDim], as in the reference; the decoder always draws its own */
    latents?: PriorOptions['latents']
  }

/**
 * A call from text to picture: the options of the decoder's own pipeline without what the prior makes for it, and those of
 * the prior.
 * @typeParam Options those of the decoder
 */
export type CombinedOptions<Options extends DecodingOptions> = Omit<
  Options,
  'latents' | 'prompt' | 'negativePrompt' | 'numImagesPerPrompt'
> &
  CombinedPriorOptions

/** All combined pipelines have it, also where the decoder by itself has another. */
const DECODER_GUIDANCE = 4

const priorOnly = [
  ...['prompt', 'mix', 'negativePrompt', 'priorGuidanceScale', 'priorNumInferenceSteps'],
  ...['priorCallbackOnStepEnd', 'latents'],
]

// biome-ignore lint/suspicious/noExplicitAny: a class goes with the options and parts of its own decoder
type AnyDecoder = DecoderPipeline<any, any>
// biome-ignore lint/suspicious/noExplicitAny: of whatever task
type AnyCombined = CombinedPipeline<any>

/** A combined pipeline and what it is made of. */
export interface CombinedClass<Instance> {
  readonly priorClass: PipelineClass<KandinskyPriorPipeline>
  readonly decoderClass: PipelineClass<AnyDecoder> & { fromPipe(pipe: AnyDecoder): AnyDecoder }
  new (priorPipe: KandinskyPriorPipeline, decoderPipe: AnyDecoder): Instance
  fromCheckpoint(checkpoint: Checkpoint, options: CombinedPretrainedOptions): Promise<Instance>
}

/** How a call's embeddings are made, and what the decoder gets of its texts. */
interface Embedding {
  /** rows of `embed`, and pictures that the decoder makes of each */
  embeddings: number
  numImagesPerPrompt: number | undefined
  /** for the decoders of 2.1, which read prompts; as in the reference they do not get the negative ones */
  prompt: string[]
  images: Record<string, ImageOption>
  /** for both: the decoder continues the streams where the prior stopped */
  generator: NoiseOptions['generator']
  recipes: Recipe[]
  embed(): Promise<PriorResult>
}

export abstract class CombinedPipeline<Options extends DecodingOptions> extends LoraLoader {
  readonly priorPipe: KandinskyPriorPipeline
  readonly decoderPipe: DecoderPipeline<Options>

  constructor(priorPipe: KandinskyPriorPipeline, decoderPipe: DecoderPipeline<Options>) {
    super()
    this.priorPipe = priorPipe
    this.decoderPipe = decoderPipe
  }

  /**
   * @param source a decoder, or one file or folder that holds prior and decoder together
   * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL` (also for a checkpoint of another task),
   *   `DEVICE_UNAVAILABLE`, `OUT_OF_MEMORY`; `INVALID_ARGUMENT` where no prior is found
   */
  static async fromPretrained<Instance>(
    this: CombinedClass<Instance>,
    source: string,
    options: CombinedPretrainedOptions = {},
  ): Promise<Instance> {
    // biome-ignore-start lint/complexity/noThisInStatic: the class that it is called on
    expectOptions(options, optionNames(this))
    checkPretrainedOptions(options)
    return this.fromCheckpoint(await openSource(source, options), options)
    // biome-ignore-end lint/complexity/noThisInStatic: the class that it is called on
  }

  /**
   * Another task with the networks of a loaded pipeline (diffusers' `from_pipe`): both share them, so that `dispose` of
   * either ends both. The decoder's scheduler is a copy of the one that it has now.
   * @throws KandinskyError `UNSUPPORTED_MODEL` for a decoder that was trained for another task
   */
  static fromPipe<Instance>(this: CombinedClass<Instance>, pipe: AnyCombined): Instance {
    // biome-ignore-start lint/complexity/noThisInStatic: the class that it is called on
    if (!(pipe instanceof CombinedPipeline)) throw invalid('pipe', 'a combined pipeline', pipe)
    return new this(pipe.priorPipe, this.decoderClass.fromPipe(pipe.decoderPipe))
    // biome-ignore-end lint/complexity/noThisInStatic: the class that it is called on
  }

  /** The two pipelines of an opened checkpoint; with `offload: 'model'` they share the device network by network. */
  static async fromCheckpoint<Instance>(
    this: CombinedClass<Instance>,
    checkpoint: Checkpoint,
    options: CombinedPretrainedOptions,
  ): Promise<Instance> {
    // biome-ignore-start lint/complexity/noThisInStatic: the class that it is called on
    expectOptions(options, optionNames(this))
    // What is no decoder of this family shall not be asked for a prior.
    const decoder = checkpoint.side('decoder')
    if (decoder && options.unet === undefined) await expectNetworks(this.decoderClass.parts, decoder)
    const prior = await openPrior(checkpoint, options.prior, options)
    const group = offloadGroup(options)
    const decoderPipe = await load(this.decoderClass, checkpoint, options, group)
    try {
      // `scheduler` means the decoder's: the prior works with its own kind only.
      const priorPipe = await load(this.priorClass, prior, { ...options, scheduler: undefined }, group)
      return new this(priorPipe, decoderPipe)
    } catch (error) {
      await decoderPipe.dispose()
      throw error
    }
    // biome-ignore-end lint/complexity/noThisInStatic: the class that it is called on
  }

  protected override get networks() {
    return [...networksOf(this.priorPipe.components), ...networksOf(this.decoderPipe.components)]
  }

  /** Of the pictures of a call that names no size, in pixels. */
  get defaultSize() {
    return this.decoderPipe.defaultSize
  }

  /** The decoder's scheduler. */
  get scheduler() {
    return this.decoderPipe.scheduler
  }
  set scheduler(scheduler) {
    this.decoderPipe.scheduler = scheduler
  }

  /**
   * Pictures for prompts, ordered prompt by prompt, or for a mix.
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`, and those of `loadImage`, before anything is computed
   */
  async generate<Given extends CombinedOptions<Options>>(
    options: Exact<CombinedOptions<Options>, Given>,
  ): Promise<ImageResult<ImagesOf<Given>>> {
    expectOptions(options, [...priorOnly, ...this.decoderPipe.optionNames])
    const embedding = options.mix === undefined ? await this.#prompted(options) : this.#mixed(options)
    const decoding = Object.fromEntries(Object.entries(options).filter(([name]) => !priorOnly.includes(name)))
    const { embeddings, numImagesPerPrompt, prompt, images, generator, recipes } = embedding
    const defaultGuidance = this.decoderPipe.components.defaults?.guidanceScale ?? DECODER_GUIDANCE
    const decoderOptions = {
      ...{ ...decoding, ...images, seed: undefined, generator, numImagesPerPrompt, prompt },
      guidanceScale: options.guidanceScale ?? defaultGuidance,
    }
    // The decoder's options must fail now, not after the prior has run.
    const job = await this.decoderPipe.check(decoderOptions as unknown as Options, embeddings)
    const made = await inTurn(this.decoderPipe.components.unet.device, job.signal, async () =>
      this.decoderPipe.run(
        { ...job, recipe: { ...job.recipe, ...loraRecipe(this.networks) }, prompts: recipes },
        await embedding.embed(),
      ),
    )
    return { images: made as ImagesOf<Given> }
  }

  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', images }` event. */
  stream<Given extends CombinedOptions<Options>>(options: Exact<CombinedOptions<Options>, Given>) {
    return streamCall((withEvents: Exact<CombinedOptions<Options>, Given>) => this.generate<Given>(withEvents), options)
  }

  /** Waits for running calls, then frees every network. Later calls reject with `DISPOSED`. */
  async dispose(): Promise<void> {
    await Promise.all([this.priorPipe.dispose(), this.decoderPipe.dispose()])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  async #prompted(options: CombinedOptions<DecodingOptions>): Promise<Embedding> {
    const { prompt, negativePrompt, numImagesPerPrompt, latents } = options
    const job = this.priorPipe.check({
      ...{ prompt: prompt!, negativePrompt, numImagesPerPrompt, latents },
      ...priorRun(options),
    })
    const { prompts, negatives, count } = job
    return {
      embeddings: prompts.length * count,
      numImagesPerPrompt: undefined,
      prompt: repeatEach(prompts, count),
      images: await spreadImages(options, prompts.length, count),
      generator: options.generator ?? [job.generator].flat().slice(0, prompts.length * count),
      recipes: prompts.map((text, i) => ({ prompt: text, negativePrompt: negatives?.[i], ...priorRecipe(job) })),
      embed: () => this.priorPipe.run(job),
    }
  }

  #mixed(options: CombinedOptions<DecodingOptions>): Embedding {
    const { prompt, mix, negativePrompt, numImagesPerPrompt, latents } = options
    if (prompt !== undefined) throw invalid('prompt', 'nothing beside a mix', prompt)
    if (negativePrompt !== undefined && typeof negativePrompt !== 'string')
      throw invalid('negativePrompt', 'one string beside a mix', negativePrompt)
    const { items, weights } = expectMix(mix)
    // From a seed every picture has an embedding of its own; from a generator all share one, as in the reference.
    const shared = options.generator !== undefined
    const run = { ...priorRun(options), numImagesPerPrompt: shared ? undefined : numImagesPerPrompt }
    const job = this.priorPipe.check({ ...run, prompt: '' })
    const embeddings = shared ? 1 : job.count
    const generator = options.generator ?? [job.generator].flat()
    return {
      ...{ embeddings, generator },
      numImagesPerPrompt: shared ? numImagesPerPrompt : undefined,
      // A decoder that reads prompts, too, gets empty ones: the mix says it all.
      prompt: Array(embeddings).fill(''),
      images: {},
      recipes: [{ negativePrompt, mix: { items: items.map(describeItem), weights }, ...priorRecipe(job) }],
      embed: () => {
        const starts = latents && tileRows(latents, embeddings)
        const noise = { seed: undefined, generator, latents: starts }
        return this.priorPipe.interpolate(items, weights, { ...run, ...noise, negativePrompt })
      },
    }
  }
}

/** The options of the prior's steps under the prior's own names. */
function priorRun(options: CombinedOptions<DecodingOptions>) {
  const { priorGuidanceScale, priorNumInferenceSteps, priorCallbackOnStepEnd, seed, generator, signal, onStep } =
    options
  return {
    ...{ seed, generator, signal, onStep },
    guidanceScale: priorGuidanceScale,
    numInferenceSteps: priorNumInferenceSteps,
    callbackOnStepEnd: priorCallbackOnStepEnd,
  }
}

/** The prior's part of a recipe. */
function priorRecipe({ steps, guidanceScale }: PriorJob): Recipe {
  return { priorNumInferenceSteps: steps, priorGuidanceScale: guidanceScale }
}

function optionNames({ decoderClass }: CombinedClass<unknown>): string[] {
  return [...pretrainedOptionNames(decoderClass.parts), 'prior']
}

function expectMix(mix: unknown): Mix {
  const { items, weights } = (mix ?? {}) as Partial<Mix>
  if (!Array.isArray(items) || !Array.isArray(weights)) throw invalid('mix', 'an object of items and weights', mix)
  expectOptions(mix, ['items', 'weights'])
  return { items, weights }
}

/** How a recipe names an item: a text as it is, a picture by its hash. */
function describeItem(item: ImageOrPrompt): string | { image: string | undefined } {
  if (typeof item === 'string') return item
  return { image: item instanceof RawImage || item instanceof Tensor ? hashesOf([item])[0] : undefined }
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

// Text to CLIP image embedding with the Kandinsky 2.2 prior (unCLIP), after diffusers' pipeline_kandinsky2_2_prior.py.
import { invalid, KandinskyError } from '../errors.js'
import type { ImageInput } from '../image.js'
import type { Model } from '../models.js'
import { type ClipProcessorConfig, clipPreprocess } from '../processing.js'
import { Generator, type RandomSource, randnTensor } from '../random.js'
import type { Scheduler } from '../schedulers/scheduler.js'
import { concatRows, elementCount, repeatRows, sliceRows, Tensor } from '../tensor.js'
import type { ClipTokenizer } from '../tokenizers/clip.js'
import { guide } from './denoise.js'
import { loadPriorComponents, openSide, type PretrainedOptions } from './load.js'
import {
  expectGenerator,
  expectInteger,
  expectNumber,
  expectOptions,
  expectPrompts,
  expectTensor,
  maxImages,
} from './options.js'
import { type CallOptions, StepReporter, streamCall } from './progress.js'

export interface PriorOptions extends CallOptions {
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
  /** source of noise, or one per row; default: a randomly seeded one */
  generator?: RandomSource | RandomSource[] | undefined
  /** initial noise [rows, embeddingDim] instead of a drawn one; rows double when there is a negative prompt */
  latents?: Tensor | undefined
}

export interface PriorResult {
  /** [prompts * numImagesPerPrompt, embeddingDim] */
  imageEmbeds: Tensor
  /** same shape; the embeddings of the negative prompts, or of an all-zero image */
  negativeImageEmbeds: Tensor
}

export interface InterpolateOptions extends Omit<PriorOptions, 'prompt' | 'negativePrompt'> {
  /** negative prompt of the prior runs for the strings */
  negativePriorPrompt?: string | undefined
  /** prompt whose embedding becomes `negativeImageEmbeds`; default `''`: an all-zero image's embedding */
  negativePrompt?: string | undefined
}

export interface PriorComponents {
  prior: Model
  textEncoder: Model
  /** only needed for image inputs, and for the zero image when the checkpoint does not store its embedding */
  imageEncoder?: Model | undefined
  tokenizer: ClipTokenizer
  scheduler: Scheduler
  imageProcessor?: ClipProcessorConfig | undefined
  /** [1, embeddingDim]: what the image encoder makes of an all-zero tensor; stored by `convert` */
  zeroImageEmbeds?: Tensor | undefined
}

const generateOptions = [
  'prompt',
  'negativePrompt',
  'numImagesPerPrompt',
  'numInferenceSteps',
  'guidanceScale',
  'generator',
  'latents',
  'signal',
  'onStep',
]
const interpolateOptions = [...generateOptions.filter((name) => name !== 'prompt'), 'negativePriorPrompt']

/** The prior's inputs for one batch of texts. */
interface EncodedText {
  proj_embedding: Tensor
  encoder_hidden_states: Tensor
  /** [rows, 77], 1 for real tokens */
  attention_mask: { data: Int32Array; shape: number[] }
}

export class KandinskyV22PriorPipeline {
  scheduler: Scheduler
  readonly components: PriorComponents
  #zeroImageEmbeds: Tensor | undefined

  constructor(components: PriorComponents) {
    this.components = components
    this.scheduler = components.scheduler
    this.#zeroImageEmbeds = components.zeroImageEmbeds
  }

  /**
   * @param source a .gguf file, a folder of them, a folder in the Hugging Face layout, or a hub id; it may hold a decoder
   *   too
   * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL`, `DEVICE_UNAVAILABLE`, `OUT_OF_MEMORY`
   */
  static async fromPretrained(source: string, options: PretrainedOptions = {}): Promise<KandinskyV22PriorPipeline> {
    const checkpoint = await openSide(source, 'prior', options)
    return new KandinskyV22PriorPipeline(await loadPriorComponents(checkpoint, options))
  }

  /**
   * Image embeddings for prompts.
   *
   * Rows are ordered prompt by prompt; all noise is drawn from `generator` in diffusers' order.
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH` before anything is computed
   */
  async generate(options: PriorOptions): Promise<PriorResult> {
    const { prompts, negatives, count, steps, guidanceScale, generator, dimensions, rows } = this.check(options)
    const guided = guidanceScale > 1
    // A negative prompt runs as a prompt of its own in the same batch: its result is the negative embedding.
    const texts = negatives ? [...prompts, ...negatives] : prompts
    let text = await this.#encodeText(texts, count, true, options)
    if (guided) {
      const uncond = negatives ? [...negatives, ...negatives] : texts.map(() => '')
      text = joinText(await this.#encodeText(uncond, count, false, options), text)
    }
    const scheduler = this.scheduler.clone()
    scheduler.setTimesteps(steps)
    const noise = options.latents ?? randnTensor([rows, dimensions], generator)
    let latents = new Tensor(
      noise.data.map((value) => value * scheduler.initNoiseSigma),
      noise.shape,
    )
    const reporter = new StepReporter('prior', steps, options)
    for (const [index, timestep] of scheduler.timesteps.entries()) {
      reporter.check()
      const inputs = {
        ...text,
        hidden_states: guided ? concatRows([latents, latents]) : latents,
        timestep: new Tensor(new Float32Array([timestep]), [1]),
      }
      const output = await this.components.prior.run('forward', inputs, { signal: options.signal })
      let predicted = output.predicted_image_embedding!
      if (guided) predicted = guide(predicted, guidanceScale)
      const prevTimestep = scheduler.timesteps[index + 1]
      latents = scheduler.step(predicted, timestep, latents, { generator, prevTimestep }).prevSample
      reporter.report(index, timestep, latents)
    }
    const processed = await this.components.prior.run('post_process', { latents }, { signal: options.signal })
    const embeds = processed.image_embeds!
    if (!negatives) {
      const zero = await this.zeroImageEmbeds(options.signal)
      return { imageEmbeds: embeds, negativeImageEmbeds: repeatRows(zero, rows) }
    }
    return { imageEmbeds: sliceRows(embeds, 0, rows / 2), negativeImageEmbeds: sliceRows(embeds, rows / 2, rows) }
  }

  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', ... }` event. */
  stream(options: PriorOptions) {
    return streamCall((withEvents: PriorOptions) => this.generate(withEvents), options)
  }

  /**
   * Weighted sum of the embeddings of texts and images.
   *
   * Every string costs one run of the prior, in order, all from the same generator; one more run makes the negative
   * embedding. Weights are used as they are, not normalised.
   * @param imagesAndPrompts strings are prompts; images are anything `loadImage` takes except strings, or a preprocessed
   *   Tensor [1, 3, size, size]
   */
  async interpolate(
    imagesAndPrompts: readonly (string | Exclude<ImageInput, string> | Tensor)[],
    weights: readonly number[],
    options: InterpolateOptions = {},
  ): Promise<PriorResult> {
    expectOptions(options, interpolateOptions)
    if (!Array.isArray(imagesAndPrompts) || imagesAndPrompts.length === 0)
      throw invalid('imagesAndPrompts', 'a non-empty array of strings and images', imagesAndPrompts)
    if (!Array.isArray(weights) || weights.length !== imagesAndPrompts.length)
      throw invalid('weights', `an array of ${imagesAndPrompts.length} numbers, one per item`, weights)
    for (const [i, weight] of weights.entries()) expectNumber(`weights[${i}]`, weight)
    const { negativePriorPrompt, negativePrompt = '', ...shared } = options
    if (typeof negativePrompt !== 'string') throw invalid('negativePrompt', 'a string', negativePrompt)
    const run = (prompt: string) => this.generate({ ...shared, generator, prompt, negativePrompt: negativePriorPrompt })
    const generator = shared.generator ?? new Generator()
    this.check({ ...shared, prompt: '', negativePrompt: negativePriorPrompt })

    let sum: Float32Array | undefined
    for (const [i, item] of imagesAndPrompts.entries()) {
      const embeds =
        typeof item === 'string'
          ? (await run(item)).imageEmbeds
          : tileRows(await this.encodeImage(item, shared.signal), shared.numImagesPerPrompt ?? 1)
      const weight = Math.fround(weights[i]!)
      const weighted = embeds.data.map((value) => value * weight)
      if (sum && sum.length !== weighted.length)
        throw new KandinskyError(
          'SHAPE_MISMATCH',
          `Expected ${sum.length} values from item ${i} of imagesAndPrompts but received ${weighted.length}`,
        )
      sum = sum ? sum.map((value, j) => value + weighted[j]!) : weighted
    }
    const negative = await run(negativePrompt)
    const negativeImageEmbeds = negativePrompt === '' ? negative.negativeImageEmbeds : negative.imageEmbeds
    return { imageEmbeds: new Tensor(sum!, negative.imageEmbeds.shape), negativeImageEmbeds }
  }

  /** CLIP embedding [n, embeddingDim] of an image, or of preprocessed pixels [n, 3, size, size]. */
  async encodeImage(image: ImageInput | Tensor, signal?: AbortSignal): Promise<Tensor> {
    const encoder = this.#imageEncoder('an image input')
    const pixels = image instanceof Tensor ? image : await this.#preprocess(image, signal)
    return (await encoder.run('forward', { pixel_values: pixels }, { signal })).image_embeds!
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
      this.#zeroImageEmbeds = (await encoder.run('forward', { pixel_values: zeros }, { signal })).image_embeds!
    }
    return this.#zeroImageEmbeds
  }

  /** Checks the options of `generate` and resolves its defaults. */
  check(options: PriorOptions) {
    expectOptions(options, generateOptions)
    const prompts = expectPrompts('prompt', options.prompt)
    const negatives =
      options.negativePrompt === undefined ? undefined : expectPrompts('negativePrompt', options.negativePrompt)
    if (negatives && negatives.length !== prompts.length)
      throw invalid('negativePrompt', `as many negative prompts as prompts (${prompts.length})`, options.negativePrompt)
    const count = expectInteger('numImagesPerPrompt', options.numImagesPerPrompt ?? 1, 1, maxImages)
    const dimensions = Number(this.components.prior.config.embedding_dim ?? 768)
    const rows = (prompts.length + (negatives?.length ?? 0)) * count
    if (options.latents) expectTensor('latents', options.latents, [rows, dimensions])
    return {
      prompts,
      negatives,
      count,
      dimensions,
      rows,
      steps: expectInteger('numInferenceSteps', options.numInferenceSteps ?? 25, 1, 1000),
      guidanceScale: expectNumber('guidanceScale', options.guidanceScale ?? 4),
      generator: expectGenerator(options.generator, rows),
    }
  }

  /** Waits for running calls, then frees every network. Later calls reject with `DISPOSED`. */
  async dispose(): Promise<void> {
    const { prior, textEncoder, imageEncoder } = this.components
    await Promise.all([textEncoder, prior, imageEncoder].map((model) => model?.dispose()))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  /** @param warn report text beyond the model's 77 tokens, as the reference does for the prompts (not the negatives) */
  async #encodeText(texts: string[], count: number, warn: boolean, options: CallOptions): Promise<EncodedText> {
    const { tokenizer, textEncoder } = this.components
    const { inputIds, attentionMask, truncated } = tokenizer.encode(texts)
    for (const [i, removed] of truncated.entries())
      if (warn && removed !== undefined)
        process.emitWarning(
          `CLIP reads ${tokenizer.modelMaxLength} tokens; this part of prompt ${i} was cut off: ${removed}`,
          'KandinskyWarning',
        )
    const output = await textEncoder.run('forward', { input_ids: integers(inputIds) }, { signal: options.signal })
    const mask = attentionMask.flatMap((row) => Array<Int32Array>(count).fill(row))
    return {
      proj_embedding: repeatRows(output.text_embeds!, count),
      encoder_hidden_states: repeatRows(output.last_hidden_state!, count),
      attention_mask: integers(mask),
    }
  }

  async #preprocess(image: ImageInput, signal?: AbortSignal): Promise<Tensor> {
    const { imageProcessor } = this.components
    if (!imageProcessor)
      throw new KandinskyError('UNSUPPORTED_MODEL', 'This checkpoint has no image_processor/preprocessor_config.json')
    return clipPreprocess(image, imageProcessor, { signal })
  }

  #imageEncoder(purpose: string): Model {
    const { imageEncoder } = this.components
    if (imageEncoder) return imageEncoder
    throw new KandinskyError('UNSUPPORTED_MODEL', `Expected a checkpoint with an image_encoder for ${purpose}`)
  }
}

function integers(rows: Int32Array[]): { data: Int32Array; shape: number[] } {
  const width = rows[0]?.length ?? 0
  const data = new Int32Array(rows.length * width)
  for (const [i, row] of rows.entries()) data.set(row, i * width)
  return { data, shape: [rows.length, width] }
}

function joinText(a: EncodedText, b: EncodedText): EncodedText {
  const { attention_mask: first } = a
  const { attention_mask: second } = b
  const data = new Int32Array([...first.data, ...second.data])
  return {
    proj_embedding: concatRows([a.proj_embedding, b.proj_embedding]),
    encoder_hidden_states: concatRows([a.encoder_hidden_states, b.encoder_hidden_states]),
    attention_mask: { data, shape: [first.shape[0]! + second.shape[0]!, first.shape[1]!] },
  }
}

/** The whole batch `times` times (torch's repeat): a b -> a b a b. */
function tileRows(tensor: Tensor, times: number): Tensor {
  return concatRows(Array<Tensor>(times).fill(tensor))
}

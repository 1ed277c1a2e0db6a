// What the pipelines of Kandinsky 5 Image share (https://arxiv.org/abs/2511.14993): Qwen2.5-VL and CLIP read, a transformer
// denoises, FLUX's autoencoder makes the picture.
//
// Easy to get wrong: latents have their channels last and a frame axis of 1, [n, 1, h, w, C], as they are drawn, given and
// returned. The autoencoder's scaling_factor is applied, its shift_factor is not.

import { invalid } from '../../errors.js'
import type { RawImage } from '../../images/image.js'
import type { QwenProcessorConfig } from '../../images/processing-qwen.js'
import { FlowMatchEulerDiscreteScheduler } from '../../schedulers/flow-match-euler.js'
import { concatRows, rowsOf, Tensor } from '../../tensor.js'
import { ClipTokenizer } from '../../tokenizers/clip.js'
import { Qwen2Tokenizer } from '../../tokenizers/qwen2.js'
import { type Exact, expectInteger, expectOptions, maxSide } from '../call/options.js'
import { checkCallOptions, streamCall } from '../call/progress.js'
import { attachRecipe, type RecipeSources } from '../call/provenance.js'
import { Recent } from '../call/recent.js'
import { inTurn } from '../call/turns.js'
import { loraRecipe } from '../loading/lora.js'
import {
  type ComponentsOf,
  callDefaults,
  modelIdentity,
  network,
  scheduler,
  settings,
  tokenizer,
} from '../loading/parts.js'
import { decodeImages, movqScaleFactor } from '../sampling/autoencoder.js'
import {
  type CheckedCall,
  checkDecoding,
  type DecodingOptions,
  decodingRecipe,
  type ImageResult,
  type ImagesOf,
} from '../sampling/decoding.js'
import { forecasting } from '../sampling/forecast.js'
import { guide, isGuided, isWithin } from '../sampling/guidance.js'
import { SamplingPipeline } from '../sampling/pipeline.js'
import { previewer } from '../sampling/preview.js'
import { type Predict, type Start, sample } from '../sampling/sample.js'
import {
  type CheckedPrompts,
  type EncodedPrompts,
  encodePrompts,
  joinedConditions,
  type PromptOptions,
  type TextCondition,
} from './prompts.js'

/**
 * The parts of a Kandinsky 5 pipeline.
 * @param purpose what it does, for messages
 * @param visual_cond whether the transformer sees a picture behind the latents
 */
export function kandinsky5Parts(purpose: string, visual_cond: boolean) {
  return {
    scheduler: scheduler(),
    tokenizer: tokenizer(Qwen2Tokenizer),
    tokenizer2: tokenizer(ClipTokenizer),
    defaults: callDefaults(),
    processor: settings<QwenProcessorConfig>('tokenizer/preprocessor_config.json'),
    transformer: network('Kandinsky5Transformer3DModel', { config: { visual_cond }, purpose }),
    vae: network('AutoencoderKL'),
    // Larger than the transformer; they are in memory only while they read a prompt.
    textEncoder: network('Qwen2_5_VLForConditionalGeneration', { late: true }),
    textEncoder2: network('CLIPTextModel', { late: true }),
    identity: modelIdentity(),
  }
}
/** What a Kandinsky 5 pipeline is made of. */
export type Kandinsky5Components = ComponentsOf<ReturnType<typeof kandinsky5Parts>>

/** Where a run begins, and what the transformer sees behind the latents: [rows, 1, h, w, channels]. */
export interface Kandinsky5Start extends Start {
  condition?: Tensor
}

/** A call that is checked; nothing is computed yet. */
export interface Kandinsky5Job extends CheckedCall {
  prompts: CheckedPrompts
  /** computes what precedes the loop, and draws its noise */
  begin(): Promise<Kandinsky5Start>
  inputs?: RecipeSources['inputs']
}

/** Pixels of a picture's side per patch of the transformer, on top of the autoencoder's factor. */
const PATCH = 2

/** @typeParam Options those of `generate` */
export abstract class Kandinsky5Base<
  Options extends DecodingOptions & PromptOptions,
> extends SamplingPipeline<Kandinsky5Components> {
  /** The text encoder is larger than the transformer, and its weights are read anew each time. */
  readonly #encoded = new Recent<Awaited<ReturnType<typeof encodePrompts>>>()
  /** Names of the options of `generate`. */
  abstract readonly optionNames: readonly string[]

  /** Checks the options of a call and loads its pictures. */
  abstract check(options: Options): Promise<Kandinsky5Job>

  #resolutions: readonly (readonly [number, number])[] = [
    [1024, 1024],
    [640, 1408],
    [1408, 640],
    [768, 1280],
    [1280, 768],
    [896, 1152],
    [1152, 896],
  ]

  /** The sizes that pictures can have, [width, height] in pixels: those that the model was trained with, unless set. */
  get resolutions(): readonly (readonly [number, number])[] {
    return this.#resolutions
  }
  set resolutions(sizes: readonly (readonly [number, number])[]) {
    const factor = PATCH * movqScaleFactor(this.components.vae)
    const fits = (size: unknown) =>
      Array.isArray(size) &&
      size.length === 2 &&
      size.every((side) => Number.isInteger(side) && side >= factor && side <= 128 * factor && side % factor === 0)
    if (!Array.isArray(sizes) || sizes.length === 0 || !sizes.every(fits))
      throw invalid('resolutions', `a list of [width, height] in multiples of ${factor} up to ${128 * factor}`, sizes)
    this.#resolutions = sizes.map(([width, height]) => [width, height])
  }

  /**
   * Pictures for prompts, ordered prompt by prompt.
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`, and those of `loadImage`, before anything is computed
   */
  async generate<Given extends Options>(options: Exact<Options, Given>): Promise<ImageResult<ImagesOf<Given>>> {
    expectOptions(options, this.optionNames)
    const job = await this.check(options)
    const images = await inTurn(this.components.transformer.device, job.signal, () => this.run(job))
    return { images: images as ImagesOf<Given> }
  }

  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', images }` event. */
  stream<Given extends Options>(options: Exact<Options, Given>) {
    return streamCall((withEvents: Exact<Options, Given>) => this.generate<Given>(withEvents), options)
  }

  /** Runs the text encoders for prompts that were checked: `generate` takes the result in place of texts. */
  protected async encode(prompts: CheckedPrompts, signal: AbortSignal | undefined): Promise<EncodedPrompts> {
    const texts = await inTurn(this.components.transformer.device, signal, () =>
      encodePrompts(this.components, prompts, true, signal),
    )
    return joinedConditions(texts.positive, texts.negative!)
  }

  /** Widths of the states that the transformer takes. */
  protected get textWidths(): { qwen: number; clip: number } {
    const { in_text_dim = 3584, in_text_dim2 = 768 } = this.components.transformer.config
    return { qwen: Number(in_text_dim), clip: Number(in_text_dim2) }
  }

  override async dispose(): Promise<void> {
    this.#encoded.clear()
    await super.dispose()
  }

  /**
   * Checks what all tasks share.
   * @param own size of the picture that is changed: the default height and width
   */
  protected checkCall(options: Options, count: number, own?: { height: number; width: number }): CheckedCall {
    const { transformer, vae } = this.components
    if (!(this.scheduler instanceof FlowMatchEulerDiscreteScheduler))
      throw invalid('scheduler', 'a FlowMatchEulerDiscreteScheduler', this.scheduler.constructor.name)
    const defaults = {
      ...{ height: 1024, width: 1024, numInferenceSteps: 50, guidanceScale: 3.5 },
      ...this.components.defaults,
      ...own,
    }
    const { width, height } = this.#nearestSize(options.width ?? defaults.width, options.height ?? defaults.height)
    if ((options.width ?? width) !== width || (options.height ?? height) !== height)
      process.emitWarning(
        `Kandinsky 5 makes pictures of ${this.resolutions.map((size) => size.join(' x ')).join(', ')}; ` +
          `${options.width ?? defaults.width} x ${options.height ?? defaults.height} becomes ${width} x ${height}`,
        'KandinskyWarning',
      )
    const checked = checkDecoding(options, count, { movq: vae, scheduler: this.scheduler }, defaults)
    const factor = movqScaleFactor(vae)
    const rows = checked.latentShape[0]!
    const latentShape = [rows, 1, height / factor, width / factor, Number(transformer.config.in_visual_dim ?? 4)]
    return { ...checked, height, width, latentShape }
  }

  #nearestSize(width: number, height: number): { width: number; height: number } {
    expectInteger('width', width, 1, maxSide)
    expectInteger('height', height, 1, maxSide)
    if (this.resolutions.some(([w, h]) => w === width && h === height)) return { width, height }
    const distance = ([w, h]: readonly [number, number]) => Math.abs(w / h - width / height)
    const nearest = this.resolutions.reduce((best, size) => (distance(size) < distance(best) ? size : best))
    return { width: nearest[0], height: nearest[1] }
  }

  /** Does what was checked. */
  async run(job: Kandinsky5Job): Promise<RawImage[] | Tensor> {
    const { transformer, vae, textEncoder, textEncoder2, identity } = this.components
    const { scheduler, generator, guidanceScale, signal, outputType, count, prompts } = job
    const { given, negativeGiven, seen, ...texted } = prompts
    const isGuidedCall = isGuided(guidanceScale)
    // With pictures among the texts the key would be as large as they are.
    const inputs = [texted, isGuidedCall, loraRecipe([textEncoder, textEncoder2])]
    const texts = await this.#encoded.get(given || negativeGiven || seen ? undefined : inputs, () =>
      encodePrompts(this.components, prompts, isGuidedCall, signal),
    )
    const { condition, ...start } = await job.begin()
    const conditions = condition && rowsOf(condition)
    // One row at a time: texts of different lengths cannot share a call.
    const predict: Predict = async (latents, moment) => {
      const { timestep } = moment
      const isGuidedNow = isWithin(job.guidanceInterval, moment)
      const velocity = async (hidden_states: Tensor, text: TextCondition) => {
        const inputs = { ...text, hidden_states, timestep: Tensor.scalar(timestep) }
        return new Tensor((await transformer.run('forward', inputs, { signal })).velocity.data, [
          1,
          ...job.latentShape.slice(1),
        ])
      }
      const rows: Tensor[] = []
      for (const [i, row] of rowsOf(latents).entries()) {
        const prompt = Math.floor(i / count)
        const seen = conditions ? channelsBeside(row, conditions[i]!) : row
        const positive = await velocity(seen, texts.positive[prompt]!)
        const negative = isGuidedNow ? (texts.negative?.[prompt] ?? texts.negative?.[0]) : undefined
        rows.push(negative ? guide(concatRows([await velocity(seen, negative), positive]), guidanceScale) : positive)
      }
      return concatRows(rows)
    }
    const show = job.preview ? await previewer(vae) : undefined
    const latents = await sample({
      ...{ stage: 'decoder', scheduler, generator },
      predict: forecasting(job.forecast, scheduler, predict),
      ...start,
      ...checkCallOptions(job),
      preview: show && ((predicted) => show(this.#forDecoder(predicted))),
    }).finally(() => transformer.releaseWeights())
    const result = outputType === 'latent' ? latents : this.#forDecoder(latents)
    const images = await decodeImages(vae, result, outputType, signal)
    const made = prompts.prompts?.map((prompt, i) => ({
      prompt,
      negativePrompt: prompts.negatives[i] ?? prompts.negatives[0],
      // Padding is read, too: beside a longer prompt a picture is another one than alone.
      ...(prompts.padPrompts &&
        prompts.count > 1 && { contextTokens: texts.positive[i]!.encoder_hidden_states.shape[1] }),
    }))
    attachRecipe(
      images,
      { ...decodingRecipe(job, transformer, identity), ...loraRecipe(this.networks) },
      {
        ...{ origins: job.origins, prompts: made, inputs: job.inputs },
      },
    )
    return images
  }

  /** [n, 1, h, w, C] to what the autoencoder decodes, [n, C, h, w]. */
  #forDecoder(latents: Tensor): Tensor {
    const scale = scalingFactor(this.components.vae)
    const first = channelsFirst(latents)
    return new Tensor(
      first.data.map((value) => value / scale),
      first.shape,
    )
  }
}

export function scalingFactor(vae: Kandinsky5Components['vae']): number {
  return Math.fround(Number(vae.config.scaling_factor ?? 1))
}

/** [n, 1, h, w, C] to [n, C, h, w]. */
function channelsFirst({ data, shape }: Tensor): Tensor {
  const [n, , h, w, channels] = shape as [number, number, number, number, number]
  return new Tensor(transposed(data, n, h * w, channels), [n, channels, h, w])
}

/** [n, C, h, w] to [n, 1, h, w, C]. */
export function channelsLast({ data, shape }: Tensor): Tensor {
  const [n, channels, h, w] = shape as [number, number, number, number]
  return new Tensor(transposed(data, n, channels, h * w), [n, 1, h, w, channels])
}

/** Each of `n` matrices [rows, columns] turned over. */
function transposed(data: Float32Array, n: number, rows: number, columns: number): Float32Array {
  const result = new Float32Array(data.length)
  for (let i = 0; i < n; i++)
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        result[(i * columns + column) * rows + row] = data[(i * rows + row) * columns + column]!
  return result
}

/** [n, 1, h, w, A] and [n, 1, h, w, B] to [n, 1, h, w, A + B]. */
export function channelsBeside(a: Tensor, b: Tensor): Tensor {
  const [widthA, widthB] = [a.shape.at(-1)!, b.shape.at(-1)!]
  const width = widthA + widthB
  const data = new Float32Array(a.data.length + b.data.length)
  for (let pixel = 0; pixel * width < data.length; pixel++) {
    data.set(a.data.subarray(pixel * widthA, (pixel + 1) * widthA), pixel * width)
    data.set(b.data.subarray(pixel * widthB, (pixel + 1) * widthB), pixel * width + widthA)
  }
  return new Tensor(data, [...a.shape.slice(0, -1), width])
}

/** Channels `from` to `to` of [n, 1, h, w, C]. */
export function channelsOf({ data, shape }: Tensor, from: number, to: number): Tensor {
  const width = shape.at(-1)!
  const part = new Float32Array((data.length / width) * (to - from))
  for (let pixel = 0; pixel * width < data.length; pixel++)
    part.set(data.subarray(pixel * width + from, pixel * width + to), pixel * (to - from))
  return new Tensor(part, [...shape.slice(0, -1), to - from])
}

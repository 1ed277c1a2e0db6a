// Prompt to picture with Kandinsky 5 Image (https://arxiv.org/abs/2511.14993), after diffusers'
// pipeline_kandinsky_t2i.py.
//
// Easy to get wrong: latents have their channels last and a frame axis of 1, [n, 1, h, w, C], as they are drawn, given and
// returned. The autoencoder's scaling_factor is applied, its shift_factor is not.

import { invalid } from '../../errors.js'
import type { RawImage } from '../../images/image.js'
import { FlowMatchEulerDiscreteScheduler } from '../../schedulers/flow-match-euler.js'
import { concatRows, rowsOf, Tensor } from '../../tensor.js'
import { ClipTokenizer } from '../../tokenizers/clip.js'
import { Qwen2Tokenizer } from '../../tokenizers/qwen2.js'
import { type Exact, expectInteger, expectOptions, maxSide } from '../call/options.js'
import { checkCallOptions, streamCall } from '../call/progress.js'
import { attachRecipe } from '../call/provenance.js'
import { inTurn } from '../call/turns.js'
import { type ComponentsOf, callDefaults, modelIdentity, network, scheduler, tokenizer } from '../loading/parts.js'
import { decodeImages, movqScaleFactor } from '../sampling/autoencoder.js'
import {
  type CheckedCall,
  checkDecoding,
  type DecodingOptions,
  decodingOptionNames,
  decodingRecipe,
  type ImageResult,
  type ImagesOf,
} from '../sampling/decoding.js'
import { forecasting } from '../sampling/forecast.js'
import { guide, isGuided, isWithin } from '../sampling/guidance.js'
import { type LatentsOption, noiseStart } from '../sampling/noise-start.js'
import { SamplingPipeline } from '../sampling/pipeline.js'
import { type Predict, type Start, sample } from '../sampling/sample.js'
import {
  type CheckedPrompts,
  checkPrompts,
  encodePrompts,
  type PromptOptions,
  promptOptionNames,
  type TextCondition,
} from './prompts.js'

const parts = {
  scheduler: scheduler(),
  tokenizer: tokenizer(Qwen2Tokenizer),
  tokenizer2: tokenizer(ClipTokenizer),
  defaults: callDefaults(),
  transformer: network('Kandinsky5Transformer3DModel', {
    config: { visual_cond: false },
    purpose: 'text-to-image',
  }),
  vae: network('AutoencoderKL'),
  // Larger than the transformer; they are in memory only while they read a prompt.
  textEncoder: network('Qwen2_5_VLForConditionalGeneration', { late: true }),
  textEncoder2: network('CLIPTextModel', { late: true }),
  identity: modelIdentity(),
}
/** What a Kandinsky 5 text-to-image pipeline is made of. */
export type Kandinsky5Components = ComponentsOf<typeof parts>

/**
 * `height` and `width` are 1024 by default and become those of `resolutions` whose ratio is nearest; `numInferenceSteps` is
 * 50, `guidanceScale` 3.5. `latents`: [n, 1, height / 8, width / 8, channels].
 */
export interface Kandinsky5T2IOptions extends Omit<DecodingOptions, 'preview'>, PromptOptions, LatentsOption {}

interface Job extends CheckedCall {
  prompts: CheckedPrompts
  begin(): Promise<Start>
}

/** Pixels of a picture's side per patch of the transformer, on top of the autoencoder's factor. */
const PATCH = 2

/** Text to picture with Kandinsky 5 Image, after diffusers' Kandinsky5T2IPipeline. */
export class Kandinsky5T2IPipeline extends SamplingPipeline<Kandinsky5Components> {
  static readonly parts = parts
  readonly optionNames = [...promptOptionNames, ...decodingOptionNames.filter((name) => name !== 'preview'), 'latents']
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
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`, before anything is computed
   */
  async generate<Given extends Kandinsky5T2IOptions>(
    options: Exact<Kandinsky5T2IOptions, Given>,
  ): Promise<ImageResult<ImagesOf<Given>>> {
    expectOptions(options, this.optionNames)
    const job = this.check(options)
    const images = await inTurn(this.components.transformer.device, job.signal, () => this.run(job))
    return { images: images as ImagesOf<Given> }
  }

  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', images }` event. */
  stream<Given extends Kandinsky5T2IOptions>(options: Exact<Kandinsky5T2IOptions, Given>) {
    return streamCall((withEvents: Exact<Kandinsky5T2IOptions, Given>) => this.generate<Given>(withEvents), options)
  }

  /** Checks the options of a call. */
  check(options: Kandinsky5T2IOptions): Job {
    const { transformer, vae } = this.components
    const { in_text_dim = 3584, in_text_dim2 = 768 } = transformer.config
    const prompts = checkPrompts(options, { qwen: Number(in_text_dim), clip: Number(in_text_dim2) })
    if (!(this.scheduler instanceof FlowMatchEulerDiscreteScheduler))
      throw invalid('scheduler', 'a FlowMatchEulerDiscreteScheduler', this.scheduler.constructor.name)
    const defaults = {
      height: 1024,
      width: 1024,
      numInferenceSteps: 50,
      guidanceScale: 3.5,
      ...this.components.defaults,
    }
    const { width, height } = this.#nearestSize(options.width ?? defaults.width, options.height ?? defaults.height)
    const checked = checkDecoding(options, prompts.count, { movq: vae, scheduler: this.scheduler }, defaults)
    const factor = movqScaleFactor(vae)
    const rows = checked.latentShape[0]!
    const latentShape = [rows, 1, height / factor, width / factor, Number(transformer.config.in_visual_dim ?? 4)]
    const call = { ...checked, height, width, latentShape }
    return { ...call, prompts, begin: noiseStart(call, options) }
  }

  #nearestSize(width: number, height: number): { width: number; height: number } {
    expectInteger('width', width, 1, maxSide)
    expectInteger('height', height, 1, maxSide)
    if (this.resolutions.some(([w, h]) => w === width && h === height)) return { width, height }
    const distance = ([w, h]: readonly [number, number]) => Math.abs(w / h - width / height)
    const nearest = this.resolutions.reduce((best, size) => (distance(size) < distance(best) ? size : best))
    process.emitWarning(
      `Kandinsky 5 makes pictures of ${this.resolutions.map((size) => size.join(' x ')).join(', ')}; ` +
        `${width} x ${height} becomes ${nearest.join(' x ')}`,
      'KandinskyWarning',
    )
    return { width: nearest[0], height: nearest[1] }
  }

  /** Does what was checked. */
  async run(job: Job): Promise<RawImage[] | Tensor> {
    const { transformer, vae, identity } = this.components
    const { scheduler, generator, guidanceScale, signal, outputType, count, prompts } = job
    const texts = await encodePrompts(this.components, prompts, isGuided(guidanceScale), signal)
    // One row at a time: texts of different lengths cannot share a call.
    const predict: Predict = async (latents, moment) => {
      const { timestep } = moment
      const isGuidedNow = isWithin(job.guidanceInterval, moment)
      const velocity = async (hidden_states: Tensor, text: TextCondition) => {
        const inputs = { ...text, hidden_states, timestep: Tensor.scalar(timestep) }
        return new Tensor((await transformer.run('forward', inputs, { signal })).velocity.data, hidden_states.shape)
      }
      const rows: Tensor[] = []
      for (const [i, row] of rowsOf(latents).entries()) {
        const prompt = Math.floor(i / count)
        const positive = await velocity(row, texts.positive[prompt]!)
        const negative = isGuidedNow ? (texts.negative?.[prompt] ?? texts.negative?.[0]) : undefined
        rows.push(negative ? guide(concatRows([await velocity(row, negative), positive]), guidanceScale) : positive)
      }
      return concatRows(rows)
    }
    const latents = await sample({
      ...{ stage: 'decoder', scheduler, generator },
      predict: forecasting(job.forecast, scheduler, predict),
      ...(await job.begin()),
      ...checkCallOptions(job),
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
    attachRecipe(images, decodingRecipe(job, transformer, identity), { origins: job.origins, prompts: made })
    return images
  }

  /** [n, 1, h, w, C] to what the autoencoder decodes, [n, C, h, w]. */
  #forDecoder(latents: Tensor): Tensor {
    const scale = Math.fround(Number(this.components.vae.config.scaling_factor ?? 1))
    const [n, , h, w, channels] = latents.shape as [number, number, number, number, number]
    const pixels = h * w
    const data = new Float32Array(latents.data.length)
    for (let row = 0; row < n; row++)
      for (let i = 0; i < pixels; i++)
        for (let channel = 0; channel < channels; channel++)
          data[(row * channels + channel) * pixels + i] = latents.data[(row * pixels + i) * channels + channel]! / scale
    return new Tensor(data, [n, channels, h, w])
  }
}

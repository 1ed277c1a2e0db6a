// What the pipelines of Kandinsky 3 share: one network reads the prompt, one denoises, MoVQ makes the picture.
import type { RawImage } from '../../images/image.js'
import type { Recipe } from '../../images/recipe.js'
import type { ConfigValue } from '../../native.js'
import { concatChannels, concatRows, Tensor } from '../../tensor.js'
import { T5Tokenizer } from '../../tokenizers/t5.js'
import { type Exact, expectOptions } from '../call/options.js'
import { checkCallOptions, streamCall } from '../call/progress.js'
import { attachRecipe, hashesOf, type RecipeSources } from '../call/provenance.js'
import { Recent } from '../call/recent.js'
import { inTurn } from '../call/turns.js'
import { loraRecipe } from '../loading/lora.js'
import { type ComponentsOf, callDefaults, modelIdentity, network, scheduler, tokenizer } from '../loading/parts.js'
import { decodeImages } from '../sampling/autoencoder.js'
import { inParts } from '../sampling/batches.js'
import {
  type CheckedCall,
  checkDecoding,
  type DecodingDefaults,
  type DecodingOptions,
  decodingRecipe,
  type ImageResult,
  type ImagesOf,
} from '../sampling/decoding.js'
import { forecasting } from '../sampling/forecast.js'
import { guideBeyond, guided, isGuided } from '../sampling/guidance.js'
import { inRuns, type Runs } from '../sampling/hires-fix.js'
import { SamplingPipeline } from '../sampling/pipeline.js'
import { previewer } from '../sampling/preview.js'
import { type Predict, type Start, sample } from '../sampling/sample.js'
import {
  type CheckedPrompts,
  checkPrompts,
  type EncodedPrompts,
  encodePrompts,
  type PromptOptions,
  type TextInputs,
  textConditioning,
  unetText,
} from './prompts.js'

/**
 * The parts of a Kandinsky 3 pipeline.
 * @param purpose what it does, for messages
 * @param config what the UNet must have been trained for
 */
export function kandinsky3Parts(purpose: string, config: Record<string, ConfigValue>) {
  return {
    scheduler: scheduler(),
    tokenizer: tokenizer(T5Tokenizer),
    defaults: callDefaults(),
    unet: network('Kandinsky3UNet', { purpose, config }),
    movq: network('VQModel'),
    // By far the largest network; it is in memory only while it reads a prompt.
    textEncoder: network('T5EncoderModel', { late: true }),
    identity: modelIdentity(),
  }
}
/** What a Kandinsky 3 pipeline is made of. */
export type Kandinsky3Components = ComponentsOf<ReturnType<typeof kandinsky3Parts>>

/** Where a run begins, and what the UNet sees behind the latents: one row per picture. */
export interface Kandinsky3Start extends Start {
  extraChannels?: Tensor
}

/** A call that is checked; nothing is computed yet. */
export interface Kandinsky3Job extends CheckedCall, Runs {
  prompts: CheckedPrompts
  /** computes what precedes the loop, and draws its noise */
  begin(): Promise<Kandinsky3Start>
  /** what the pipeline adds to the recipe */
  recipe?: Recipe
  inputs?: RecipeSources['inputs']
}

/** @typeParam Options those of `generate` */
export abstract class Kandinsky3Base<
  Options extends DecodingOptions & PromptOptions,
> extends SamplingPipeline<Kandinsky3Components> {
  /** T5 takes longer than some steps of the UNet, and its weights are read anew each time. */
  readonly #encoded = new Recent<EncodedPrompts>()
  /** Names of the options of `generate`. */
  abstract readonly optionNames: readonly string[]

  /** Checks the options of a call and loads its pictures. */
  abstract check(options: Options): Promise<Kandinsky3Job>

  /**
   * Pictures for prompts, ordered prompt by prompt.
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`, and those of `loadImage`, before anything is computed
   */
  async generate<Given extends Options>(options: Exact<Options, Given>): Promise<ImageResult<ImagesOf<Given>>> {
    expectOptions(options, this.optionNames)
    const job = await this.check(options)
    const images = await inTurn(this.components.unet.device, job.signal, () => this.run(job))
    return { images: images as ImagesOf<Given> }
  }

  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', images }` event. */
  stream<Given extends Options>(options: Exact<Options, Given>) {
    return streamCall((withEvents: Exact<Options, Given>) => this.generate<Given>(withEvents), options)
  }

  /**
   * Prompts as `generate` takes them in place of texts, to be saved and used again without the text encoder.
   * @throws KandinskyError `INVALID_ARGUMENT`
   */
  async encodePrompt(
    options: Pick<PromptOptions, 'prompt' | 'negativePrompt'> & { signal?: AbortSignal | undefined },
  ): Promise<EncodedPrompts> {
    expectOptions(options, ['prompt', 'negativePrompt', 'signal'])
    const prompts = this.#checkPrompts(options)
    return inTurn(this.components.unet.device, options.signal, () =>
      encodePrompts(this.components, prompts, true, options.signal),
    )
  }

  /** Does what was checked. */
  async run(job: Kandinsky3Job): Promise<RawImage[] | Tensor> {
    const { unet, movq, textEncoder, identity } = this.components
    const { guidanceScale, signal, outputType, count, prompts } = job
    const withGuidance = isGuided(guidanceScale)
    const { prompts: texts, negatives, given, negativeGiven } = prompts
    const inputs = [texts, negatives, withGuidance, loraRecipe([textEncoder])]
    const encoded = await this.#encoded.get(given || negativeGiven ? undefined : inputs, () =>
      encodePrompts(this.components, prompts, withGuidance, signal),
    )
    const forward = inParts<TextInputs & { sample: Tensor; timestep: Tensor }>(async (inputs) => {
      return (await unet.run('forward', inputs, { signal })).sample
    })
    const { extraChannels, ...start } = await job.begin()
    const model = (text: TextInputs, extra: Tensor | undefined): Predict => {
      return (latents, { timestep }) => {
        const sample = extra ? concatChannels([latents, extra]) : latents
        return forward({ ...text, sample, timestep: Tensor.scalar(timestep) })
      }
    }
    const text = await unetText(unet, encoded, withGuidance, signal)
    const alone = model(textConditioning(text, count, false), extraChannels)
    const twice = extraChannels && concatRows([extraChannels, extraChannels])
    const models = { alone, both: withGuidance ? model(textConditioning(text, count, true), twice) : alone }
    const predict = guided(job, models, (batch) => guideBeyond(batch, guidanceScale))
    const preview = job.preview ? await previewer(movq) : undefined
    const latents = await inRuns(job, start, ({ scheduler, generator, forecast }, start, beside) =>
      sample({
        ...{ stage: 'decoder', scheduler, generator },
        predict: forecasting(forecast, scheduler, predict),
        ...start,
        ...checkCallOptions(job),
        ...{ preview, beside },
      }).finally(() => unet.releaseWeights()),
    )
    const images = await decodeImages(movq, latents, outputType, signal)
    const made = texts?.map((prompt, i) => ({
      ...{ prompt, negativePrompt: negatives?.[i] },
      ...contextRecipe(encoded.attentionMask, i),
    }))
    const hashes = given && { promptEmbeds: hashesOf([given.embeds]) }
    const { origins } = job
    attachRecipe(
      images,
      { ...decodingRecipe(job, unet, identity), ...loraRecipe(this.networks), ...job.recipe },
      { origins, inputs: { ...job.inputs, ...hashes }, prompts: made },
    )
    return images
  }

  override async dispose(): Promise<void> {
    this.#encoded.clear()
    await super.dispose()
  }

  /** Checks what all tasks share. @param size default height and width */
  protected checkCall(
    options: Options,
    size: Pick<DecodingDefaults, 'height' | 'width'>,
    pace: Pick<DecodingDefaults, 'numInferenceSteps' | 'guidanceScale'> = { numInferenceSteps: 25, guidanceScale: 3 },
  ) {
    const prompts = this.#checkPrompts(options)
    const defaults = { ...pace, ...this.components.defaults, ...size }
    const { scheduler } = this
    const call = checkDecoding(options, prompts.count, { ...this.components, scheduler }, defaults)
    return { ...call, prompts }
  }

  #checkPrompts(options: PromptOptions): CheckedPrompts {
    return checkPrompts(options, Number(this.components.unet.config.encoder_hid_dim ?? 4096))
  }
}

/**
 * The UNet pools the text over all tokens, those beyond a prompt's own end, too, as in the reference: beside a longer prompt
 * a picture is another one than alone.
 */
function contextRecipe(mask: Tensor, index: number): Recipe {
  const tokens = mask.shape[1]!
  const own = mask.data.subarray(index * tokens, (index + 1) * tokens).reduce((sum, value) => sum + value, 1)
  return own < tokens ? { contextTokens: tokens } : {}
}

// What the decoder pipelines share: an image embedding and the task's own inputs become latents, latents a picture.
// A pipeline adds its options and where its latents come from (`check`); the rest of a call is here.
import { invalid, KandinskyError } from '../../errors.js'
import type { RawImage } from '../../images/image.js'
import type { Recipe } from '../../images/recipe.js'
import type { ConfigValue } from '../../native.js'
import type { UNetConditioning } from '../../networks/calls.js'
import { concatChannels, concatRows, repeatRows, splitChannels, Tensor } from '../../tensor.js'
import { type Exact, expectOptions, expectTensor } from '../call/options.js'
import { checkCallOptions, streamCall } from '../call/progress.js'
import { attachRecipe, hashesOf, type RecipeSources } from '../call/provenance.js'
import { inTurn } from '../call/turns.js'
import { loraRecipe } from '../loading/lora.js'
import { type ComponentsOf, callDefaults, modelIdentity, network, scheduler } from '../loading/parts.js'
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
import { guided, guideNoise, isGuided } from '../sampling/guidance.js'
import { inRuns, type Runs } from '../sampling/hires-fix.js'
import { SamplingPipeline } from '../sampling/pipeline.js'
import { previewer } from '../sampling/preview.js'
import { type Predict, type Start, sample } from '../sampling/sample.js'

/**
 * The parts of a decoder.
 * @param purpose what the pipeline does, for messages
 * @param config what the UNet must have been trained for
 */
export function decoderParts(purpose: string, config: Record<string, ConfigValue>) {
  return {
    scheduler: scheduler(),
    defaults: callDefaults(),
    unet: network('UNet2DConditionModel', { purpose, config }),
    movq: network('VQModel'),
    identity: modelIdentity(),
  }
}
export type DecoderComponents = ComponentsOf<ReturnType<typeof decoderParts>>

/** Embeddings of a prior, or of several to be joined. */
export interface Embeds {
  /** [n, embeddingDim], or an array of such tensors */
  imageEmbeds: Tensor | Tensor[]
  /** same shape; not read where guidance is off */
  negativeImageEmbeds: Tensor | Tensor[]
}
export const embedsNames = ['imageEmbeds', 'negativeImageEmbeds']

/** Where a run begins, and what the UNet sees beside the latents: one row per picture of everything. */
export interface DecoderStart extends Start {
  conditioning?: UNetConditioning
  /** for the unconditional half of guidance, where it has values of its own */
  negativeConditioning?: UNetConditioning
  /** channels behind the latents */
  extraChannels?: Tensor
}

/** A call whose options are checked and whose pictures are loaded; nothing is computed yet. */
export interface DecoderJob extends CheckedCall, Runs {
  /** computes what precedes the loop, and draws its noise */
  begin(): Promise<DecoderStart>
  /** what the pipeline adds to the recipe */
  recipe?: Recipe
  /** for the recipes */
  prompts?: RecipeSources['prompts']
  inputs?: RecipeSources['inputs']
}

/** Embeddings of one call, joined; no negative ones where guidance is off. */
interface JoinedEmbeds {
  imageEmbeds: Tensor
  negativeImageEmbeds?: Tensor | undefined
}

/** @typeParam Options the options of the task, without embeddings */
export abstract class DecoderPipeline<
  Options extends DecodingOptions,
  Components extends DecoderComponents = DecoderComponents,
> extends SamplingPipeline<Components> {
  /** the reference's, where neither the call nor the checkpoint gives a value */
  protected readonly defaults: DecodingDefaults = {
    height: 512,
    width: 512,
    numInferenceSteps: 100,
    guidanceScale: 4,
  }

  /**
   * Pictures for image embeddings.
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`, and those of `loadImage`, before anything is computed
   */
  async generate<Given extends Options & Embeds>(
    options: Exact<Options & Embeds, Given>,
  ): Promise<ImageResult<ImagesOf<Given>>> {
    expectOptions(options, [...embedsNames, ...this.optionNames])
    const embeds = this.#joinEmbeds(options)
    const job = await this.check(options, embeds.imageEmbeds.shape[0]!)
    const inputs = { ...job.inputs, imageEmbeds: hashesOf([embeds.imageEmbeds]) }
    const images = await inTurn(this.components.unet.device, job.signal, () => this.run({ ...job, inputs }, embeds))
    return { images: images as ImagesOf<Given> }
  }

  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', images }` event. */
  stream<Given extends Options & Embeds>(options: Exact<Options & Embeds, Given>) {
    return streamCall((withEvents: Exact<Options & Embeds, Given>) => this.generate<Given>(withEvents), options)
  }

  /** Of the pictures of a call that names no size, in pixels. */
  get defaultSize(): { height: number; width: number } {
    const { height, width } = this.#defaults
    return { height, width }
  }

  /** Names of the task's options. */
  abstract readonly optionNames: readonly string[]

  /** Checks the options of a call for so many embeddings, and loads its pictures. */
  abstract check(options: Options, embeddings: number): Promise<DecoderJob>

  /** Does what was checked; each embedding gets an equal share of the job's pictures. */
  async run(job: DecoderJob, embeds: JoinedEmbeds): Promise<RawImage[] | Tensor> {
    const { unet, movq } = this.components
    const { signal, latentShape, outputType } = job
    const perPicture = (tensor: Tensor) => repeatRows(tensor, latentShape[0]! / tensor.shape[0]!)
    const { conditioning, negativeConditioning, extraChannels, ...start } = await job.begin()
    const inputs = {
      positive: { ...conditioning, image_embeds: perPicture(embeds.imageEmbeds) },
      negative: {
        ...negativeConditioning,
        ...(embeds.negativeImageEmbeds && { image_embeds: perPicture(embeds.negativeImageEmbeds) }),
      },
      extraChannels,
    }
    const preview = job.preview ? await previewer(movq) : undefined
    const latents = await inRuns(job, start, (call, start, beside) => {
      const { scheduler, generator } = call
      const predict = this.#predict(call, inputs)
      return sample({
        ...{ stage: 'decoder', scheduler, predict, generator },
        ...start,
        ...checkCallOptions(job),
        ...{ preview, beside },
      }).finally(() => unet.releaseWeights())
    })
    const images = await decodeImages(movq, latents, outputType, signal)
    attachRecipe(images, { ...this.#recipe(job), ...loraRecipe(this.networks), ...job.recipe }, job)
    return images
  }

  /** Checks what all tasks share and resolves its defaults. */
  protected checkDecoding(options: DecodingOptions, embeddings: number): CheckedCall {
    const { scheduler } = this
    return checkDecoding(options, embeddings, { ...this.components, scheduler }, this.#defaults)
  }

  get #defaults(): DecodingDefaults {
    return { ...this.defaults, ...this.components.defaults }
  }

  #recipe(job: CheckedCall): Recipe {
    const { unet, identity } = this.components
    return decodingRecipe(job, unet, identity)
  }

  /** The guided UNet. */
  #predict(
    job: CheckedCall,
    inputs: { positive: UNetConditioning; negative: UNetConditioning; extraChannels?: Tensor | undefined },
  ): Predict {
    const { unet } = this.components
    const { scheduler, guidanceScale, forecast, latentShape, signal } = job
    const channels = latentShape[1]!
    type Inputs = UNetConditioning & { sample: Tensor; timestep: Tensor }
    const run = inParts(async (inputs: Inputs) => (await unet.run('forward', inputs, { signal })).sample)
    const model =
      (conditioning: UNetConditioning, extraChannels: Tensor | undefined): Predict =>
      async (latents, { timestep }) => {
        const sample = extraChannels ? concatChannels([latents, extraChannels]) : latents
        const output = await run({ ...conditioning, sample, timestep: Tensor.scalar(timestep) })
        return keepVariance(output, channels, scheduler.learnsVariance)
      }
    const { positive, extraChannels } = inputs
    const negative = inputs.negative as Record<string, Tensor>
    const batched = (tensor: Tensor, negative = tensor) => concatRows([negative, tensor])
    const both = () =>
      Object.fromEntries(Object.entries(positive).map(([name, tensor]) => [name, batched(tensor, negative[name])]))
    const alone = model(positive, extraChannels)
    const models = {
      alone,
      both: isGuided(guidanceScale) ? model(both(), extraChannels && batched(extraChannels)) : alone,
    }
    const predict = guided(job, models, (batch) => guideNoise(batch, channels, guidanceScale))
    return forecasting(forecast, scheduler, predict)
  }

  #joinEmbeds(options: Options & Embeds): JoinedEmbeds {
    const { imageEmbeds, negativeImageEmbeds, guidanceScale = this.#defaults.guidanceScale } = options
    const { encoder_hid_dim, cross_attention_dim, addition_embed_type } = this.components.unet.config
    // With text beside the image, encoder_hid_dim is the text's.
    const dimensions = Number(addition_embed_type === 'text_image' ? cross_attention_dim : encoder_hid_dim)
    const join = (name: string, value: Tensor | Tensor[]) => {
      const parts = Array.isArray(value) ? value : [value]
      if (parts.length === 0) throw invalid(name, 'a Tensor or a non-empty array of them', value)
      return concatRows(parts.map((part) => expectTensor(name, part, [null, dimensions])))
    }
    const positive = join('imageEmbeds', imageEmbeds)
    if (!isGuided(guidanceScale)) return { imageEmbeds: positive }
    const negative = join('negativeImageEmbeds', negativeImageEmbeds)
    return {
      imageEmbeds: positive,
      negativeImageEmbeds: expectTensor('negativeImageEmbeds', negative, positive.shape),
    }
  }
}

/** A UNet may predict the variance, too, behind the noise; schedulers that did not learn to use it do not see it. */
function keepVariance(output: Tensor, channels: number, learnsVariance: boolean): Tensor {
  const all = output.shape[1]!
  if (all !== channels && all !== 2 * channels)
    throw new KandinskyError(
      'UNSUPPORTED_MODEL',
      `Expected a UNet with ${channels} or ${2 * channels} output channels but this one has ${all}`,
    )
  return all === channels || learnsVariance ? output : splitChannels(output, channels)[0]
}

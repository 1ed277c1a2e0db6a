// The options of every call that makes pictures, checked once.
import { invalid } from '../../errors.js'
import type { RawImage } from '../../images/image.js'
import type { Recipe } from '../../images/recipe.js'
import type { WeightType } from '../../native.js'
import type { RandomSource } from '../../random.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import type { Tensor } from '../../tensor.js'
import {
  expectBoolean,
  expectInteger,
  expectNoise,
  expectNumber,
  expectOneOf,
  maxImages,
  maxSide,
  type NoiseOptions,
} from '../call/options.js'
import { type CallOptions, callOptionNames, checkCallOptions } from '../call/progress.js'
import { type ModelIdentity, type NoiseOrigins, originsOf } from '../call/provenance.js'
import { type Autoencoder, latentChannels, latentSide, movqScaleFactor, type OutputType } from './autoencoder.js'
import { checkForecast, type Forecast, type ForecastOption } from './forecast.js'
import type { GuidanceInterval } from './guidance.js'

export interface DecodingOptions extends CallOptions, NoiseOptions {
  /**
   * pixels, default 512; rounded up to a multiple of 64. A checkpoint may have defaults of its own for this and the
   * next three (generation_config.json)
   */
  height?: number | undefined
  width?: number | undefined
  /** denoising steps, default 100 */
  numInferenceSteps?: number | undefined
  /** classifier-free guidance, off up to 1; default 4 */
  guidanceScale?: number | undefined
  /**
   * the part of the run that is guided, as two fractions of its steps; default [0, 1]. Elsewhere only the conditional half
   * is computed, which takes half the time
   */
  guidanceInterval?: GuidanceInterval | undefined
  /**
   * compute the network only at some steps and forecast its prediction at the others; default: all are computed. See
   * `Forecast`; not with Heun, PNDM, LCM and runs of less than 8 steps
   */
  forecast?: ForecastOption | undefined
  /** pictures per embedding, default 1 */
  numImagesPerPrompt?: number | undefined
  /** `image`: RawImage; `float`: Tensor [n, height, width, 3] in 0..1; `latent`: Tensor [n, 4, h, w]. Default `image` */
  outputType?: OutputType | undefined
  /** step events carry small pictures of the state so far; default false */
  preview?: boolean | undefined
}

export const decodingOptionNames = [
  ...Object.keys({
    height: true,
    width: true,
    numInferenceSteps: true,
    guidanceScale: true,
    guidanceInterval: true,
    forecast: true,
    numImagesPerPrompt: true,
    seed: true,
    generator: true,
    outputType: true,
    preview: true,
  } satisfies Record<Exclude<keyof DecodingOptions, keyof CallOptions>, true>),
  ...callOptionNames,
]

/** `images` is RawImage[] for `image`, one Tensor for `float` and `latent`. */
export interface ImageResult<Images = RawImage[]> {
  images: Images
}
export type ImagesOf<Options> = Options extends { outputType: 'float' | 'latent' }
  ? Tensor
  : Options extends { outputType: OutputType }
    ? RawImage[] | Tensor
    : RawImage[]

/** The options of a call with defaults. */
export interface CheckedCall extends CallOptions {
  /** embeddings and pictures per embedding */
  embeddings: number
  count: number
  /** of the pictures, in pixels; multiples of 64 */
  height: number
  width: number
  /** [embeddings * count, channels, h, w] */
  latentShape: readonly number[]
  steps: number
  guidanceScale: number
  guidanceInterval: GuidanceInterval
  forecast: Required<Forecast> | undefined
  generator: RandomSource | RandomSource[]
  /** for the recipes */
  origins: NoiseOrigins
  outputType: OutputType
  preview: boolean
  /** this call's own, its timesteps set */
  scheduler: Scheduler
}

/** What a pipeline and its checkpoint say where a call says nothing. */
export interface DecodingDefaults {
  height: number
  width: number
  numInferenceSteps: number
  guidanceScale: number
}

/**
 * @param defaults the reference's, with the checkpoint's own laid over them
 * @throws KandinskyError `INVALID_ARGUMENT`
 */
export function checkDecoding(
  options: DecodingOptions,
  embeddings: number,
  { movq, scheduler: own }: { movq: Pick<Autoencoder, 'config'>; scheduler: Scheduler },
  defaults: DecodingDefaults,
): CheckedCall {
  const count = expectInteger('numImagesPerPrompt', options.numImagesPerPrompt ?? 1, 1, maxImages)
  const factor = movqScaleFactor(movq)
  const side = (name: 'height' | 'width') =>
    latentSide(expectInteger(name, options[name] ?? defaults[name], 1, maxSide), factor)
  const [h, w] = [side('height'), side('width')]
  const steps = expectInteger('numInferenceSteps', options.numInferenceSteps ?? defaults.numInferenceSteps, 1, 1000)
  const scheduler = own.clone()
  scheduler.setTimesteps(steps)
  const generator = expectNoise(options, embeddings * count)
  return {
    ...checkCallOptions(options),
    ...{ embeddings, count, steps, scheduler },
    ...{ height: h * factor, width: w * factor, latentShape: [embeddings * count, latentChannels(movq), h, w] },
    guidanceScale: expectNumber('guidanceScale', options.guidanceScale ?? defaults.guidanceScale),
    guidanceInterval: expectInterval(options.guidanceInterval ?? [0, 1]),
    forecast: checkForecast(options.forecast, scheduler),
    ...{ generator, origins: originsOf(generator) },
    outputType: expectOneOf('outputType', options.outputType ?? 'image', ['image', 'float', 'latent']),
    preview: expectBoolean('preview', options.preview ?? false),
  }
}

function expectInterval(value: unknown): GuidanceInterval {
  const [from, to] = Array.isArray(value) && value.length === 2 ? (value as unknown[]) : []
  const isFraction = (part: unknown): part is number => typeof part === 'number' && part >= 0 && part <= 1
  if (!isFraction(from) || !isFraction(to) || from > to)
    throw invalid('guidanceInterval', '[from, to] with 0 <= from <= to <= 1', value)
  return [from, to]
}

/** What a call says of every picture that it makes. */
export function decodingRecipe(
  { scheduler, steps, guidanceScale, guidanceInterval, forecast }: CheckedCall,
  unet: { device: string; weights: WeightType | undefined },
  model: ModelIdentity | undefined,
): Recipe {
  return {
    scheduler: scheduler.constructor.name,
    schedulerConfig: JSON.parse(JSON.stringify(scheduler.config)), // without what tells given values from defaults
    numInferenceSteps: steps,
    guidanceScale,
    ...((guidanceInterval[0] > 0 || guidanceInterval[1] < 1) && { guidanceInterval: [...guidanceInterval] }),
    ...(forecast && { forecast: { ...forecast } }),
    ...{ model: model?.name, modelHash: model?.hash, weights: unet.weights, device: unet.device },
  }
}

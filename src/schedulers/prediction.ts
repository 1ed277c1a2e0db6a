// From a model output to the clean sample it implies, and the limits put on that: shared by all schedulers.
import { invalid, KandinskyError } from '../errors.js'
import { splitChannels, Tensor } from '../tensor.js'
import { flag, number } from './config.js'
import { checkShape, type Mixture } from './scheduler.js'

export type PredictionType = 'epsilon' | 'sample' | 'v_prediction'

export const dynamicThresholdFields = {
  thresholding: flag(false),
  dynamic_thresholding_ratio: number(0.995, 0, 1),
  sample_max_value: number(1, 0),
}

export const thresholdFields = {
  clip_sample: flag(true),
  clip_sample_range: number(1, 0),
  ...dynamicThresholdFields,
}

interface ClipConfig {
  readonly clip_sample: boolean
  readonly clip_sample_range: number
}

interface DynamicThresholdConfig {
  readonly thresholding: boolean
  readonly dynamic_thresholding_ratio: number
  readonly sample_max_value: number
}

type ThresholdConfig = ClipConfig & DynamicThresholdConfig

export interface ModelPrediction {
  readonly prediction: Float32Array
  /** present if the model learned the variance */
  readonly variance?: Float32Array
}

/**
 * Checks the model output and separates the variance channels of a model that learned them; they lie after the sample's.
 *
 * @throws KandinskyError `SHAPE_MISMATCH`
 */
export function splitModelOutput(modelOutput: Tensor, sample: Tensor, learnsVariance: boolean): ModelPrediction {
  if (!(sample instanceof Tensor) || sample.shape.length < 2)
    throw invalid('sample', 'a Tensor [batch, channels, ...]', sample)
  const [batch, channels, ...size] = sample.shape as [number, number, ...number[]]
  checkShape('modelOutput', modelOutput, [batch, learnsVariance ? 2 * channels : channels, ...size])
  if (!learnsVariance) return { prediction: modelOutput.data }
  const [prediction, variance] = splitChannels(modelOutput, channels)
  return { prediction: prediction.data, variance: variance.data }
}

/** The clean sample that `prediction` implies for a variance-preserving `sample` of this mixture. */
export function predictOriginal(
  type: PredictionType,
  prediction: Float32Array,
  sample: Float32Array,
  { signal, noise }: Mixture,
): Float32Array {
  switch (type) {
    case 'epsilon':
      return sample.map((x, i) => Math.fround(x - Math.fround(noise * prediction[i]!)) / signal)
    case 'sample':
      return prediction.slice()
    case 'v_prediction':
      return sample.map((x, i) => Math.fround(signal * x) - Math.fround(noise * prediction[i]!))
  }
}

/** The noise that `prediction` implies. */
export function predictEpsilon(
  type: PredictionType,
  prediction: Float32Array,
  sample: Float32Array,
  { signal, noise }: Mixture,
): Float32Array {
  switch (type) {
    case 'epsilon':
      return prediction
    case 'sample':
      return sample.map((x, i) => Math.fround(x - Math.fround(signal * prediction[i]!)) / noise)
    case 'v_prediction':
      return sample.map((x, i) => Math.fround(signal * prediction[i]!) + Math.fround(noise * x))
  }
}

/** Thresholds or clips `original` in place, as the config says. */
export function limitOriginal(original: Float32Array, batch: number, config: ThresholdConfig): void {
  if (config.thresholding) thresholdDynamically(original, batch, config)
  else clipOriginal(original, config)
}

export function clipOriginal(original: Float32Array, { clip_sample, clip_sample_range: range }: ClipConfig): void {
  if (!clip_sample) return
  for (let i = 0; i < original.length; i++) original[i] = clamp(original[i]!, range)
}

/**
 * Clamps each batch entry to a quantile of its magnitudes (at least 1, at most `sample_max_value`), then scales that
 * quantile to 1: Saharia et al., "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding", 2022.
 */
export function thresholdDynamically(original: Float32Array, batch: number, config: DynamicThresholdConfig): void {
  const rowLength = original.length / batch
  for (let row = 0; row < batch; row++) {
    const values = original.subarray(row * rowLength, (row + 1) * rowLength)
    const quantile = quantile32(values.map(Math.abs), config.dynamic_thresholding_ratio)
    const range = Math.fround(Math.min(Math.max(quantile, 1), config.sample_max_value))
    for (let i = 0; i < values.length; i++) values[i] = clamp(values[i]!, range) / range
  }
}

/** torch.quantile with linear interpolation, in float32. */
function quantile32(values: Float32Array, q: number): number {
  const sorted = values.sort()
  const rank = Math.fround(Math.fround(q) * (sorted.length - 1))
  const below = Math.floor(rank)
  const weight = Math.fround(rank - below)
  const low = sorted[below]!
  const high = sorted[Math.ceil(rank)]!
  const difference = Math.fround(high - low)
  // torch.lerp counts from the nearer end
  return weight < 0.5
    ? Math.fround(low + Math.fround(weight * difference))
    : Math.fround(high - Math.fround(difference * Math.fround(1 - weight)))
}

function clamp(value: number, range: number): number {
  return Math.min(Math.max(value, -range), range)
}

/**
 * Nothing of the signal is left where a schedule rescaled to zero terminal SNR ends; predicted noise then says nothing
 * about the clean sample (the reference divides by zero).
 */
export function checkSignal(
  alphaCumprod: number,
  config: ThresholdConfig & { readonly prediction_type: PredictionType },
): void {
  if (alphaCumprod > 0 || config.prediction_type !== 'epsilon' || config.clip_sample || config.thresholding) return
  throw new KandinskyError(
    'INVALID_ARGUMENT',
    'Expected sample or v_prediction for prediction_type with rescale_betas_zero_snr at the last training timestep but received "epsilon"',
  )
}

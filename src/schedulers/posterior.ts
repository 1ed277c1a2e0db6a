// The Gaussian q(x_prev | x_t, x_0) that DDPM and UnCLIP sample from: Ho et al., "Denoising Diffusion Probabilistic
// Models", 2020, formulas 6 and 7.
import { invalid, KandinskyError } from '../errors.js'
import { randnTensor } from '../random.js'
import type { Tensor } from '../tensor.js'
import { checkShape, type StepOptions, sqrt32 } from './scheduler.js'

/** One step back. `alpha` and `beta` are those of the step, which may skip training timesteps. */
export interface Transition {
  readonly alphaCumprod: number
  readonly alphaCumprodPrev: number
  readonly alpha: number
  readonly beta: number
}

/** The step's alpha and beta as the ratio of the cumulative ones. */
export function transition(alphaCumprod: number, alphaCumprodPrev: number): Transition {
  const alpha = Math.fround(alphaCumprod / alphaCumprodPrev)
  return { alphaCumprod, alphaCumprodPrev, alpha, beta: Math.fround(1 - alpha) }
}

export function posteriorMean(original: Float32Array, sample: Float32Array, step: Transition): Float32Array {
  const noiseVariance = Math.fround(1 - step.alphaCumprod)
  const noiseVariancePrev = Math.fround(1 - step.alphaCumprodPrev)
  const originalWeight = Math.fround(Math.fround(sqrt32(step.alphaCumprodPrev) * step.beta) / noiseVariance)
  const sampleWeight = Math.fround(Math.fround(sqrt32(step.alpha) * noiseVariancePrev) / noiseVariance)
  return original.map((x0, i) => Math.fround(originalWeight * x0) + Math.fround(sampleWeight * sample[i]!))
}

export function posteriorVariance(step: Transition): number {
  const ratio = Math.fround(Math.fround(1 - step.alphaCumprodPrev) / Math.fround(1 - step.alphaCumprod))
  return Math.fround(ratio * step.beta)
}

/** Where a logarithm follows, the reference keeps variances above this. */
export const MIN_VARIANCE = Math.fround(1e-20)

/** Standard deviation by way of the logarithm, as the `_log` variance types take it. */
export function stdByLog(variance: number): number {
  return Math.fround(Math.exp(Math.fround(0.5 * Math.fround(Math.log(variance)))))
}

/**
 * Standard deviations for `learned_range`: the model's -1..1 interpolates between two log variances (Nichol and
 * Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, formula 15).
 */
export function interpolatedStd(learned: Float32Array, minVariance: number, maxVariance: number): Float32Array {
  const minLog = Math.fround(Math.log(minVariance))
  const maxLog = Math.fround(Math.log(maxVariance))
  return learned.map((v) => {
    const fraction = Math.fround(Math.fround(v + 1) / 2)
    const log = Math.fround(Math.fround(fraction * maxLog) + Math.fround(Math.fround(1 - fraction) * minLog))
    return Math.exp(Math.fround(0.5 * log))
  })
}

/** Adds `std` times one draw of the sample's shape to `mean`, in place. */
export function addNoiseTerm(
  mean: Float32Array,
  std: number | Float32Array,
  shape: readonly number[],
  { generator, dtype }: StepOptions,
): void {
  const noise = drawNoise(shape, generator, dtype)
  const factor = typeof std === 'number' ? () => std : (i: number) => std[i]!
  for (let i = 0; i < mean.length; i++) mean[i] = mean[i]! + Math.fround(factor(i) * noise.data[i]!)
}

/** There is no global generator to fall back on, so that every draw can be repeated. */
export function drawNoise(
  shape: readonly number[],
  generator: StepOptions['generator'],
  dtype: StepOptions['dtype'],
): Tensor {
  if (generator === undefined) throw invalid('generator', 'a generator, because this step draws noise,', generator)
  return randnTensor(shape, generator, dtype)
}

/** Noise that the caller brings in place of a draw. */
export function givenNoise(noise: Tensor, shape: readonly number[], generator: StepOptions['generator']): Tensor {
  if (generator !== undefined)
    throw new KandinskyError('INVALID_ARGUMENT', 'Expected either generator or varianceNoise but received both')
  checkShape('varianceNoise', noise, shape)
  return noise
}

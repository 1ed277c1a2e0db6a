// Noise levels: sigma = noise / signal of a sample, the time in which the solvers of ordinary differential equations
// count. Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022. The reference is
// `set_timesteps` of diffusers' scheduling_euler_discrete.py and scheduling_dpmsolver_multistep.py.
//
// Easy to get wrong: the training table is float32 and so are its logarithms, while everything between two entries is
// computed in double; the timesteps that belong to sigmas are fractions, which some classes round and others truncate.
import { invalid, KandinskyError } from '../errors.js'
import { flag, only } from './config.js'
import { type Mixture, sqrt32 } from './scheduler.js'

/** `use_beta_sigmas` would need the inverse of the incomplete beta function, for which the reference calls scipy. */
export const sigmaFields = {
  use_karras_sigmas: flag(false),
  use_exponential_sigmas: flag(false),
  use_beta_sigmas: only(false),
}

interface SigmaConfig {
  readonly use_karras_sigmas: boolean
  readonly use_exponential_sigmas: boolean
  readonly use_lu_lambdas?: boolean
}

/** @throws KandinskyError `INVALID_ARGUMENT` if more than one way to space sigmas is chosen */
export function checkSigmaConfig(config: SigmaConfig): void {
  const keys = ['use_karras_sigmas', 'use_exponential_sigmas', 'use_lu_lambdas'] as const
  const chosen = keys.filter((key) => config[key])
  if (chosen.length > 1)
    throw new KandinskyError('INVALID_ARGUMENT', `Expected true for at most one of ${chosen.join(', ')}`)
}

/** Sigma of every training timestep, ascending. */
export function trainingSigmas(alphasCumprod: Float32Array): Float32Array {
  return alphasCumprod.map((alpha) => sqrt32(Math.fround(Math.fround(1 - alpha) / alpha)))
}

/** Sigma at a timestep that may lie between two training timesteps. */
export function sigmaAt(timestep: number, trainSigmas: Float32Array): number {
  const below = Math.floor(timestep)
  const low = trainSigmas[below]!
  return below === timestep ? low : low + (timestep - below) * (trainSigmas[below + 1]! - low)
}

/** The inverse of `sigmaAt`, but interpolated between logarithms; sigmas outside the table give its ends. */
export function timestepAt(sigma: number, logSigmas: Float32Array): number {
  const logSigma = Math.log(Math.max(sigma, 1e-10))
  const found = logSigmas.findLastIndex((log) => log <= logSigma)
  const below = Math.min(Math.max(found, 0), logSigmas.length - 2)
  const low = logSigmas[below]!
  const weight = (low - logSigma) / Math.fround(low - logSigmas[below + 1]!)
  const above = Math.min(Math.max(weight, 0), 1)
  return (1 - above) * below + above * (below + 1)
}

/**
 * `count` sigmas from `max` down to `min` in the spacing that the config names, or undefined where it leaves them to the
 * timesteps.
 */
export function spacedSigmas(config: SigmaConfig, max: number, min: number, count: number): number[] | undefined {
  if (max < min) throw invalid('sigma_max', `at least ${min}, the smallest sigma,`, max)
  if (config.use_karras_sigmas) return evenly(max ** (1 / RHO), min ** (1 / RHO), count).map((root) => root ** RHO)
  if (config.use_exponential_sigmas) return evenly(Math.log(max), Math.log(min), count).map(Math.exp)
  if (config.use_lu_lambdas) return evenly(Math.fround(Math.log(max)), Math.fround(Math.log(min)), count).map(Math.exp)
  return undefined
}

/** Karras et al., table 1: larger values put more of the steps near the clean sample. */
const RHO = 7

function evenly(first: number, last: number, count: number): number[] {
  const step = count > 1 ? (last - first) / (count - 1) : 0
  return Array.from({ length: count }, (_, i) => (i > 0 && i === count - 1 ? last : first + i * step))
}

/** The variance-preserving mixture with this sigma. */
export function mixtureOfSigma(sigma: number): Mixture {
  const signal = Math.fround(1 / sqrt32(Math.fround(Math.fround(sigma * sigma) + 1)))
  return { signal, noise: Math.fround(sigma * signal) }
}

/** Sum of the arrays with their weights, rounded to float32 once. */
export function weightedSum(...terms: readonly (readonly [number, Float32Array])[]): Float32Array {
  const sum = new Float64Array(terms[0]![1].length)
  for (const [weight, values] of terms) for (let i = 0; i < sum.length; i++) sum[i]! += weight * values[i]!
  return Float32Array.from(sum)
}

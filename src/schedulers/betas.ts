// The tables of a variance-preserving diffusion in the float32 arithmetic of torch, whose rounding they keep.
import { invalid } from '../errors.js'
import { betaArray, flag, integer, number } from './config.js'

export type BetaSchedule = 'linear' | 'scaled_linear' | 'squaredcos_cap_v2' | 'laplace' | 'sigmoid' | 'exp'

/** A table of betas has this many entries, and every step looks some of them up; all published models have 1000. */
export const MAX_TRAIN_TIMESTEPS = 100_000

/** The config keys that choose a beta table, with the defaults that most classes share. */
export const plainBetaFields = {
  num_train_timesteps: integer(1000, 1, MAX_TRAIN_TIMESTEPS),
  beta_start: number(0.0001, 0, 1),
  beta_end: number(0.02, 0, 1),
  trained_betas: betaArray(),
}

export const betaFields = { ...plainBetaFields, rescale_betas_zero_snr: flag(false) }

export interface BetaConfig {
  readonly num_train_timesteps: number
  readonly beta_schedule: BetaSchedule
  readonly beta_start: number
  readonly beta_end: number
  readonly trained_betas: readonly number[] | null
  readonly rescale_betas_zero_snr?: boolean
}

/**
 * Beta of every training timestep.
 *
 * Source: the constructors of diffusers' scheduling_ddpm.py and scheduling_ddim.py.
 */
export function makeBetas(config: BetaConfig): Float32Array {
  const betas = config.trained_betas === null ? scheduledBetas(config) : Float32Array.from(config.trained_betas)
  if (betas.length < config.num_train_timesteps)
    throw invalid('trained_betas', `${config.num_train_timesteps} numbers (num_train_timesteps)`, config.trained_betas)
  return config.rescale_betas_zero_snr ? rescaleZeroTerminalSnr(betas) : betas
}

function scheduledBetas({ num_train_timesteps: n, beta_schedule, beta_start, beta_end }: BetaConfig): Float32Array {
  switch (beta_schedule) {
    case 'linear':
      return linspace(beta_start, beta_end, n)
    case 'scaled_linear':
      return linspace(Math.sqrt(beta_start), Math.sqrt(beta_end), n).map((root) => root * root)
    case 'squaredcos_cap_v2':
      return betasForAlphaBar(n, cosineAlphaBar)
    case 'exp':
      return betasForAlphaBar(n, (time) => Math.exp(-12 * time))
    case 'laplace':
      return betasForAlphaBar(n, laplaceAlphaBar)
    case 'sigmoid': {
      const range = Math.fround(beta_end - beta_start)
      const sigmoid = linspace(-6, 6, n).map((x) => 1 / (1 + Math.exp(-x)))
      return sigmoid.map((x) => Math.fround(x * range) + Math.fround(beta_start))
    }
  }
}

/** torch.linspace in float32: both halves count from their own end, with fused multiply-add. */
export function linspace(start: number, end: number, count: number): Float32Array {
  const first = Math.fround(start)
  const last = Math.fround(end)
  const step = count > 1 ? Math.fround(Math.fround(last - first) / (count - 1)) : 0
  return Float32Array.from({ length: count }, (_, i) =>
    i < Math.floor(count / 2) || count === 1 ? first + step * i : last - step * (count - 1 - i),
  )
}

/** Betas whose cumulative product follows `alphaBar` (a function of time in 0..1), capped at 0.999. */
export function betasForAlphaBar(count: number, alphaBar: (time: number) => number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) =>
    Math.min(1 - alphaBar((i + 1) / count) / alphaBar(i / count), 0.999),
  )
}

/** Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021. */
export function cosineAlphaBar(time: number): number {
  return Math.cos((((time + 0.008) / 1.008) * Math.PI) / 2) ** 2
}

function laplaceAlphaBar(time: number): number {
  const sign = time <= 0.5 ? 1 : -1
  const snr = Math.exp(-0.5 * sign * Math.log(1 - 2 * Math.abs(0.5 - time) + 1e-6))
  return Math.sqrt(snr / (1 + snr))
}

/** torch.cumprod of 1 - beta: float32 factors and results, accumulated in double. */
export function cumulativeAlphas(betas: Float32Array): Float32Array {
  let product = 1
  return betas.map((beta) => {
    product *= Math.fround(1 - beta)
    return product
  })
}

/**
 * Shifts and scales sqrt(alpha bar) so that nothing of the signal is left at the last timestep.
 *
 * Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023, algorithm 1.
 */
function rescaleZeroTerminalSnr(betas: Float32Array): Float32Array {
  const roots = cumulativeAlphas(betas).map(Math.sqrt)
  const first = roots[0]!
  const last = roots.at(-1)!
  const scale = Math.fround(first / Math.fround(first - last))
  const alphasCumprod = roots.map((root) => {
    const shifted = Math.fround(Math.fround(root - last) * scale)
    return shifted * shifted
  })
  return alphasCumprod.map((value, i) => 1 - (i === 0 ? value : Math.fround(value / alphasCumprod[i - 1]!)))
}

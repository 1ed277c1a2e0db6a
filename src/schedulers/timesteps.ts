// Which training timesteps an inference run visits, with numpy's rounding.

import { invalid } from '../errors.js'
import { roundHalfEven } from '../math.js'
import { integer, oneOf } from './config.js'

export type TimestepSpacing = 'linspace' | 'leading' | 'trailing'

export const spacingFields = {
  timestep_spacing: oneOf('leading', ['linspace', 'leading', 'trailing']),
  steps_offset: integer(0, 0),
}

/** `spacingFields` of the classes that work on noise levels. */
export const linspaceFields = {
  ...spacingFields,
  timestep_spacing: oneOf('linspace', ['linspace', 'leading', 'trailing']),
}

interface SpacingConfig {
  readonly num_train_timesteps: number
  readonly timestep_spacing: TimestepSpacing
  readonly steps_offset: number
}

/** @throws KandinskyError `INVALID_ARGUMENT` unless `numInferenceSteps` is an integer from 1 to `numTrainTimesteps` */
export function checkStepCount(numInferenceSteps: number, numTrainTimesteps: number): void {
  if (!Number.isSafeInteger(numInferenceSteps) || numInferenceSteps < 1 || numInferenceSteps > numTrainTimesteps)
    throw invalid('numInferenceSteps', `an integer from 1 to ${numTrainTimesteps}`, numInferenceSteps)
}

/**
 * Descending timesteps in the spacings of table 2 of Lin et al., "Common Diffusion Noise Schedules and Sample Steps are
 * Flawed", 2023. Where numpy's floating-point arange gives the reference one timestep too many, -1 (trailing, among
 * others 61 steps of 1000), this gives the steps asked for.
 *
 * Source: `set_timesteps` of diffusers' scheduling_ddpm.py and scheduling_ddim.py.
 *
 * @throws KandinskyError `INVALID_ARGUMENT` when the count is out of range or `steps_offset` leaves the training range
 */
export function spacedTimesteps(config: SpacingConfig, count: number): number[] {
  const { num_train_timesteps: total, timestep_spacing, steps_offset } = config
  checkStepCount(count, total)
  const indices = Array.from({ length: count }, (_, i) => i)
  switch (timestep_spacing) {
    case 'linspace':
      return evenTimesteps(total, count, 0)
    case 'leading': {
      const ratio = Math.floor(total / count)
      checkOffset(steps_offset, total - 1 - (count - 1) * ratio, count)
      return indices.map((i) => i * ratio + steps_offset).reverse()
    }
    case 'trailing':
      return trailingTimesteps(total, total, count)
  }
}

/**
 * Timesteps of the multistep solvers, which reach the clean sample from the last timestep without visiting 0: of
 * count + 1 even ones the noisiest.
 *
 * Source: `set_timesteps` of diffusers' scheduling_dpmsolver_multistep.py and scheduling_unipc_multistep.py.
 *
 * @param end the timestep behind the noisiest; below `num_train_timesteps`, trailing ones may become fewer than `count`
 * @throws KandinskyError `INVALID_ARGUMENT` as for `spacedTimesteps`, and where timesteps would repeat
 */
export function multistepTimesteps(config: SpacingConfig, count: number, end: number): number[] {
  const { num_train_timesteps: total, timestep_spacing, steps_offset } = config
  checkStepCount(count, timestep_spacing === 'trailing' ? total : end - 1)
  switch (timestep_spacing) {
    case 'linspace':
      return evenTimesteps(end, count + 1, 0).slice(0, -1)
    case 'leading': {
      const ratio = Math.floor(end / (count + 1))
      checkOffset(steps_offset, total - 1 - count * ratio, count)
      return Array.from({ length: count }, (_, i) => (count - i) * ratio + steps_offset)
    }
    case 'trailing':
      return trailingTimesteps(total, end, count)
  }
}

/** Like `spacedTimesteps`, but linspace is not rounded: float32 fractions. */
export function fractionalTimesteps(config: SpacingConfig, count: number): number[] {
  const last = config.num_train_timesteps - 1
  if (config.timestep_spacing !== 'linspace' || count === 1) return spacedTimesteps(config, count)
  checkStepCount(count, last + 1)
  const ratio = last / (count - 1)
  return Array.from({ length: count }, (_, i) => Math.fround(i === 0 ? last : (count - 1 - i) * ratio))
}

function trailingTimesteps(total: number, end: number, count: number): number[] {
  const ratio = total / count
  // numpy's arange multiplies the rounded difference of its first two values
  const delta = end - ratio - end
  const length = Math.min(count, Math.ceil(end / ratio))
  return Array.from({ length }, (_, i) => roundHalfEven(end + i * delta) - 1)
}

function checkOffset(offset: number, room: number, count: number): void {
  if (offset > room) throw invalid('steps_offset', `at most ${room} with ${count} inference steps`, offset)
}

/** `count` timesteps evenly from `total - 1` down to 0, both included; `single` is what one step gives. */
export function evenTimesteps(total: number, count: number, single: number): number[] {
  if (count === 1) return [single]
  const ratio = (total - 1) / (count - 1)
  return Array.from({ length: count }, (_, i) => roundHalfEven((count - 1 - i) * ratio))
}

// Which training timesteps an inference run visits, with numpy's rounding.
import { invalid } from '../errors.js'
import { integer, oneOf } from './config.js'

export type TimestepSpacing = 'linspace' | 'leading' | 'trailing'

export const spacingFields = {
  timestep_spacing: oneOf('leading', ['linspace', 'leading', 'trailing']),
  steps_offset: integer(0, 0),
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
      const room = total - 1 - (count - 1) * ratio
      if (steps_offset > room)
        throw invalid('steps_offset', `at most ${room} with ${count} inference steps`, steps_offset)
      return indices.map((i) => i * ratio + steps_offset).reverse()
    }
    case 'trailing': {
      // numpy's arange multiplies the rounded difference of its first two values
      const delta = total - total / count - total
      return indices.map((i) => roundHalfEven(total + i * delta) - 1)
    }
  }
}

/** `count` timesteps evenly from `total - 1` down to 0, both included; `single` is what one step gives. */
export function evenTimesteps(total: number, count: number, single: number): number[] {
  if (count === 1) return [single]
  const ratio = (total - 1) / (count - 1)
  return Array.from({ length: count }, (_, i) => roundHalfEven((count - 1 - i) * ratio))
}

/** Adding 1.5 * 2^52 makes the double itself round to whole numbers, halves to even ones. */
function roundHalfEven(value: number): number {
  return value + 1.5 * 2 ** 52 - 1.5 * 2 ** 52
}

// DDPM: Ho et al., "Denoising Diffusion Probabilistic Models", 2020. The reference is diffusers' scheduling_ddpm.py.
//
// Easy to get wrong: the last step of a run whose timesteps end above 0 (steps_offset) still draws noise, scaled by
// 1e-10 or less; leaving the draw out would shift every later draw of the generator.
import { invalid } from '../errors.js'
import { Tensor } from '../tensor.js'
import { betaFields } from './betas.js'
import { type ConfigOf, oneOf } from './config.js'
import {
  addNoiseTerm,
  interpolatedStd,
  MIN_VARIANCE,
  posteriorMean,
  posteriorVariance,
  stdByLog,
  type Transition,
  transition,
} from './posterior.js'
import { checkSignal, limitOriginal, predictOriginal, splitModelOutput, thresholdFields } from './prediction.js'
import {
  DiscreteScheduler,
  fromConfigOf,
  mixture,
  type Scheduler,
  type StepOptions,
  type StepOutput,
  sqrt32,
} from './scheduler.js'
import { spacedTimesteps, spacingFields } from './timesteps.js'

export const VARIANCE_TYPES = [
  'fixed_small',
  'fixed_small_log',
  'fixed_large',
  'fixed_large_log',
  'learned',
  'learned_range',
] as const

const FIELDS = {
  ...betaFields,
  beta_schedule: oneOf('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2', 'laplace', 'sigmoid']),
  variance_type: oneOf('fixed_small', VARIANCE_TYPES),
  prediction_type: oneOf('epsilon', ['epsilon', 'sample', 'v_prediction']),
  ...thresholdFields,
  ...spacingFields,
}

export type DDPMSchedulerConfig = ConfigOf<typeof FIELDS>

export class DDPMScheduler extends DiscreteScheduler<DDPMSchedulerConfig> implements Scheduler {
  static readonly fields = FIELDS
  static readonly fromConfig = fromConfigOf<DDPMScheduler, DDPMSchedulerConfig>(() => DDPMScheduler)

  override get learnsVariance(): boolean {
    return this.config.variance_type === 'learned' || this.config.variance_type === 'learned_range'
  }

  /**
   * @param steps number of inference steps, or the timesteps themselves: integers, descending
   * @throws KandinskyError `INVALID_ARGUMENT`
   */
  setTimesteps(steps: number | readonly number[]): void {
    this.timesteps = typeof steps === 'number' ? spacedTimesteps(this.config, steps) : this.#checkedTimesteps(steps)
  }

  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const prev = this.prevTimestep(timestep, options.prevTimestep, this.nextTimestep(timestep))
    const { prediction, variance } = splitModelOutput(modelOutput, sample, this.learnsVariance)
    const step = transition(this.alphasCumprod[timestep]!, prev >= 0 ? this.alphasCumprod[prev]! : 1)
    checkSignal(step.alphaCumprod, this.config)
    const original = predictOriginal(this.config.prediction_type, prediction, sample.data, mixture(step.alphaCumprod))
    limitOriginal(original, sample.shape[0]!, this.config)
    const prevSample = posteriorMean(original, sample.data, step)
    if (timestep > 0) addNoiseTerm(prevSample, this.#std(step, variance), sample.shape, options)
    return {
      prevSample: new Tensor(prevSample, sample.shape),
      predOriginalSample: new Tensor(original, sample.shape),
    }
  }

  /**
   * Standard deviation of the noise. `fixed_large_log` means here what its name says, the same as `fixed_large`; the
   * reference takes the square root of a logarithm and returns NaN.
   */
  #std(step: Transition, learned: Float32Array | undefined): number | Float32Array {
    const small = Math.max(posteriorVariance(step), MIN_VARIANCE)
    switch (this.config.variance_type) {
      case 'fixed_small':
        return sqrt32(small)
      case 'fixed_small_log':
        return stdByLog(small)
      case 'fixed_large':
      case 'fixed_large_log':
        return sqrt32(step.beta)
      case 'learned':
        return learned!.map(Math.sqrt)
      case 'learned_range':
        return interpolatedStd(learned!, small, step.beta)
    }
  }

  #checkedTimesteps(timesteps: readonly number[]): readonly number[] {
    const total = this.config.num_train_timesteps
    const valid =
      Array.isArray(timesteps) &&
      timesteps.length > 0 &&
      timesteps.every((t, i) => Number.isSafeInteger(t) && t >= 0 && t < (i === 0 ? total : timesteps[i - 1]!))
    if (!valid) throw invalid('timesteps', `descending integers from ${total - 1} to 0`, timesteps)
    return timesteps
  }
}

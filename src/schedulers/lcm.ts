// Latent consistency models: Luo et al., "Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step
// Inference", 2023. Every step jumps to a clean sample and adds fresh noise down to the next timestep. It takes a
// network distilled for that. The reference is diffusers' scheduling_lcm.py.
//
// Easy to get wrong: the timesteps are chosen from the `original_inference_steps` of the distillation, so there cannot be
// more of them; and the last step draws no noise.
import { invalid } from '../errors.js'
import { Tensor } from '../tensor.js'
import { betaFields } from './betas.js'
import { type ConfigOf, flag, integer, number, oneOf } from './config.js'
import { drawNoise } from './posterior.js'
import { checkSignal, limitOriginal, predictOriginal, splitModelOutput, thresholdFields } from './prediction.js'
import {
  DiscreteScheduler,
  fromConfigOf,
  mixture,
  type Scheduler,
  type StepOptions,
  type StepOutput,
} from './scheduler.js'
import { weightedSum } from './sigmas.js'
import { checkStepCount, spacingFields } from './timesteps.js'

const FIELDS = {
  ...betaFields,
  beta_start: number(0.00085, 0, 1),
  beta_end: number(0.012, 0, 1),
  beta_schedule: oneOf('scaled_linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2']),
  original_inference_steps: integer(50, 1),
  ...thresholdFields,
  clip_sample: flag(false),
  prediction_type: oneOf('epsilon', ['epsilon', 'sample', 'v_prediction']),
  // part of the config without effect, as in the reference
  set_alpha_to_one: flag(true),
  ...spacingFields,
  timestep_scaling: number(10, 0),
}

export type LCMSchedulerConfig = ConfigOf<typeof FIELDS>

/** standard deviation of the data that the boundary condition assumes */
const SIGMA_DATA = 0.5

export class LCMScheduler extends DiscreteScheduler<LCMSchedulerConfig> implements Scheduler {
  static readonly fields = FIELDS
  static readonly fromConfig = fromConfigOf<LCMScheduler, LCMSchedulerConfig>(() => LCMScheduler)

  static override check(config: LCMSchedulerConfig): void {
    const { original_inference_steps: original, num_train_timesteps: total } = config
    if (original > total) throw invalid('original_inference_steps', `at most ${total} (num_train_timesteps)`, original)
  }

  /** @throws KandinskyError `INVALID_ARGUMENT` unless it is an integer from 1 to `original_inference_steps` */
  override get canForecast(): boolean {
    return false
  }

  setTimesteps(numInferenceSteps: number): void {
    const { original_inference_steps: original, num_train_timesteps: total } = this.config
    checkStepCount(numInferenceSteps, original)
    const distilled = Array.from({ length: original }, (_, i) => (original - i) * Math.floor(total / original) - 1)
    const stride = original / numInferenceSteps
    this.timesteps = Array.from({ length: numInferenceSteps }, (_, i) => distilled[Math.floor(i * stride)]!)
  }

  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const next = this.prevTimestep(timestep, options.prevTimestep, this.nextTimestep(timestep))
    const { prediction } = splitModelOutput(modelOutput, sample, this.learnsVariance)
    const alphaCumprod = this.alphasCumprod[timestep]!
    checkSignal(alphaCumprod, this.config)
    const original = predictOriginal(this.config.prediction_type, prediction, sample.data, mixture(alphaCumprod))
    limitOriginal(original, sample.shape[0]!, this.config)
    const time = timestep * this.config.timestep_scaling
    const variance = time ** 2 + SIGMA_DATA ** 2
    const denoised = weightedSum([time / Math.sqrt(variance), original], [SIGMA_DATA ** 2 / variance, sample.data])
    return {
      prevSample: next < 0 ? new Tensor(denoised, sample.shape) : this.#noised(denoised, sample.shape, next, options),
      predOriginalSample: new Tensor(denoised.slice(), sample.shape),
    }
  }

  #noised(denoised: Float32Array, shape: readonly number[], timestep: number, options: StepOptions): Tensor {
    const { signal, noise } = this.mixtureAt(timestep)
    const drawn = drawNoise(shape, options.generator, options.dtype)
    return new Tensor(weightedSum([signal, denoised], [noise, drawn.data]), shape)
  }
}

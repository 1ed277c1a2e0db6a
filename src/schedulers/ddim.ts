// DDIM: Song et al., "Denoising Diffusion Implicit Models", 2020, formulas 12 and 16. The reference is diffusers'
// scheduling_ddim.py.
//
// Easy to get wrong: the step size is always floor(num_train_timesteps / steps), whatever the spacing of the timesteps,
// and the last step goes to `final_alpha_cumprod`, which is 1 only with set_alpha_to_one.
import { invalid } from '../errors.js'
import { Tensor } from '../tensor.js'
import { betaFields } from './betas.js'
import { type ConfigOf, flag, oneOf } from './config.js'
import { drawNoise, givenNoise, posteriorVariance, transition } from './posterior.js'
import {
  checkSignal,
  limitOriginal,
  predictEpsilon,
  predictOriginal,
  splitModelOutput,
  thresholdFields,
} from './prediction.js'
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

const FIELDS = {
  ...betaFields,
  beta_schedule: oneOf('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2']),
  set_alpha_to_one: flag(true),
  prediction_type: oneOf('epsilon', ['epsilon', 'sample', 'v_prediction']),
  ...thresholdFields,
  ...spacingFields,
}

export type DDIMSchedulerConfig = ConfigOf<typeof FIELDS>

export interface DDIMStepOptions extends StepOptions {
  /** weight of fresh noise: 0 (the default) is deterministic, 1 is as random as DDPM */
  eta?: number
  /** whether the noise to go on with is derived anew from the clipped clean sample; default false */
  useClippedModelOutput?: boolean
  /** noise to use with `eta` instead of a draw, in the shape of the sample */
  varianceNoise?: Tensor
}

export class DDIMScheduler extends DiscreteScheduler<DDIMSchedulerConfig> implements Scheduler {
  /**
   * The reference keeps a DDPM's `variance_type: learned_range` in the config, whereupon its pipelines hand the variance
   * channels to DDIM and fail; here DDIM never asks for them.
   */
  static readonly fields = FIELDS
  static readonly fromConfig = fromConfigOf<DDIMScheduler, DDIMSchedulerConfig>(() => DDIMScheduler)

  setTimesteps(numInferenceSteps: number): void {
    this.timesteps = spacedTimesteps(this.config, numInferenceSteps)
  }

  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: DDIMStepOptions = {}): StepOutput {
    const { eta = 0, useClippedModelOutput = false } = options
    this.nextTimestep(timestep)
    const { prediction } = splitModelOutput(modelOutput, sample, this.learnsVariance)
    const noise = this.#varianceNoise(eta, sample.shape, options)

    const alphaCumprod = this.alphasCumprod[timestep]!
    checkSignal(alphaCumprod, this.config)
    const type = this.config.prediction_type
    const mixed = mixture(alphaCumprod)
    const original = predictOriginal(type, prediction, sample.data, mixed)
    limitOriginal(original, sample.shape[0]!, this.config)
    const epsilon = useClippedModelOutput
      ? predictEpsilon('sample', original, sample.data, mixed)
      : predictEpsilon(type, prediction, sample.data, mixed)

    const alphaCumprodPrev = this.#alphaCumprodPrev(timestep, options.prevTimestep)
    const std = Math.fround(Math.fround(eta) * sqrt32(posteriorVariance(transition(alphaCumprod, alphaCumprodPrev))))
    // rounding can leave a tiny negative number where all of the remaining variance is fresh noise
    const rest = Math.max(Math.fround(Math.fround(1 - alphaCumprodPrev) - Math.fround(std * std)), 0)
    const direction = sqrt32(rest)
    const signal = sqrt32(alphaCumprodPrev)
    const prevSample = original.map((x0, i) => Math.fround(signal * x0) + Math.fround(direction * epsilon[i]!))
    if (noise !== undefined)
      for (let i = 0; i < prevSample.length; i++) prevSample[i] = prevSample[i]! + Math.fround(std * noise.data[i]!)
    return {
      prevSample: new Tensor(prevSample, sample.shape),
      predOriginalSample: new Tensor(original, sample.shape),
    }
  }

  #alphaCumprodPrev(timestep: number, given: number | undefined): number {
    const stride = Math.floor(this.config.num_train_timesteps / this.timesteps.length)
    const prev = this.prevTimestep(timestep, given, timestep - stride)
    if (prev >= 0) return this.alphasCumprod[prev]!
    return this.config.set_alpha_to_one ? 1 : this.alphasCumprod[0]!
  }

  #varianceNoise(eta: number, shape: readonly number[], options: DDIMStepOptions): Tensor | undefined {
    const { generator, dtype, varianceNoise } = options
    if (!Number.isFinite(eta) || eta < 0 || eta > 1) throw invalid('eta', 'a number from 0 to 1', eta)
    if (eta === 0) return undefined
    return varianceNoise === undefined
      ? drawNoise(shape, generator, dtype)
      : givenNoise(varianceNoise, shape, generator)
  }
}

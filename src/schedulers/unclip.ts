// UnCLIP, the priors' scheduler: DDPM with betas computed anew for the timesteps that a step skips. The reference is
// diffusers' scheduling_unclip.py, after Karlo.
//
// Easy to get wrong: timesteps run evenly from num_train_timesteps - 1 to 0, both included, unlike every other
// scheduler's; and only a step to the very next training timestep uses the beta table itself.
import { Tensor } from '../tensor.js'
import { betasForAlphaBar, cosineAlphaBar, MAX_TRAIN_TIMESTEPS } from './betas.js'
import { type ConfigOf, flag, integer, number, oneOf } from './config.js'
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
import { clipOriginal, predictOriginal, splitModelOutput } from './prediction.js'
import {
  DiscreteScheduler,
  fromConfigOf,
  mixture,
  type Scheduler,
  type StepOptions,
  type StepOutput,
} from './scheduler.js'
import { checkStepCount, evenTimesteps } from './timesteps.js'

const FIELDS = {
  num_train_timesteps: integer(1000, 1, MAX_TRAIN_TIMESTEPS),
  variance_type: oneOf('fixed_small_log', ['fixed_small_log', 'learned_range']),
  clip_sample: flag(true),
  clip_sample_range: number(1, 0),
  prediction_type: oneOf('epsilon', ['epsilon', 'sample']),
  beta_schedule: oneOf('squaredcos_cap_v2', ['squaredcos_cap_v2']),
}

export type UnCLIPSchedulerConfig = ConfigOf<typeof FIELDS>

export class UnCLIPScheduler extends DiscreteScheduler<UnCLIPSchedulerConfig> implements Scheduler {
  static readonly fields = FIELDS
  static readonly fromConfig = fromConfigOf<UnCLIPScheduler, UnCLIPSchedulerConfig>(() => UnCLIPScheduler)

  static override makeBetas({ num_train_timesteps }: { num_train_timesteps: number }): Float32Array {
    return betasForAlphaBar(num_train_timesteps, cosineAlphaBar)
  }

  override get learnsVariance(): boolean {
    return this.config.variance_type === 'learned_range'
  }

  /** A single step goes from the noisiest timestep to the clean sample; the reference divides by zero there. */
  setTimesteps(numInferenceSteps: number): void {
    const total = this.config.num_train_timesteps
    checkStepCount(numInferenceSteps, total)
    this.timesteps = evenTimesteps(total, numInferenceSteps, total - 1)
  }

  /**
   * Without `prevTimestep` the step goes to the run's next timestep. The reference goes one training timestep back
   * instead, which differs only where its pipelines give the timestep explicitly.
   */
  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const prev = this.prevTimestep(timestep, options.prevTimestep, this.nextTimestep(timestep))
    const { prediction, variance } = splitModelOutput(modelOutput, sample, this.learnsVariance)
    const step = this.#transition(timestep, prev)
    const original = predictOriginal(this.config.prediction_type, prediction, sample.data, mixture(step.alphaCumprod))
    clipOriginal(original, this.config)
    const prevSample = posteriorMean(original, sample.data, step)
    if (timestep > 0) addNoiseTerm(prevSample, this.#std(step, variance), sample.shape, options)
    return {
      prevSample: new Tensor(prevSample, sample.shape),
      predOriginalSample: new Tensor(original, sample.shape),
    }
  }

  #transition(timestep: number, prev: number): Transition {
    const alphaCumprod = this.alphasCumprod[timestep]!
    const alphaCumprodPrev = prev >= 0 ? this.alphasCumprod[prev]! : 1
    const beta = prev === timestep - 1 ? this.betas[timestep]! : transition(alphaCumprod, alphaCumprodPrev).beta
    return { alphaCumprod, alphaCumprodPrev, alpha: Math.fround(1 - beta), beta }
  }

  #std(step: Transition, learned: Float32Array | undefined): number | Float32Array {
    const small = posteriorVariance(step)
    if (learned === undefined) return stdByLog(Math.max(small, MIN_VARIANCE))
    // unlike DDPM's, the lower end is not kept above MIN_VARIANCE; it is 0 only on the way to the clean sample
    return small === 0 ? 0 : interpolatedStd(learned, small, step.beta)
  }
}

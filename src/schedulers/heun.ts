// Heun: algorithm 1 of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, without
// added noise. The reference is diffusers' scheduling_heun_discrete.py.
//
// Easy to get wrong: every step but the last takes two model calls. The first makes an Euler step; the second, at the
// timestep that it reached, repeats the step from where it began with the mean of both slopes. `timesteps` therefore
// names every timestep but the first twice.
import { Tensor } from '../tensor.js'
import { plainBetaFields } from './betas.js'
import { type ConfigOf, flag, number, oneOf } from './config.js'
import { clipOriginal, splitModelOutput } from './prediction.js'
import { fromConfigOf, type Scheduler, type StepOptions, type StepOutput } from './scheduler.js'
import { follow, KarrasScheduler, slopeOf } from './sigma-scheduler.js'
import { checkSigmaConfig, sigmaAt, sigmaFields, spacedSigmas, timestepAt } from './sigmas.js'
import { fractionalTimesteps, linspaceFields } from './timesteps.js'

const FIELDS = {
  ...plainBetaFields,
  beta_start: number(0.00085, 0, 1),
  beta_end: number(0.012, 0, 1),
  beta_schedule: oneOf('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2', 'exp']),
  prediction_type: oneOf('epsilon', ['epsilon', 'sample', 'v_prediction']),
  ...sigmaFields,
  clip_sample: flag(false),
  clip_sample_range: number(1, 0),
  ...linspaceFields,
}

export type HeunDiscreteSchedulerConfig = ConfigOf<typeof FIELDS>

/** Where a step began and in which direction, until the second model call corrects it. */
interface FirstStage {
  readonly sample: Float32Array
  readonly slope: Float32Array
}

export class HeunDiscreteScheduler extends KarrasScheduler<HeunDiscreteSchedulerConfig> implements Scheduler {
  override readonly order = 2
  #firstStage: FirstStage | undefined

  static readonly fields = FIELDS
  static readonly fromConfig = fromConfigOf<HeunDiscreteScheduler, HeunDiscreteSchedulerConfig>(
    () => HeunDiscreteScheduler,
  )

  static override check(config: HeunDiscreteSchedulerConfig): void {
    checkSigmaConfig(config)
  }

  override get canForecast(): boolean {
    return false
  }

  setTimesteps(numInferenceSteps: number): void {
    const timesteps = fractionalTimesteps(this.config, numInferenceSteps)
    const sigmas = timesteps.map((timestep) => sigmaAt(timestep, this.trainSigmas))
    const spaced = spacedSigmas(this.config, sigmas[0]!, sigmas.at(-1)!, numInferenceSteps)
    const logSigmas = this.trainSigmas.map(Math.log)
    const spacedTimesteps = spaced?.map((sigma) => Math.fround(timestepAt(sigma, logSigmas)))
    this.sigmas = Float32Array.of(...doubled(spaced ?? sigmas), 0)
    this.timesteps = doubled(spacedTimesteps ?? timesteps)
  }

  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const index = this.beginStep(timestep, options)
    const { prediction } = splitModelOutput(modelOutput, sample, this.learnsVariance)
    const original = this.predictOriginal(prediction, sample.data, this.sigmas[index]!)
    clipOriginal(original, this.config)
    const slope = slopeOf(sample.data, original, this.sigmas[index]!)
    const first = this.#firstStage
    const prevSample =
      first === undefined
        ? follow(sample.data, slope, this.sigmas[index + 1]! - this.sigmas[index]!)
        : follow(first.sample, mean(first.slope, slope), this.sigmas[index]! - this.sigmas[index - 1]!)
    this.#firstStage = first === undefined ? { sample: sample.data.slice(), slope } : undefined
    this.advance(index)
    return {
      prevSample: new Tensor(prevSample, sample.shape),
      predOriginalSample: new Tensor(original, sample.shape),
    }
  }

  protected override beginRun(index: number | undefined): void {
    super.beginRun(index)
    this.#firstStage = undefined
  }
}

function mean(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => Math.fround(value + b[i]!) / 2)
}

/** Every value but the first twice. */
function doubled(values: readonly number[]): number[] {
  return values.flatMap((value, i) => (i === 0 ? [value] : [value, value]))
}

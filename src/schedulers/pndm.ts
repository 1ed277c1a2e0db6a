// PNDM: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", 2022. Three Runge-Kutta steps of four
// model calls each, then linear multistep (PLMS) steps of one; with skip_prk_steps only the latter, the first of which
// takes two calls. The reference is diffusers' scheduling_pndm.py.
//
// Easy to get wrong: the timesteps repeat, so a call is told by its number; and the step size is always
// floor(num_train_timesteps / steps), whatever the spacing of the timesteps.
//
// A run that begins later (image-to-image) may begin within a Runge-Kutta step. The reference counts calls from there as
// from the start, so that its formulas no longer fit the timesteps; here such a run goes on by simple steps until the
// next formula can begin.
import { invalid } from '../errors.js'
import { Tensor } from '../tensor.js'
import { plainBetaFields } from './betas.js'
import { type ConfigOf, flag, oneOf } from './config.js'
import { predictEpsilon, predictOriginal, splitModelOutput } from './prediction.js'
import {
  DiscreteScheduler,
  fromConfigOf,
  mixture,
  type Scheduler,
  type StepOptions,
  type StepOutput,
  sqrt32,
} from './scheduler.js'
import { weightedSum } from './sigmas.js'
import { spacedTimesteps, spacingFields } from './timesteps.js'

const FIELDS = {
  ...plainBetaFields,
  beta_schedule: oneOf('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2']),
  skip_prk_steps: flag(false),
  set_alpha_to_one: flag(false),
  prediction_type: oneOf('epsilon', ['epsilon', 'v_prediction']),
  ...spacingFields,
}

export type PNDMSchedulerConfig = ConfigOf<typeof FIELDS>

/** model calls of all Runge-Kutta steps */
const PRK_CALLS = 12
const STAGE_WEIGHTS = [1 / 6, 1 / 3, 1 / 3, 1 / 6]
/** Adams-Bashforth, the newest first, by how many outputs are known */
const PLMS_WEIGHTS = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]

/** The first call of a step that takes several. */
interface OpenStep {
  readonly index: number
  readonly sample: Float32Array
  /** weighted sum of the outputs so far */
  readonly sum: Float32Array
}

export class PNDMScheduler extends DiscreteScheduler<PNDMSchedulerConfig> implements Scheduler {
  #stride = 0
  /** outputs that the multistep formulas use, the newest first */
  #outputs: readonly Float32Array[] = []
  #open: OpenStep | undefined

  static readonly fields = FIELDS
  static readonly fromConfig = fromConfigOf<PNDMScheduler, PNDMSchedulerConfig>(() => PNDMScheduler)

  /** @throws KandinskyError `INVALID_ARGUMENT` also for less than four steps without `skip_prk_steps` */
  override get canForecast(): boolean {
    return false
  }

  setTimesteps(numInferenceSteps: number): void {
    const { skip_prk_steps, num_train_timesteps } = this.config
    const spaced = spacedTimesteps(this.config, numInferenceSteps)
    if (!skip_prk_steps && numInferenceSteps < 4)
      throw invalid('numInferenceSteps', 'at least 4 without skip_prk_steps', numInferenceSteps)
    this.#stride = Math.floor(num_train_timesteps / numInferenceSteps)
    this.timesteps = skip_prk_steps
      ? spaced.flatMap((t, i) => (i === 1 ? [t, t] : [t]))
      : [...prkTimesteps(spaced, this.#halfStride), ...spaced.slice(3)]
  }

  /** The first three steps take four calls each; with skip_prk_steps the first takes two. */
  override firstCall(steps: number): number {
    if (this.config.skip_prk_steps) return steps === 0 ? 0 : steps + 1
    return steps < 3 ? 4 * steps : PRK_CALLS + steps - 3
  }

  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const index = this.beginStep(timestep, options)
    const { prediction } = splitModelOutput(modelOutput, sample, this.learnsVariance)
    const { skip_prk_steps, prediction_type } = this.config
    const mixed = mixture(this.alphasCumprod[timestep]!)
    const original = predictOriginal(prediction_type, prediction, sample.data, mixed)
    const prevSample =
      !skip_prk_steps && index < PRK_CALLS
        ? this.#rungeKutta(index, prediction, sample.data)
        : this.#multistep(index, prediction, sample.data)
    this.advance(index)
    return {
      prevSample: new Tensor(prevSample, sample.shape),
      predOriginalSample: new Tensor(original, sample.shape),
    }
  }

  protected override beginRun(index: number | undefined): void {
    super.beginRun(index)
    this.#outputs = []
    this.#open = undefined
  }

  get #halfStride(): number {
    return Math.floor(this.#stride / 2)
  }

  #rungeKutta(index: number, output: Float32Array, sample: Float32Array): Float32Array {
    const stage = index % 4
    const timestep = this.timesteps[index]!
    if (stage === 0) this.#record(output)
    const open = stage === 0 ? { index, sample: sample.slice(), sum: new Float32Array(sample.length) } : this.#open
    if (open?.index !== index - stage) return this.#transfer(sample, output, timestep, this.timesteps[index + 1]!)
    const sum = weightedSum([1, open.sum], [STAGE_WEIGHTS[stage]!, output])
    this.#open = { ...open, sum }
    const target = stage % 2 === 0 ? timestep - this.#halfStride : timestep
    return this.#transfer(open.sample, stage === 3 ? sum : output, this.timesteps[open.index]!, target)
  }

  #multistep(index: number, output: Float32Array, sample: Float32Array): Float32Array {
    const timestep = this.timesteps[index]!
    if (this.config.skip_prk_steps && index === 1) {
      const open = this.#open
      if (open === undefined) return sample.slice()
      return this.#transfer(open.sample, weightedSum([0.5, open.sum], [0.5, output]), timestep + this.#stride, timestep)
    }
    this.#record(output)
    if (index === 0) this.#open = { index, sample: sample.slice(), sum: this.#outputs[0]! }
    const weights = PLMS_WEIGHTS[this.#outputs.length - 1]!
    const combined = weightedSum(...this.#outputs.map((values, i) => [weights[i]!, values] as const))
    return this.#transfer(sample, combined, timestep, timestep - this.#stride)
  }

  #record(output: Float32Array): void {
    this.#outputs = [output.slice(), ...this.#outputs].slice(0, 4)
  }

  /** Formula 9 of the paper: the sample at another timestep, had the network said `output` all the way. */
  #transfer(sample: Float32Array, output: Float32Array, from: number, to: number): Float32Array {
    const final = this.config.set_alpha_to_one ? 1 : this.alphasCumprod[0]!
    const [alpha, alphaTo] = [this.alphasCumprod[from]!, to >= 0 ? this.alphasCumprod[to]! : final]
    const epsilon = predictEpsilon(this.config.prediction_type, output, sample, mixture(alpha))
    // with hardly any signal left both terms are large, and their difference keeps the reference's rounding
    const noise = Math.fround(alpha * Math.fround(1 - alpha))
    const denominator = Math.fround(
      Math.fround(alpha * sqrt32(Math.fround(1 - alphaTo))) + sqrt32(Math.fround(noise * alphaTo)),
    )
    const [keep, gain] = [sqrt32(Math.fround(alphaTo / alpha)), Math.fround(alphaTo - alpha)]
    return sample.map((x, i) => Math.fround(keep * x) - Math.fround(Math.fround(gain * epsilon[i]!) / denominator))
  }
}

/** Each Runge-Kutta step from `spaced[i]` calls the network there, twice half-way and at the next timestep. */
function prkTimesteps(spaced: readonly number[], halfStride: number): number[] {
  return [0, 1, 2].flatMap((i) => {
    const next = spaced[i + 1]!
    return [spaced[i]!, next + halfStride, next + halfStride, next]
  })
}

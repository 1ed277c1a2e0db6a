// UniPC: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models", 2023. The
// reference is diffusers' scheduling_unipc_multistep.py.
//
// The predictor goes from one sigma to the next by the outputs known so far; when the network has seen the result, the
// corrector makes the same step again with that output too. Both are `#update`.
//
// Easy to get wrong: the corrector runs at the beginning of the next call, in the order of the step that it corrects, and
// changes the sample that the predictor starts from; the output it used was computed before, and is kept.
import { invalid } from '../errors.js'
import { solve } from '../math.js'
import { Tensor } from '../tensor.js'
import { betaFields } from './betas.js'
import { type ConfigOf, flag, indices, integer, oneOf, only, optionalNumber } from './config.js'
import { multistepSchedule } from './multistep-schedule.js'
import {
  dynamicThresholdFields,
  predictEpsilon,
  predictOriginal,
  splitModelOutput,
  thresholdDynamically,
} from './prediction.js'
import { fromConfigOf, type Scheduler, type StepOptions, type StepOutput } from './scheduler.js'
import { SigmaScheduler } from './sigma-scheduler.js'
import { checkSigmaConfig, mixtureOfSigma, sigmaFields, weightedSum } from './sigmas.js'
import { linspaceFields } from './timesteps.js'

const FIELDS = {
  ...betaFields,
  beta_schedule: oneOf('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2']),
  solver_order: integer(2, 1),
  prediction_type: oneOf('epsilon', ['epsilon', 'sample', 'v_prediction']),
  ...dynamicThresholdFields,
  predict_x0: flag(true),
  solver_type: oneOf('bh2', ['bh1', 'bh2']),
  lower_order_final: flag(true),
  disable_corrector: indices(),
  solver_p: only(null),
  ...sigmaFields,
  use_flow_sigmas: only(false),
  flow_shift: only(1),
  ...linspaceFields,
  final_sigmas_type: oneOf('zero', ['zero', 'sigma_min']),
  use_dynamic_shifting: only(false),
  time_shift_type: only('exponential'),
  sigma_min: optionalNumber(0),
  sigma_max: optionalNumber(0),
  shift_terminal: only(null),
}

export type UniPCMultistepSchedulerConfig = ConfigOf<typeof FIELDS>

/** The predictor's step, until the corrector repeats it. */
interface LastStep {
  readonly sample: Float32Array
  readonly order: number
}

export class UniPCMultistepScheduler extends SigmaScheduler<UniPCMultistepSchedulerConfig> implements Scheduler {
  /** what the network said in this run and the solver still needs, the newest first */
  #outputs: readonly Float32Array[] = []
  #lastStep: LastStep | undefined

  static readonly fields = FIELDS
  static readonly fromConfig = fromConfigOf<UniPCMultistepScheduler, UniPCMultistepSchedulerConfig>(
    () => UniPCMultistepScheduler,
  )
  static override readonly foreign = { solver_type: ['midpoint', 'heun', 'logrho'] }

  static override check(config: UniPCMultistepSchedulerConfig): void {
    checkSigmaConfig(config)
    const { final_sigmas_type, lower_order_final, predict_x0, solver_order } = config
    // these have no finite weights for a step to sigma 0; the reference returns NaN
    if (final_sigmas_type === 'zero' && (!predict_x0 || (!lower_order_final && solver_order > 1)))
      throw invalid('final_sigmas_type', 'sigma_min without predict_x0 or lower_order_final', final_sigmas_type)
  }

  setTimesteps(numInferenceSteps: number): void {
    const { config, trainSigmas } = this
    const schedule = multistepSchedule(config, trainSigmas, numInferenceSteps, config.num_train_timesteps)
    this.sigmas = schedule.sigmas
    this.timesteps = schedule.timesteps
  }

  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const index = this.beginStep(timestep, options)
    const { prediction } = splitModelOutput(modelOutput, sample, this.learnsVariance)
    const { original, output } = this.#convert(prediction, sample, this.sigmas[index]!)
    const last = this.#lastStep
    const corrected =
      last === undefined || this.config.disable_corrector.includes(index - 1)
        ? sample.data.slice()
        : this.#update(index - 1, last.sample, this.#outputs.slice(0, last.order), output)
    const outputs = [output.slice(), ...this.#outputs].slice(0, this.config.solver_order)
    const left = this.config.lower_order_final ? this.timesteps.length - index : outputs.length
    const order = Math.min(outputs.length, left)
    const prevSample = this.#update(index, corrected, outputs.slice(0, order))
    this.#outputs = outputs
    this.#lastStep = { sample: corrected, order }
    this.advance(index)
    return {
      prevSample: new Tensor(prevSample, sample.shape),
      predOriginalSample: new Tensor(original, sample.shape),
    }
  }

  protected override beginRun(index: number | undefined): void {
    super.beginRun(index)
    this.#outputs = []
    this.#lastStep = undefined
  }

  /** The clean sample, and what the solver extrapolates: that sample (predict_x0) or the noise. */
  #convert(prediction: Float32Array, sample: Tensor, sigma: number): { original: Float32Array; output: Float32Array } {
    const { prediction_type, thresholding, predict_x0 } = this.config
    const mixed = mixtureOfSigma(sigma)
    const original = predictOriginal(prediction_type, prediction, sample.data, mixed)
    if (!predict_x0) return { original, output: predictEpsilon(prediction_type, prediction, sample.data, mixed) }
    if (thresholding) thresholdDynamically(original, sample.shape[0]!, this.config)
    return { original, output: original }
  }

  /**
   * From sigma `index` to the next one.
   *
   * @param outputs of this sigma and the ones before, as many as the order
   * @param outputNext that of the next sigma, with which the predictor becomes the corrector
   */
  #update(index: number, sample: Float32Array, outputs: readonly Float32Array[], outputNext?: Float32Array) {
    const [sigma, sigmaNext] = [this.sigmas[index]!, this.sigmas[index + 1]!]
    // spaced sigmas that end at sigma_min name it twice
    if (sigmaNext === sigma) return sample.slice()
    const [from, to] = [mixtureOfSigma(sigma), mixtureOfSigma(sigmaNext)]
    const { predict_x0, solver_type } = this.config
    const h = Math.log(sigma / sigmaNext)
    const z = predict_x0 ? -h : h
    const [keep, scale] = predict_x0 ? [to.noise / from.noise, to.signal] : [to.signal / from.signal, to.noise]
    const [output, ...earlier] = outputs as [Float32Array, ...Float32Array[]]
    const points = earlier.map((values, i) => ({ r: Math.log(sigma / this.sigmas[index - 1 - i]!) / h, values }))
    if (outputNext !== undefined) points.push({ r: 1, values: outputNext })
    const b = solver_type === 'bh1' ? z : Math.expm1(z)
    const weights = updateWeights(
      points.map(({ r }) => r),
      z,
      b,
    )
    const terms = points.flatMap(({ r, values }, i): [number, Float32Array][] => {
      const weight = (-scale * b * weights[i]!) / r
      return [
        [weight, values],
        [-weight, output],
      ]
    })
    return weightedSum([keep, sample], [-scale * Math.expm1(z), output], ...terms)
  }
}

/**
 * Weights of the difference quotients at the points `rs` (in steps from here): those that integrate polynomials exactly,
 * formula 3.8 of the paper; a single one is 1/2 whatever the step, as in the reference.
 */
function updateWeights(rs: readonly number[], z: number, b: number): number[] {
  if (rs.length === 1) return [0.5]
  let phi = Math.expm1(z) / z - 1
  let factorial = 1
  const moments = rs.map((_, i) => {
    const moment = (phi * factorial) / b
    factorial *= i + 2
    phi = phi / z - 1 / factorial
    return moment
  })
  return solve(
    rs.map((_, power) => rs.map((r) => r ** power)),
    moments,
  )
}

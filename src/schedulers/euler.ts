// Euler: algorithm 2 of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
// without its second-order correction. The reference is diffusers' scheduling_euler_discrete.py.
//
// Easy to get wrong: with log_linear interpolation the reference makes one sigma more than the run needs, so that a run
// ends at the smallest training sigma, whatever final_sigmas_type says; the timesteps keep their own spacing then.
import { invalid } from '../errors.js'
import { Tensor } from '../tensor.js'
import { betaFields, linspace } from './betas.js'
import { type ConfigOf, oneOf, optionalNumber } from './config.js'
import { addNoiseTerm } from './posterior.js'
import { splitModelOutput } from './prediction.js'
import { fromConfigOf, type Scheduler, type StepOptions, type StepOutput } from './scheduler.js'
import { follow, KarrasScheduler, slopeOf } from './sigma-scheduler.js'
import { checkSigmaConfig, sigmaAt, sigmaFields, spacedSigmas, timestepAt } from './sigmas.js'
import { fractionalTimesteps, linspaceFields } from './timesteps.js'

const FIELDS = {
  ...betaFields,
  beta_schedule: oneOf('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2']),
  prediction_type: oneOf('epsilon', ['epsilon', 'sample', 'v_prediction']),
  interpolation_type: oneOf('linear', ['linear', 'log_linear']),
  ...sigmaFields,
  sigma_min: optionalNumber(0),
  sigma_max: optionalNumber(0),
  ...linspaceFields,
  timestep_type: oneOf('discrete', ['discrete', 'continuous']),
  final_sigmas_type: oneOf('zero', ['zero', 'sigma_min']),
}

export type EulerDiscreteSchedulerConfig = ConfigOf<typeof FIELDS>

export interface EulerStepOptions extends StepOptions {
  /** noise added in the whole run, in units of sigma: 0 (the default) is deterministic */
  sChurn?: number
  /** noise is added where sigma lies from sTmin (default 0) to sTmax (default infinity) */
  sTmin?: number
  sTmax?: number
  /** standard deviation of the added noise relative to what theory asks for, default 1 */
  sNoise?: number
}

export class EulerDiscreteScheduler extends KarrasScheduler<EulerDiscreteSchedulerConfig> implements Scheduler {
  static readonly fields = FIELDS
  static readonly fromConfig = fromConfigOf<EulerDiscreteScheduler, EulerDiscreteSchedulerConfig>(
    () => EulerDiscreteScheduler,
  )

  static override check(config: EulerDiscreteSchedulerConfig): void {
    checkSigmaConfig(config)
  }

  setTimesteps(numInferenceSteps: number): void {
    const { config, trainSigmas } = this
    const timesteps = fractionalTimesteps(config, numInferenceSteps)
    const sigmas =
      config.interpolation_type === 'linear'
        ? timesteps.map((timestep) => sigmaAt(timestep, trainSigmas))
        : [...logLinearSigmas(trainSigmas, numInferenceSteps + 1)]
    const [max, min] = [config.sigma_max ?? sigmas[0]!, config.sigma_min ?? sigmas.at(-1)!]
    const spaced = spacedSigmas(config, max, min, numInferenceSteps)
    const final = config.final_sigmas_type === 'zero' ? 0 : trainSigmas[0]!
    this.sigmas = Float32Array.of(...(spaced ?? sigmas), final)
    this.timesteps = this.#timestepsOf(spaced, timesteps)
  }

  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: EulerStepOptions = {}): StepOutput {
    const index = this.beginStep(timestep, options)
    const { prediction } = splitModelOutput(modelOutput, sample, this.learnsVariance)
    const sigma = this.sigmas[index]!
    const gamma = this.#gamma(sigma, options)
    const sigmaHat = Math.fround(sigma * Math.fround(gamma + 1))
    let noisy = sample.data
    if (gamma > 0) {
      noisy = sample.data.slice()
      const std = (options.sNoise ?? 1) * Math.sqrt(sigmaHat ** 2 - sigma ** 2)
      addNoiseTerm(noisy, std, sample.shape, options)
    }
    // the reference takes a velocity for one at the sigma before the noise was added
    const sigmaOfPrediction = this.config.prediction_type === 'v_prediction' ? sigma : sigmaHat
    const original = this.predictOriginal(prediction, noisy, sigmaOfPrediction)
    const prevSample = follow(noisy, slopeOf(noisy, original, sigmaHat), this.sigmas[index + 1]! - sigmaHat)
    this.advance(index)
    return {
      prevSample: new Tensor(prevSample, sample.shape),
      predOriginalSample: new Tensor(original, sample.shape),
    }
  }

  /** float32, as networks and callers get them */
  #timestepsOf(spaced: readonly number[] | undefined, timesteps: readonly number[]): number[] {
    const { timestep_type, prediction_type } = this.config
    if (timestep_type === 'continuous' && prediction_type === 'v_prediction')
      return [...this.sigmas.subarray(0, -1).map((sigma) => 0.25 * Math.fround(Math.log(sigma)))]
    if (spaced === undefined) return [...timesteps]
    const logSigmas = this.trainSigmas.map(Math.log)
    return spaced.map((sigma) => Math.fround(timestepAt(sigma, logSigmas)))
  }

  /** How much sigma grows before the step. */
  #gamma(sigma: number, { sChurn = 0, sTmin = 0, sTmax = Number.POSITIVE_INFINITY, sNoise = 1 }: EulerStepOptions) {
    for (const [what, value] of Object.entries({ sChurn, sTmin, sTmax, sNoise }))
      if (typeof value !== 'number' || !(value >= 0)) throw invalid(what, 'a number of at least 0', value)
    if (sigma < sTmin || sigma > sTmax) return 0
    return Math.min(sChurn / (this.sigmas.length - 1), Math.SQRT2 - 1)
  }
}

function logLinearSigmas(trainSigmas: Float32Array, count: number): Float32Array {
  const [max, min] = [Math.log(trainSigmas.at(-1)!), Math.log(trainSigmas[0]!)]
  return linspace(max, min, count).map(Math.exp)
}

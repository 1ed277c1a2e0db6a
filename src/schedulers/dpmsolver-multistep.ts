// DPM-Solver++ (2M, 3M and their SDE variants) and DPM-Solver: Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling
// of Diffusion Probabilistic Models", 2022. The reference is diffusers' scheduling_dpmsolver_multistep.py.
//
// The solver goes by the log signal-to-noise ratio lambda = -log(sigma). Over a step of length h it integrates exactly
// what does not depend on the network, and extrapolates the network's outputs by their differences of first and second
// order. The four algorithms are the same formulas in different units, see `#unitsOf`.
//
// Easy to get wrong: the step to sigma 0 has infinite h and is always of first order; the limit to 15 steps below which
// lower_order_final acts is the reference's.
import { invalid } from '../errors.js'
import { roundHalfEven } from '../math.js'
import { Tensor } from '../tensor.js'
import { betaFields } from './betas.js'
import { type ConfigOf, flag, integer, lowerLimit, oneOf, only } from './config.js'
import { VARIANCE_TYPES } from './ddpm.js'
import { multistepSchedule } from './multistep-schedule.js'
import { drawNoise, givenNoise } from './posterior.js'
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
  solver_order: integer(2, 1, 3),
  prediction_type: oneOf('epsilon', ['epsilon', 'sample', 'v_prediction']),
  ...dynamicThresholdFields,
  algorithm_type: oneOf('dpmsolver++', ['dpmsolver++', 'sde-dpmsolver++', 'dpmsolver', 'sde-dpmsolver']),
  solver_type: oneOf('midpoint', ['midpoint', 'heun']),
  lower_order_final: flag(true),
  euler_at_final: flag(false),
  ...sigmaFields,
  use_lu_lambdas: flag(false),
  use_flow_sigmas: only(false),
  flow_shift: only(1),
  final_sigmas_type: oneOf('zero', ['zero', 'sigma_min']),
  lambda_min_clipped: lowerLimit(),
  variance_type: only(null),
  ...linspaceFields,
  use_dynamic_shifting: only(false),
  time_shift_type: only('exponential'),
}

export type DPMSolverMultistepSchedulerConfig = ConfigOf<typeof FIELDS>

export interface DPMSolverStepOptions extends StepOptions {
  /** noise for an SDE algorithm instead of a draw, in the shape of the sample */
  varianceNoise?: Tensor
}

export class DPMSolverMultistepScheduler
  extends SigmaScheduler<DPMSolverMultistepSchedulerConfig>
  implements Scheduler
{
  /** what the network said in this run and the solver still needs, the newest first */
  #outputs: readonly Float32Array[] = []

  static readonly fields = FIELDS
  static readonly fromConfig = fromConfigOf<DPMSolverMultistepScheduler, DPMSolverMultistepSchedulerConfig>(
    () => DPMSolverMultistepScheduler,
  )
  static override readonly foreign = {
    solver_type: ['bh1', 'bh2', 'logrho'],
    algorithm_type: ['deis'],
    variance_type: VARIANCE_TYPES,
  }

  static override check(config: DPMSolverMultistepSchedulerConfig): void {
    const { algorithm_type, final_sigmas_type, solver_order } = config
    checkSigmaConfig(config)
    if (!algorithm_type.endsWith('++') && final_sigmas_type === 'zero')
      throw invalid('final_sigmas_type', `sigma_min with algorithm_type ${algorithm_type}`, final_sigmas_type)
    if (algorithm_type === 'sde-dpmsolver' && solver_order > 2)
      throw invalid('solver_order', `1 or 2 with algorithm_type ${algorithm_type}`, solver_order)
  }

  setTimesteps(numInferenceSteps: number): void {
    const { lambda_min_clipped, beta_schedule } = this.config
    const end = this.trainSigmas.findLastIndex((sigma) => -Math.log(sigma) >= lambda_min_clipped) + 1
    const toInteger = beta_schedule === 'squaredcos_cap_v2' ? Math.trunc : roundHalfEven
    const schedule = multistepSchedule(this.config, this.trainSigmas, numInferenceSteps, end, toInteger)
    this.sigmas = schedule.sigmas
    this.timesteps = schedule.timesteps
  }

  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: DPMSolverStepOptions = {}): StepOutput {
    const index = this.beginStep(timestep, options)
    const { prediction } = splitModelOutput(modelOutput, sample, this.learnsVariance)
    const noise = this.#noise(sample.shape, options)
    const { original, output } = this.#convert(prediction, sample, this.sigmas[index]!)
    const outputs = [output.slice(), ...this.#outputs].slice(0, this.config.solver_order)
    const used = outputs.slice(0, this.#orderLimit(index))
    const prevSample = this.#update(index, sample.data, used, noise)
    this.#outputs = outputs
    this.advance(index)
    return {
      prevSample: new Tensor(prevSample, sample.shape),
      predOriginalSample: new Tensor(original, sample.shape),
    }
  }

  protected override beginRun(index: number | undefined): void {
    super.beginRun(index)
    this.#outputs = []
  }

  /** float32 whatever the network's dtype, as in the reference */
  #noise(shape: readonly number[], { generator, varianceNoise }: DPMSolverStepOptions): Tensor | undefined {
    if (!this.config.algorithm_type.startsWith('sde')) return undefined
    return varianceNoise === undefined
      ? drawNoise(shape, generator, 'float32')
      : givenNoise(varianceNoise, shape, generator)
  }

  /** The clean sample, and what the algorithm extrapolates: that sample (++) or the noise. */
  #convert(prediction: Float32Array, sample: Tensor, sigma: number): { original: Float32Array; output: Float32Array } {
    const { prediction_type, thresholding, algorithm_type } = this.config
    const mixed = mixtureOfSigma(sigma)
    const original = predictOriginal(prediction_type, prediction, sample.data, mixed)
    if (thresholding) thresholdDynamically(original, sample.shape[0]!, this.config)
    if (algorithm_type.endsWith('++')) return { original, output: original }
    const output = thresholding
      ? predictEpsilon('sample', original, sample.data, mixed)
      : predictEpsilon(prediction_type, prediction, sample.data, mixed)
    return { original, output }
  }

  #orderLimit(index: number): number {
    const { lower_order_final, euler_at_final, final_sigmas_type, solver_order } = this.config
    const count = this.timesteps.length
    const lower = lower_order_final && count < 15
    if (index === count - 1 && (euler_at_final || lower || final_sigmas_type === 'zero')) return 1
    return index === count - 2 && lower ? Math.min(2, solver_order) : solver_order
  }

  /** One step, of as many orders as there are outputs. */
  #update(index: number, sample: Float32Array, outputs: readonly Float32Array[], noise?: Tensor): Float32Array {
    const [sigma, sigmaNext] = [this.sigmas[index]!, this.sigmas[index + 1]!]
    // spaced sigmas that end at sigma_min name it twice, those of lu_lambdas as the logarithm of float32 has it
    if (sigmaNext >= sigma) return sample.slice()
    const h = Math.log(sigma / sigmaNext)
    const { keep, scale, z, noiseStd, half } = this.#unitsOf(h, sigma, sigmaNext)
    const e = Math.expm1(z)
    const [m0, m1, m2] = outputs as [Float32Array, Float32Array?, Float32Array?]
    const terms: [number, Float32Array][] = [
      [keep, sample],
      [-scale * e, m0],
    ]
    if (m1 !== undefined) {
      const r0 = Math.log(this.sigmas[index - 1]! / sigma) / h
      let d1 = differenceQuotient(m0, m1, r0)
      if (m2 !== undefined) {
        const r1 = Math.log(this.sigmas[index - 2]! / this.sigmas[index - 1]!) / h
        const d2 = differenceQuotient(d1, differenceQuotient(m1, m2, r1), r0 + r1)
        d1 = weightedSum([1, d1], [r0, d2])
        terms.push([-scale * ((e - z) / z ** 2 - half), d2])
      }
      const midpoint = m2 === undefined && this.config.solver_type === 'midpoint'
      terms.push([-scale * (midpoint ? e / 2 : e / z - 1), d1])
    }
    if (noise !== undefined) terms.push([noiseStd, noise.data])
    return weightedSum(...terms)
  }

  /**
   * What distinguishes the algorithms: the weight of the sample, and unit and exponent of the integrals over outputs.
   * `half` is 1/2 in all but one algorithm, where the reference has the sign wrong; a third-order step differs by it.
   */
  #unitsOf(h: number, sigma: number, sigmaNext: number) {
    const [from, to] = [mixtureOfSigma(sigma), mixtureOfSigma(sigmaNext)]
    const [signals, noises] = [to.signal / from.signal, to.noise / from.noise]
    switch (this.config.algorithm_type) {
      case 'dpmsolver++':
        return { keep: noises, scale: to.signal, z: -h, noiseStd: 0, half: 0.5 }
      case 'sde-dpmsolver++': {
        const noiseStd = to.noise * Math.sqrt(-Math.expm1(-2 * h))
        return { keep: noises * Math.exp(-h), scale: to.signal, z: -2 * h, noiseStd, half: -0.5 }
      }
      case 'dpmsolver':
        return { keep: signals, scale: to.noise, z: h, noiseStd: 0, half: 0.5 }
      case 'sde-dpmsolver': {
        const noiseStd = to.noise * Math.sqrt(Math.expm1(2 * h))
        return { keep: signals, scale: 2 * to.noise, z: h, noiseStd, half: 0.5 }
      }
    }
  }
}

function differenceQuotient(a: Float32Array, b: Float32Array, distance: number): Float32Array {
  return weightedSum([1 / distance, a], [-1 / distance, b])
}

// Timesteps and sigmas of the multistep solvers. Source: `set_timesteps` of diffusers' scheduling_dpmsolver_multistep.py
// and scheduling_unipc_multistep.py.
//
// Easy to get wrong: the timesteps are integers here. Those that belong to karras sigmas are rounded, those that belong
// to exponential ones truncated, and both may repeat.
import { roundHalfEven } from '../math.js'
import { spacedSigmas, timestepAt } from './sigmas.js'
import { checkStepCount, multistepTimesteps, type TimestepSpacing } from './timesteps.js'

interface MultistepConfig {
  readonly num_train_timesteps: number
  readonly timestep_spacing: TimestepSpacing
  readonly steps_offset: number
  readonly use_karras_sigmas: boolean
  readonly use_exponential_sigmas: boolean
  readonly use_lu_lambdas?: boolean
  readonly sigma_min?: number | null
  readonly sigma_max?: number | null
  readonly final_sigmas_type: 'zero' | 'sigma_min'
}

export interface Schedule {
  readonly timesteps: number[]
  /** one per timestep and that of the result */
  readonly sigmas: Float32Array
}

/**
 * The run of `count` steps.
 *
 * @param trainSigmas of every training timestep, ascending
 * @param end the timestep behind the noisiest
 * @param toInteger what the class does with the fractional timesteps of karras sigmas
 * @throws KandinskyError `INVALID_ARGUMENT` as for `multistepTimesteps`
 */
export function multistepSchedule(
  config: MultistepConfig,
  trainSigmas: Float32Array,
  count: number,
  end: number,
  toInteger: (timestep: number) => number = roundHalfEven,
): Schedule {
  checkStepCount(count, config.num_train_timesteps)
  const max = config.sigma_max ?? trainSigmas.at(-1)!
  const min = config.sigma_min ?? trainSigmas[0]!
  const spaced = spacedSigmas(config, max, min, count)
  if (spaced === undefined) {
    const timesteps = multistepTimesteps(config, count, end)
    const final = config.final_sigmas_type === 'zero' ? 0 : trainSigmas[0]!
    return { timesteps, sigmas: Float32Array.of(...timesteps.map((timestep) => trainSigmas[timestep]!), final) }
  }
  const logSigmas = trainSigmas.map(Math.log)
  const round = config.use_exponential_sigmas ? Math.trunc : toInteger
  const timesteps = spaced.map((sigma) => round(timestepAt(sigma, logSigmas)))
  return { timesteps, sigmas: Float32Array.of(...spaced, config.final_sigmas_type === 'zero' ? 0 : min) }
}

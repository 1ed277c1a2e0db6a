// Euler along the straight paths of rectified flows (https://arxiv.org/abs/2403.03206), Kandinsky 5's scheduler. The
// reference is diffusers' scheduling_flow_match_euler_discrete.py.
//
// Easy to get wrong:
// - sigmas are shifted twice: the training sigmas, whose ends the run's are spaced between, and the run's once more;
// - timesteps are sigma * num_train_timesteps, fractions that the network gets as they are;
// - a sample is sigma * noise + (1 - sigma) * original, and the prediction is the velocity noise - original.
import { Tensor } from '../tensor.js'
import { type ConfigOf, integer, number, oneOf, only } from './config.js'
import {
  checkShape,
  DiscreteScheduler,
  fromConfigOf,
  type Mixture,
  type Scheduler,
  type StepOptions,
  type StepOutput,
} from './scheduler.js'
import { follow } from './sigma-scheduler.js'
import { checkStepCount } from './timesteps.js'

const FIELDS = {
  num_train_timesteps: integer(1000, 1),
  shift: number(1, 0),
  use_dynamic_shifting: only(false),
  base_shift: number(0.5, 0),
  max_shift: number(1.15, 0),
  base_image_seq_len: integer(256, 1),
  max_image_seq_len: integer(4096, 1),
  invert_sigmas: only(false),
  shift_terminal: only(null),
  use_karras_sigmas: only(false),
  use_exponential_sigmas: only(false),
  use_beta_sigmas: only(false),
  time_shift_type: oneOf('exponential', ['exponential', 'linear']),
  stochastic_sampling: only(false),
}

export type FlowMatchEulerDiscreteSchedulerConfig = ConfigOf<typeof FIELDS>

export class FlowMatchEulerDiscreteScheduler
  extends DiscreteScheduler<FlowMatchEulerDiscreteSchedulerConfig>
  implements Scheduler
{
  static readonly fields = FIELDS
  static readonly fromConfig = fromConfigOf<FlowMatchEulerDiscreteScheduler, FlowMatchEulerDiscreteSchedulerConfig>(
    () => FlowMatchEulerDiscreteScheduler,
  )
  /** sigma of `timesteps[i]` at i, then 0 */
  #sigmas = new Float32Array()

  /** It knows no betas. */
  static override makeBetas(): Float32Array {
    return new Float32Array()
  }

  /** The sigmas of the run: `timesteps[i]` has `sigmas[i]`, and the result 0. */
  get sigmas(): Float32Array {
    return this.#sigmas.slice()
  }

  setTimesteps(numInferenceSteps: number): void {
    const { num_train_timesteps: total, shift } = this.config
    checkStepCount(numInferenceSteps, total)
    const shifted = (sigma: number) => (shift * sigma) / (1 + (shift - 1) * sigma)
    // the training sigmas are float32; what is spaced between their ends is not
    const [first, last] = [1, Math.fround(shifted(Math.fround(1 / total)))].map((sigma) => sigma * total) as [
      number,
      number,
    ]
    const spacing = numInferenceSteps === 1 ? 0 : (last - first) / (numInferenceSteps - 1)
    const sigmas = Array.from({ length: numInferenceSteps }, (_, i) => shifted((first + i * spacing) / total))
    this.#sigmas = Float32Array.of(...sigmas, 0)
    this.timesteps = [...this.#sigmas.subarray(0, -1)].map((sigma) => Math.fround(sigma * total))
  }

  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const index = this.beginStep(timestep, options)
    checkShape('modelOutput', modelOutput, sample.shape)
    const [sigma, next] = [this.#sigmas[index]!, this.#sigmas[index + 1]!]
    const prevSample = follow(sample.data, modelOutput.data, Math.fround(next - sigma))
    const original = follow(sample.data, modelOutput.data, -sigma)
    this.advance(index)
    return {
      prevSample: new Tensor(prevSample, sample.shape),
      predOriginalSample: new Tensor(original, sample.shape),
    }
  }

  protected override get predicts(): 'flow' {
    return 'flow'
  }

  protected override mixtureAt(timestep: number): Mixture {
    const noise = this.#sigmas[this.indexOf(timestep)]!
    return { signal: Math.fround(1 - noise), noise }
  }
}

// What pipelines know of a scheduler, and what the schedulers over discrete training timesteps share.
//
// Schedulers are pure: no I/O, no native code. They compute in the float32 arithmetic of torch, so every intermediate
// result is rounded as there, by Math.fround or by being stored in a Float32Array.
import { invalid, KandinskyError } from '../errors.js'
import type { NoiseDtype, RandomSource } from '../random.js'
import { sameShape, Tensor } from '../tensor.js'
import { cumulativeAlphas } from './betas.js'

export interface StepOptions {
  /** where a step that adds noise draws it: one, or one per batch entry */
  generator?: RandomSource | readonly RandomSource[] | undefined
  /** dtype of the reference's model output, in which it draws the noise; default `float32` */
  dtype?: NoiseDtype | undefined
  /** the training timestep that the result belongs to, -1 for the clean sample; default: the scheduler's next one */
  prevTimestep?: number | undefined
}

export interface StepOutput {
  /** the next model input, before `scaleModelInput` */
  prevSample: Tensor
  /** what the clean sample looks like from here, for previews */
  predOriginalSample: Tensor
}

/**
 * A sampling algorithm. `setTimesteps` begins a run and forgets everything of the one before; steps may keep state
 * between calls, so runs that overlap need their own `clone()`.
 */
export interface Scheduler {
  /** completed with defaults, under diffusers' keys */
  readonly config: Readonly<Record<string, unknown>>
  /** descending; empty before `setTimesteps` */
  readonly timesteps: readonly number[]
  /** standard deviation of the initial noise; valid after `setTimesteps` */
  readonly initNoiseSigma: number
  /** whether `step` expects a model output with variance channels after the sample's channels */
  readonly learnsVariance: boolean
  /** @throws KandinskyError `INVALID_ARGUMENT` unless it is an integer from 1 to `num_train_timesteps` */
  setTimesteps(numInferenceSteps: number): void
  /** What the model is to be given for `sample` at `timestep`. */
  scaleModelInput(sample: Tensor, timestep: number): Tensor
  /**
   * Goes from `timestep` to the next one.
   *
   * @param modelOutput the shape of `sample`, twice its channels where `learnsVariance`
   * @throws KandinskyError `INVALID_ARGUMENT` for an unknown timestep, a missing generator, or before `setTimesteps`;
   *   `SHAPE_MISMATCH`
   */
  step(modelOutput: Tensor, timestep: number, sample: Tensor, options?: StepOptions): StepOutput
  /**
   * The forward process: `original` as it looks at `timesteps`.
   *
   * @param timesteps one per batch entry, or a single one for all
   */
  addNoise(original: Tensor, noise: Tensor, timesteps: readonly number[]): Tensor
  /** A scheduler of the same config without any state. */
  clone(): Scheduler
}

/** A variance-preserving process over `num_train_timesteps` discrete timesteps: model inputs are not scaled. */
export abstract class DiscreteScheduler<C extends { readonly num_train_timesteps: number }> {
  readonly config: C
  readonly initNoiseSigma = 1
  /** share of the signal's variance that is left at each training timestep */
  protected readonly alphasCumprod: Float32Array
  #timesteps: readonly number[] = []

  constructor(config: C, betas: Float32Array) {
    this.config = config
    this.alphasCumprod = cumulativeAlphas(betas)
    if (!this.alphasCumprod.every((alpha) => alpha >= 0 && alpha < 1))
      throw invalid('betas', 'a schedule whose cumulative alphas lie from 0 to below 1 in float32', betas)
  }

  get timesteps(): readonly number[] {
    return this.#timesteps
  }

  protected set timesteps(timesteps: readonly number[]) {
    this.#timesteps = Object.freeze([...timesteps])
  }

  scaleModelInput(sample: Tensor, _timestep: number): Tensor {
    return sample
  }

  addNoise(original: Tensor, noise: Tensor, timesteps: readonly number[]): Tensor {
    if (!(original instanceof Tensor)) throw invalid('original', 'a Tensor', original)
    checkShape('noise', noise, original.shape)
    const batch = original.shape[0]!
    if (timesteps.length !== batch && timesteps.length !== 1)
      throw invalid('timesteps', `one timestep or ${batch} (the batch size)`, timesteps)
    const rowLength = original.data.length / batch
    const data = new Float32Array(original.data.length)
    for (let row = 0; row < batch; row++) {
      const timestep = timesteps[row] ?? timesteps[0]!
      this.checkTrainTimestep('timesteps', timestep)
      const { signal, noise: sigma } = mixture(this.alphasCumprod[timestep]!)
      for (let i = row * rowLength; i < (row + 1) * rowLength; i++)
        data[i] = Math.fround(signal * original.data[i]!) + Math.fround(sigma * noise.data[i]!)
    }
    return new Tensor(data, original.shape)
  }

  /** The timestep after `timestep` in this run, -1 after the last. */
  protected nextTimestep(timestep: number): number {
    if (this.timesteps.length === 0)
      throw new KandinskyError('INVALID_ARGUMENT', 'Expected setTimesteps to be called before step')
    const index = this.timesteps.indexOf(timestep)
    if (index < 0) throw invalid('timestep', `one of the ${this.timesteps.length} in timesteps`, timestep)
    return this.timesteps[index + 1] ?? -1
  }

  /** `prevTimestep` of the options, checked, or else `automatic`. */
  protected prevTimestep(timestep: number, given: number | undefined, automatic: number): number {
    if (given === undefined) return automatic
    if (!Number.isSafeInteger(given) || given >= timestep)
      throw invalid('prevTimestep', `an integer below ${timestep}`, given)
    return given
  }

  private checkTrainTimestep(what: string, timestep: number): void {
    if (!Number.isSafeInteger(timestep) || timestep < 0 || timestep >= this.config.num_train_timesteps)
      throw invalid(what, `integers from 0 to ${this.config.num_train_timesteps - 1}`, timestep)
  }
}

/** Weights of signal and noise in a sample with this cumulative alpha. */
export function mixture(alphaCumprod: number): { signal: number; noise: number } {
  return { signal: sqrt32(alphaCumprod), noise: sqrt32(Math.fround(1 - alphaCumprod)) }
}

export function sqrt32(value: number): number {
  return Math.fround(Math.sqrt(value))
}

/** @throws KandinskyError `SHAPE_MISMATCH` */
export function checkShape(what: string, tensor: Tensor, shape: readonly number[]): void {
  if (!(tensor instanceof Tensor)) throw invalid(what, 'a Tensor', tensor)
  if (!sameShape(tensor.shape, shape))
    throw new KandinskyError(
      'SHAPE_MISMATCH',
      `Expected shape [${shape.join(', ')}] for ${what} but received [${tensor.shape.join(', ')}]`,
    )
}

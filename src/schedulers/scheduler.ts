// What pipelines know of a scheduler, and what the schedulers over discrete training timesteps share.
//
// Schedulers are pure: no I/O, no native code. They compute in the float32 arithmetic of torch, so every intermediate
// result is rounded as there, by Math.fround or by being stored in a Float32Array.
import { invalid, KandinskyError } from '../errors.js'
import type { NoiseDtype, RandomSource } from '../random.js'
import { sameShape, Tensor } from '../tensor.js'
import { type BetaConfig, cumulativeAlphas, makeBetas } from './betas.js'
import { type Fields, knownPart, readConfig } from './config.js'

/** What a step takes beside sample and model output. */
export interface StepOptions {
  /** where a step that adds noise draws it: one, or one per batch entry */
  generator?: RandomSource | readonly RandomSource[] | undefined
  /** dtype of the reference's model output, in which it draws the noise; default `float32` */
  dtype?: NoiseDtype | undefined
  /** the training timestep that the result belongs to, -1 for the clean sample; default: the scheduler's next one */
  prevTimestep?: number | undefined
}

/** What a step gives. */
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
  /**
   * One per model call, descending; empty before `setTimesteps`. They may be fractions, and second-order schedulers
   * repeat some.
   */
  readonly timesteps: readonly number[]
  /** Model calls per step, where all steps have as many. */
  readonly order: number
  /** standard deviation of the initial noise; valid after `setTimesteps` */
  readonly initNoiseSigma: number
  /** whether `step` expects a model output with variance channels after the sample's channels */
  readonly learnsVariance: boolean
  /** whether the model's calls, one a step, follow a path smooth enough to forecast some from others */
  readonly canForecast: boolean
  /** @throws KandinskyError `INVALID_ARGUMENT` unless it is an integer from 1 to `num_train_timesteps` */
  setTimesteps(numInferenceSteps: number): void
  /** Where a run begins that leaves out its first `steps` steps: an index into `timesteps`; valid after `setTimesteps`. */
  firstCall(steps: number): number
  /**
   * Begins the run, or begins it anew, at `timesteps[index]` instead of the first (image-to-image). Without it, a run
   * whose first call names a later timestep begins there.
   *
   * @throws KandinskyError `INVALID_ARGUMENT` unless `index` is a multiple of `order` in the range of `timesteps`
   */
  setBeginIndex(index: number): void
  /**
   * The first sample of a run from noise, where it is not that noise times `initNoiseSigma`; draws more of it.
   * @param noise as a run begins with
   */
  startFrom?(noise: Tensor, generator: RandomSource | readonly RandomSource[]): Tensor
  /** What the model is to be given for `sample` at `timestep`. */
  scaleModelInput(sample: Tensor, timestep: number): Tensor
  /**
   * Goes from `timestep` to the next one. Schedulers that keep state between steps take the timesteps in their order
   * only.
   *
   * @param modelOutput the shape of `sample`, twice its channels where `learnsVariance`
   * @throws KandinskyError `INVALID_ARGUMENT` for an unknown timestep, a missing generator, or before `setTimesteps`;
   *   `SHAPE_MISMATCH`
   */
  step(modelOutput: Tensor, timestep: number, sample: Tensor, options?: StepOptions): StepOutput
  /**
   * The forward process: `original` as it looks at `timesteps`, before `scaleModelInput`.
   *
   * @param timesteps one per batch entry, or a single one for all; schedulers that work on noise levels know only those
   *   of the run
   */
  addNoise(original: Tensor, noise: Tensor, timesteps: readonly number[]): Tensor
  /** The clean sample that `prediction` (without variance channels) implies for `sample`, before any limits. */
  originalOf(prediction: Tensor, timestep: number, sample: Tensor): Tensor
  /** The prediction that implies this clean sample: the inverse of `originalOf`. */
  predictionOf(original: Tensor, timestep: number, sample: Tensor): Tensor
  /** A scheduler of the same config without any state. */
  clone(): Scheduler
}

/** What a network's output can mean; `flow` is from the clean sample to the noise. */
type Prediction = 'epsilon' | 'sample' | 'v_prediction' | 'flow'

/** Weights of clean signal and noise in a sample. */
export interface Mixture {
  readonly signal: number
  readonly noise: number
}

/** A scheduler's class over the config `C`. */
interface SchedulerClass<Instance, C> {
  readonly name: string
  /** the keys of its config */
  readonly fields: Fields
  /** values that only other classes know, under the keys they share with this one; the default stands in */
  readonly foreign: Readonly<Record<string, readonly string[]>>
  check(config: C): void
  makeBetas(config: C): Float32Array
  new (config?: Partial<C>): Instance
}

/**
 * The `fromConfig` of a scheduler's class: takes what applies from the `scheduler_config.json` of any scheduler class, or
 * from the config of a scheduler (also spread into a new object), and ignores its other keys. `overrides` are values of
 * the class itself to use instead. Throws KandinskyError `INVALID_ARGUMENT` naming the key and its value, also for an
 * override that the class lacks.
 */
export function fromConfigOf<Instance, C>(schedulerClass: () => SchedulerClass<Instance, C>) {
  return (config: object, overrides: Partial<C> = {}): Instance => {
    const Class = schedulerClass()
    return new Class(knownPart(Class, config, overrides) as Partial<C>)
  }
}

/** A variance-preserving process over `num_train_timesteps` discrete timesteps: model inputs are not scaled. */
export abstract class DiscreteScheduler<C extends { readonly num_train_timesteps: number }> {
  static readonly foreign: Readonly<Record<string, readonly string[]>> = {}
  readonly config: C
  readonly order: number = 1
  protected readonly betas: Float32Array
  /** share of the signal's variance that is left at each training timestep */
  protected readonly alphasCumprod: Float32Array
  #timesteps: readonly number[] = []
  /** where the run stands; unknown before its first call unless set */
  #stepIndex: number | undefined

  /**
   * @param config diffusers' keys and defaults
   * @throws KandinskyError `INVALID_ARGUMENT` naming the key and its value
   */
  constructor(config: Partial<C> = {}) {
    const { name, fields, check, makeBetas } = new.target as unknown as SchedulerClass<unknown, C>
    this.config = readConfig(name, fields, config) as unknown as C
    check(this.config)
    this.betas = makeBetas(this.config)
    this.alphasCumprod = cumulativeAlphas(this.betas)
    if (!this.alphasCumprod.every((alpha) => alpha >= 0 && alpha < 1))
      throw invalid('betas', 'a schedule whose cumulative alphas lie from 0 to below 1 in float32', this.betas)
  }

  /** Refuses values that do not go together. */
  static check(_config: unknown): void {}

  static makeBetas(config: BetaConfig): Float32Array {
    return makeBetas(config)
  }

  clone(): this {
    return new (this.constructor as unknown as new (config: C) => this)(this.config)
  }

  get timesteps(): readonly number[] {
    return this.#timesteps
  }

  protected set timesteps(timesteps: readonly number[]) {
    this.#timesteps = Object.freeze([...timesteps])
    this.beginRun(undefined)
  }

  get initNoiseSigma(): number {
    return 1
  }

  get learnsVariance(): boolean {
    return false
  }

  get canForecast(): boolean {
    return true
  }

  originalOf(prediction: Tensor, timestep: number, sample: Tensor): Tensor {
    const [ofSample, ofPrediction] = this.#originalFactors(timestep)
    return new Tensor(
      sample.data.map((x, i) => ofSample * x + ofPrediction * prediction.data[i]!),
      sample.shape,
    )
  }

  predictionOf(original: Tensor, timestep: number, sample: Tensor): Tensor {
    const [ofSample, ofPrediction] = this.#originalFactors(timestep)
    return new Tensor(
      sample.data.map((x, i) => (original.data[i]! - ofSample * x) / ofPrediction),
      sample.shape,
    )
  }

  /** original = first * sample + second * prediction, for sample = signal * original + noise * epsilon. */
  #originalFactors(timestep: number): readonly [number, number] {
    const { signal, noise } = this.mixtureAt(timestep)
    const power = signal * signal + noise * noise
    switch (this.predicts) {
      case 'epsilon':
        return [1 / signal, -noise / signal]
      case 'sample':
        return [0, 1]
      case 'v_prediction':
        return [signal / power, -noise / Math.sqrt(power)]
      case 'flow': // epsilon - original
        return [1, -noise]
    }
  }

  /** What the network's output means. */
  protected get predicts(): Prediction {
    return (this.config as { prediction_type?: Prediction }).prediction_type ?? 'epsilon'
  }

  firstCall(steps: number): number {
    return steps * this.order
  }

  setBeginIndex(index: number): void {
    const last = this.timesteps.length - 1
    if (!Number.isSafeInteger(index) || index < 0 || index > last || index % this.order !== 0)
      throw invalid('index', `a multiple of ${this.order} from 0 to ${last}`, index)
    this.beginRun(index)
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
      const { signal, noise: sigma } = this.mixtureAt(timestep)
      for (let i = row * rowLength; i < (row + 1) * rowLength; i++)
        data[i] = Math.fround(signal * original.data[i]!) + Math.fround(sigma * noise.data[i]!)
    }
    return new Tensor(data, original.shape)
  }

  /** How a sample at `timestep` is mixed. */
  protected mixtureAt(timestep: number): Mixture {
    const total = this.config.num_train_timesteps
    if (!Number.isSafeInteger(timestep) || timestep < 0 || timestep >= total)
      throw invalid('timesteps', `integers from 0 to ${total - 1}`, timestep)
    return mixture(this.alphasCumprod[timestep]!)
  }

  /** Forgets the run before. Schedulers that keep more than their place between steps extend it. */
  protected beginRun(stepIndex: number | undefined): void {
    this.#stepIndex = stepIndex
  }

  /** The timestep after `timestep` in this run, -1 after the last. */
  protected nextTimestep(timestep: number): number {
    return this.timesteps[this.indexOf(timestep) + 1] ?? -1
  }

  /**
   * The place of `timestep` in the run. Of repeated timesteps it is the one where the run stands, else the second one,
   * where a step of a second-order scheduler begins.
   */
  protected indexOf(timestep: number): number {
    if (this.timesteps.length === 0)
      throw new KandinskyError('INVALID_ARGUMENT', 'Expected setTimesteps to be called before step')
    const index = this.timesteps.indexOf(timestep)
    if (index < 0) throw invalid('timestep', `one of the ${this.timesteps.length} in timesteps`, timestep)
    if (this.#stepIndex !== undefined && this.timesteps[this.#stepIndex] === timestep) return this.#stepIndex
    return this.timesteps[index + 1] === timestep ? index + 1 : index
  }

  /** The place of a call in the run, for schedulers that go by the order of calls. */
  protected currentIndex(timestep: number): number {
    this.#stepIndex ??= this.timesteps[0] === timestep ? 0 : this.indexOf(timestep)
    const expected = this.timesteps[this.#stepIndex]
    if (expected === undefined)
      throw new KandinskyError('INVALID_ARGUMENT', 'Expected setTimesteps to be called before another run')
    if (timestep !== expected) throw invalid('timestep', `${expected}, the next of the run,`, timestep)
    return this.#stepIndex
  }

  /** `currentIndex` for a step; these schedulers cannot leave out timesteps. */
  protected beginStep(timestep: number, { prevTimestep }: StepOptions): number {
    const index = this.currentIndex(timestep)
    const next = this.timesteps[index + 1] ?? -1
    if (prevTimestep !== undefined && prevTimestep !== next)
      throw invalid('prevTimestep', `${next}, the next of the run,`, prevTimestep)
    return index
  }

  /** To be called at the end of a step by schedulers that go by the order of calls. */
  protected advance(index: number): void {
    this.#stepIndex = index + 1
  }

  /** `prevTimestep` of the options, checked, or else `automatic`. */
  protected prevTimestep(timestep: number, given: number | undefined, automatic: number): number {
    if (given === undefined) return automatic
    if (!Number.isSafeInteger(given) || given >= timestep)
      throw invalid('prevTimestep', `an integer below ${timestep}`, given)
    return given
  }
}

/** The variance-preserving mixture with this cumulative alpha. */
export function mixture(alphaCumprod: number): Mixture {
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

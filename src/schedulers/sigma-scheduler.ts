// What the schedulers that count in noise levels (sigmas) share.
import { Tensor } from '../tensor.js'
import type { PredictionType } from './prediction.js'
import { DiscreteScheduler, type Mixture, sqrt32 } from './scheduler.js'
import { mixtureOfSigma, trainingSigmas } from './sigmas.js'
import type { TimestepSpacing } from './timesteps.js'

/**
 * Schedulers with a sigma for every timestep of the run and one for its end, whose samples are variance-preserving, as
 * the networks see them.
 */
export abstract class SigmaScheduler<C extends { readonly num_train_timesteps: number }> extends DiscreteScheduler<C> {
  /** of every training timestep, ascending */
  protected readonly trainSigmas: Float32Array
  /** sigma of `timesteps[i]` at i, then that of the run's result */
  protected sigmas: Float32Array

  constructor(config: Partial<C> = {}) {
    super(config)
    // with zero terminal SNR the last sigma would be infinite; the reference puts float16's smallest number there
    const last = this.alphasCumprod.length - 1
    if (this.alphasCumprod[last] === 0) this.alphasCumprod[last] = 2 ** -24
    this.trainSigmas = trainingSigmas(this.alphasCumprod)
    this.sigmas = this.trainSigmas
  }

  protected override mixtureAt(timestep: number): Mixture {
    return mixtureOfSigma(this.sigmas[this.indexOf(timestep)]!)
  }
}

/**
 * Schedulers of Karras et al. on samples whose signal keeps its scale while sigma grows ("variance exploding"); the
 * networks get them scaled to the variance that they know.
 */
export abstract class KarrasScheduler<
  C extends {
    readonly num_train_timesteps: number
    readonly timestep_spacing: TimestepSpacing
    readonly prediction_type: PredictionType
  },
> extends SigmaScheduler<C> {
  override get initNoiseSigma(): number {
    const max = this.sigmas.reduce((a, b) => Math.max(a, b))
    return this.config.timestep_spacing === 'leading' ? sqrt32(Math.fround(Math.fround(max * max) + 1)) : max
  }

  override scaleModelInput(sample: Tensor, timestep: number): Tensor {
    const sigma = this.sigmas[this.currentIndex(timestep)]!
    const root = sqrt32(Math.fround(Math.fround(sigma * sigma) + 1))
    return new Tensor(
      sample.data.map((value) => value / root),
      sample.shape,
    )
  }

  protected override mixtureAt(timestep: number): Mixture {
    return { signal: 1, noise: this.sigmas[this.indexOf(timestep)]! }
  }

  /**
   * The clean sample that `prediction` implies for a sample of this sigma, which can be 20000: the order of the
   * operations is the reference's, because differences of large numbers keep its rounding.
   */
  protected predictOriginal(prediction: Float32Array, sample: Float32Array, sigma: number): Float32Array {
    const variance = Math.fround(Math.fround(sigma * sigma) + 1)
    switch (this.config.prediction_type) {
      case 'epsilon':
        return sample.map((x, i) => x - Math.fround(sigma * prediction[i]!))
      case 'sample':
        return prediction.slice()
      case 'v_prediction': {
        const weight = Math.fround(sigma / sqrt32(variance))
        return sample.map((x, i) => Math.fround(x / variance) - Math.fround(weight * prediction[i]!))
      }
    }
  }
}

/** d sample / d sigma, on the line from `original` through `sample`. */
export function slopeOf(sample: Float32Array, original: Float32Array, sigma: number): Float32Array {
  return sample.map((x, i) => Math.fround(x - original[i]!) / sigma)
}

/** `sample` where sigma has changed by `step` along `slope`. */
export function follow(sample: Float32Array, slope: Float32Array, step: number): Float32Array {
  const step32 = Math.fround(step)
  return sample.map((x, i) => x + Math.fround(slope[i]! * step32))
}

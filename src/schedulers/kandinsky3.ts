// The samplers of Kandinsky 3's authors (https://github.com/ai-forever/Kandinsky-3, model/diffusion.py), which their
// inpainting and Flash checkpoints were made for. diffusers has neither.
//
// Easy to get wrong:
// - Timesteps go down from 999 by ceil(1000 / steps), so that there can be fewer of them than were asked for; the run ends
//   at timestep 0, whose sample still has 0.004 % noise, not at the clean sample.
// - The clean sample is clamped to a quantile of its magnitudes, at least 1, without an upper limit, and divided by it; the
//   noise that goes on is computed anew from what is left.
// - Rounding may leave a negative variance where nothing but fresh noise should be; the reference gives NaN then.
// - Flash makes a clean sample at each of its steps and noise of it for the next; before the first it takes the initial
//   noise for a clean sample.
import { invalid } from '../errors.js'
import type { RandomSource } from '../random.js'
import { Tensor } from '../tensor.js'
import { betasForAlphaBar, cosineAlphaBar } from './betas.js'
import { type ConfigOf, integer, number, only } from './config.js'
import { drawNoise } from './posterior.js'
import { predictOriginal, splitModelOutput, thresholdDynamically } from './prediction.js'
import {
  DiscreteScheduler,
  fromConfigOf,
  mixture,
  type Scheduler,
  type StepOptions,
  type StepOutput,
  sqrt32,
} from './scheduler.js'

const FIELDS = {
  num_train_timesteps: integer(1000, 2, 1000),
  /** share of the magnitudes that are not clamped: 0.99 for text to image, 0.95 for inpainting */
  dynamic_thresholding_ratio: number(0.99, 0, 1),
  prediction_type: only('epsilon'),
}

export type Kandinsky3SchedulerConfig = ConfigOf<typeof FIELDS>

/** Timesteps from `first` down to above 0, `stride` apart. */
function countDown(first: number, stride: number): number[] {
  return Array.from({ length: Math.ceil(first / stride) }, (_, i) => first - i * stride)
}

function checkSteps(steps: number, most: number): void {
  if (!Number.isSafeInteger(steps) || steps < 1 || steps > most)
    throw invalid('numInferenceSteps', `an integer from 1 to ${most}`, steps)
}

/** DDPM over every n-th timestep, with dynamic thresholding (Saharia et al., 2022). */
export class Kandinsky3Scheduler extends DiscreteScheduler<Kandinsky3SchedulerConfig> implements Scheduler {
  static readonly fields = FIELDS
  static readonly fromConfig = fromConfigOf<Kandinsky3Scheduler, Kandinsky3SchedulerConfig>(() => Kandinsky3Scheduler)

  static override makeBetas(config: unknown): Float32Array {
    return betasForAlphaBar((config as Kandinsky3SchedulerConfig).num_train_timesteps, cosineAlphaBar)
  }

  setTimesteps(numInferenceSteps: number): void {
    const { num_train_timesteps: total } = this.config
    checkSteps(numInferenceSteps, total)
    this.timesteps = countDown(total - 1, Math.ceil(total / numInferenceSteps))
  }

  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const index = this.beginStep(timestep, options)
    const { prediction } = splitModelOutput(modelOutput, sample, false)
    const alpha = this.alphasCumprod[timestep]!
    const next = this.timesteps[index + 1] ?? 0
    const nextAlpha = this.alphasCumprod[next]!
    const mixed = mixture(alpha)
    const original = predictOriginal('epsilon', prediction, sample.data, mixed)
    thresholdDynamically(original, sample.shape[0]!, { ...this.config, thresholding: true, sample_max_value: Infinity })
    const left = Math.fround(1 - nextAlpha)
    const share = Math.fround(Math.fround(1 - Math.fround(alpha / nextAlpha)) * left)
    const deviation = sqrt32(Math.fround(share / Math.fround(1 - alpha)))
    const direction = sqrt32(Math.max(Math.fround(left - Math.fround(deviation * deviation)), 0))
    const signal = sqrt32(nextAlpha)
    const noise = drawNoise(sample.shape, options.generator, options.dtype).data // the last one is not used
    const data = sample.data.map((x, i) => {
      const epsilon = Math.fround(Math.fround(x - Math.fround(mixed.signal * original[i]!)) / mixed.noise)
      const mean = Math.fround(Math.fround(signal * original[i]!) + Math.fround(direction * epsilon))
      return next === 0 ? mean : mean + Math.fround(deviation * noise[i]!)
    })
    this.advance(index)
    return { prevSample: new Tensor(data, sample.shape), predOriginalSample: new Tensor(original, sample.shape) }
  }
}

const FLASH_FIELDS = {
  num_train_timesteps: integer(1000, 2, 1000),
  /** of the first step */
  first_timestep: integer(979, 1, 999),
  prediction_type: only('epsilon'),
}

export type Kandinsky3FlashSchedulerConfig = ConfigOf<typeof FLASH_FIELDS>

/** For Kandinsky 3.1 Flash, which was distilled to four steps without guidance. */
export class Kandinsky3FlashScheduler extends DiscreteScheduler<Kandinsky3FlashSchedulerConfig> implements Scheduler {
  static readonly fields = FLASH_FIELDS
  static readonly fromConfig = fromConfigOf<Kandinsky3FlashScheduler, Kandinsky3FlashSchedulerConfig>(
    () => Kandinsky3FlashScheduler,
  )

  static override makeBetas(config: unknown): Float32Array {
    return betasForAlphaBar((config as Kandinsky3FlashSchedulerConfig).num_train_timesteps, cosineAlphaBar)
  }

  override get canForecast(): boolean {
    return false
  }

  setTimesteps(numInferenceSteps: number): void {
    const { num_train_timesteps: total, first_timestep: first } = this.config
    checkSteps(numInferenceSteps, first)
    this.timesteps = countDown(first, Math.ceil(total / numInferenceSteps))
  }

  /** The initial noise, noised once more, as the first input. */
  startFrom(noise: Tensor, generator: RandomSource | readonly RandomSource[]): Tensor {
    return this.#noised(noise, this.timesteps[0]!, { generator })
  }

  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const index = this.beginStep(timestep, options)
    const { prediction } = splitModelOutput(modelOutput, sample, false)
    const data = predictOriginal('epsilon', prediction, sample.data, mixture(this.alphasCumprod[timestep]!))
    const original = new Tensor(data, sample.shape)
    const next = this.timesteps[index + 1]
    this.advance(index)
    return {
      prevSample: next === undefined ? original : this.#noised(original, next, options),
      predOriginalSample: original,
    }
  }

  #noised(original: Tensor, timestep: number, { generator, dtype }: StepOptions): Tensor {
    return this.addNoise(original, drawNoise(original.shape, generator, dtype), [timestep])
  }
}

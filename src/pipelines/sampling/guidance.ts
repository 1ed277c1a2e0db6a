// Classifier-free guidance: a prediction is pushed away from what the model predicts without the prompt (Ho and Salimans
// 2022). Each form wraps a `Predict`; the loop of sample.ts knows nothing of it.
import { concatChannels, concatRows, sliceRows, splitChannels, Tensor } from '../../tensor.js'
import type { Moment, Predict } from './sample.js'

/** uncond + g (cond - uncond) on a batch [uncond; cond], in float32 like the reference. */
export function guide(batch: Tensor, guidanceScale: number): Tensor {
  const rows = batch.shape[0]! / 2
  const uncond = sliceRows(batch, 0, rows)
  const cond = sliceRows(batch, rows, 2 * rows)
  const scale = Math.fround(guidanceScale)
  const data = uncond.data.map((u, i) => u + Math.fround(scale * Math.fround(cond.data[i]! - u)))
  return new Tensor(data, uncond.shape)
}

/** (g + 1) cond - g uncond: Kandinsky 3 counts from the conditional prediction. */
export function guideBeyond(batch: Tensor, guidanceScale: number): Tensor {
  const rows = batch.shape[0]! / 2
  const uncond = sliceRows(batch, 0, rows)
  const cond = sliceRows(batch, rows, 2 * rows)
  const [more, scale] = [Math.fround(guidanceScale + 1), Math.fround(guidanceScale)]
  const data = cond.data.map((c, i) => Math.fround(more * c) - Math.fround(scale * uncond.data[i]!))
  return new Tensor(data, cond.shape)
}

/** Guidance is off up to 1, where it would not change the prediction or weaken the prompt. */
export function isGuided(guidanceScale: number): boolean {
  return guidanceScale > 1
}

/** The part of a run that is guided, as fractions of its steps. */
export type GuidanceInterval = readonly [from: number, to: number]

/** Whether a step lies in the interval; rounded as in diffusers' guiders (`start`, `stop`). */
export function isWithin([from, to]: GuidanceInterval, { index, count }: Pick<Moment, 'index' | 'count'>): boolean {
  return index >= Math.floor(from * count) && index < Math.floor(to * count)
}

/** Two models in one: both halves of guidance, the unconditional one first, and the conditional one alone. */
export interface GuidedModel {
  both: Predict
  alone: Predict
}

/**
 * Within the interval the model sees each sample twice, and what it makes of both becomes one; elsewhere the conditional
 * prediction stands alone (Kynkäänniemi et al., "Applying Guidance in a Limited Interval Improves Sample and Distribution
 * Quality in Diffusion Models", 2024).
 */
export function guided(
  { guidanceScale, guidanceInterval }: { guidanceScale: number; guidanceInterval?: GuidanceInterval },
  model: GuidedModel,
  combine: (batch: Tensor) => Tensor = (batch) => guide(batch, guidanceScale),
): Predict {
  if (!isGuided(guidanceScale)) return model.alone
  return async (sample, moment) =>
    guidanceInterval === undefined || isWithin(guidanceInterval, moment)
      ? combine(await model.both(concatRows([sample, sample]), moment))
      : model.alone(sample, moment)
}

/**
 * `guide` for outputs of noise and, behind its channels, variance: guidance acts on the noise only, the variance is that
 * of the conditional branch (diffusers' pipeline_kandinsky2_2.py).
 */
export function guideNoise(batch: Tensor, channels: number, guidanceScale: number): Tensor {
  if (batch.shape[1] === channels) return guide(batch, guidanceScale)
  const [noise, variance] = splitChannels(batch, channels)
  const rows = batch.shape[0]! / 2
  return concatChannels([guide(noise, guidanceScale), sliceRows(variance, rows, 2 * rows)])
}

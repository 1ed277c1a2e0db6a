// Steps whose prediction is forecast instead of computed, for any network and most schedulers: what the steps before found
// the clean sample to be changes smoothly, so that a polynomial through the last few says what it will be next (the idea of
// "Spectrum", 2026, and of Taylor-series caches for transformers: Liu et al., "From Reusing to Forecasting", 2025).
//
// Easy to get wrong: it is the clean sample that is smooth, not the network's output. Where a scheduler adds noise at each
// step (DDPM, Euler ancestral) the output holds the noise of its own step, and one forecast from others would not take it
// away. So predictions go through the clean sample, with the sample that the step really has.
import { invalid, KandinskyError } from '../../errors.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import { concatChannels, splitChannels, Tensor } from '../../tensor.js'
import { expectInteger, expectOptions } from '../call/options.js'
import type { Moment, Predict } from './sample.js'

/** Which steps are computed, and how the others are forecast. */
export interface Forecast {
  /** after the first steps one of so many is computed, 2 to 10; the last always is */
  interval: number
  /** first steps, all computed, in which the picture takes shape: 1 to 100, default 4 */
  warmup?: number | undefined
  /** of the polynomial through the last computed steps: 0 repeats the last, 1 (default) goes on straight, 2 */
  order?: number | undefined
}

/** `balanced` and `fast` are presets: of 25 steps they compute 11 and 8. What that costs: docs/performance.md. */
export type ForecastOption = 'balanced' | 'fast' | Forecast

const presets: Record<string, Required<Forecast>> = {
  balanced: { interval: 3, warmup: 3, order: 1 },
  fast: { interval: 5, warmup: 3, order: 1 },
}
const FEWEST_STEPS = 8

/**
 * @returns undefined where every step is computed
 * @throws KandinskyError `INVALID_ARGUMENT`, also for a scheduler or a run that nothing can be forecast in
 */
export function checkForecast(option: unknown, scheduler: Scheduler): Required<Forecast> | undefined {
  if (option === undefined) return undefined
  const forecast = expectForecast(option)
  if (!scheduler.canForecast)
    throw new KandinskyError(
      'INVALID_ARGUMENT',
      `forecast does not go with ${scheduler.constructor.name}, whose calls of the network do not follow one smooth path`,
    )
  const calls = scheduler.timesteps.length
  if (calls < FEWEST_STEPS)
    throw new KandinskyError(
      'INVALID_ARGUMENT',
      `forecast needs ${FEWEST_STEPS} steps or more but numInferenceSteps is ${calls}: from one step to the next too much changes`,
    )
  return forecast
}

function expectForecast(option: unknown): Required<Forecast> {
  if (typeof option === 'string' && Object.hasOwn(presets, option)) return presets[option]!
  if (option === null || typeof option !== 'object')
    throw invalid('forecast', `one of ${Object.keys(presets).join(', ')}, or { interval, warmup, order }`, option)
  expectOptions(option, ['interval', 'warmup', 'order'])
  const { interval, warmup = 4, order = 1 } = option as Forecast
  return {
    interval: expectInteger('forecast.interval', interval, 2, 10),
    warmup: expectInteger('forecast.warmup', warmup, 1, 100),
    order: expectInteger('forecast.order', order, 0, 2),
  }
}

/** Whether a step is computed. */
export function isComputed({ interval, warmup }: Required<Forecast>, { index, count }: Moment): boolean {
  return index < warmup || index === count - 1 || (index - warmup) % interval === interval - 1
}

/** A computed step: what it said of the clean sample, and of the variance where the network learned it. */
interface Known {
  index: number
  original: Tensor
  variance: Tensor | undefined
}

/** `predict`, asked only at some steps. */
export function forecasting(forecast: Required<Forecast> | undefined, scheduler: Scheduler, predict: Predict): Predict {
  if (forecast === undefined) return predict
  const known: Known[] = []
  return async (sample, moment) => {
    const { timestep, index, latents } = moment
    if (known.length === 0 || isComputed(forecast, moment)) {
      const output = await predict(sample, moment)
      const [prediction, variance] = scheduler.learnsVariance
        ? splitChannels(output, latents.shape[1]!)
        : [output, undefined]
      const original = scheduler.originalOf(prediction, timestep, latents)
      // Where nothing of the signal is left (zero terminal SNR) a prediction of noise says nothing of it.
      if (original.data.every(Number.isFinite)) known.push({ index, original, variance })
      if (known.length > forecast.order + 1) known.shift()
      return output
    }
    const prediction = scheduler.predictionOf(extrapolate(known, index), timestep, latents)
    const { variance } = known.at(-1)!
    return variance ? concatChannels([prediction, variance]) : prediction
  }
}

/** The polynomial through the known steps at `index` (Lagrange's form). */
function extrapolate(known: readonly Known[], index: number): Tensor {
  const weights = known.map((one) =>
    known.reduce((product, other) => {
      return other === one ? product : (product * (index - other.index)) / (one.index - other.index)
    }, 1),
  )
  const { shape } = known[0]!.original
  const data = new Float32Array(known[0]!.original.data.length)
  for (const [k, { original }] of known.entries())
    for (let i = 0; i < data.length; i++) data[i]! += weights[k]! * original.data[i]!
  return new Tensor(data, shape)
}

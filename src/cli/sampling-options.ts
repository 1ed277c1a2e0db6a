// The flags of `kandinsky generate` that say how a picture is computed, as options of the API.
import type { ForecastOption } from '../pipelines/sampling/forecast.js'
import type { GuidanceInterval } from '../pipelines/sampling/guidance.js'
import type { HiresFix } from '../pipelines/sampling/hires-fix.js'
import { type Invocation, numberList, numberOption, textOption, UsageError } from './options.js'

export const positive = { integer: true, min: 1 }

export function samplingOptions(values: Invocation['values']) {
  return {
    negativePrompt: textOption(values, 'negative'),
    numImagesPerPrompt: numberOption(values, 'count', positive),
    priorNumInferenceSteps: numberOption(values, 'prior-steps', positive),
    priorGuidanceScale: numberOption(values, 'prior-guidance'),
    numInferenceSteps: numberOption(values, 'steps', positive),
    guidanceScale: numberOption(values, 'guidance'),
    guidanceInterval: intervalOption(values),
    forecast: forecastOption(values),
    hiresFix: hiresOption(values),
    width: numberOption(values, 'width', positive),
    height: numberOption(values, 'height', positive),
  }
}

function intervalOption(values: Invocation['values']): GuidanceInterval | undefined {
  const parts = numberList(values, 'guidance-interval')
  if (parts === undefined) return undefined
  const [from, to, ...rest] = parts
  if (from === undefined || to === undefined || rest.length > 0)
    throw new UsageError(`expected two numbers such as 0,0.6 for --guidance-interval but received ${parts.join(',')}`)
  return [from, to]
}

function forecastOption(values: Invocation['values']): ForecastOption | undefined {
  const text = textOption(values, 'forecast')
  if (text === undefined || text === 'balanced' || text === 'fast') return text
  const [interval, warmup, order, ...rest] = numberList(values, 'forecast') ?? []
  if (interval === undefined || rest.length > 0)
    throw new UsageError(`expected balanced, fast or INTERVAL,WARMUP,ORDER for --forecast but received ${text}`)
  return { interval, warmup, order }
}

function hiresOption(values: Invocation['values']): HiresFix | undefined {
  const scale = numberOption(values, 'hires-scale', { min: 1, max: 8 })
  const strength = numberOption(values, 'hires-strength', { min: 0, max: 1 })
  if (scale === undefined && strength === undefined) return undefined
  for (const flag of ['image', 'hint'])
    if (values[flag] !== undefined) throw new UsageError(`--hires-scale and --${flag} exclude each other`)
  return { scale, strength }
}

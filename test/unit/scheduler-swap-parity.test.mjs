// The schedulers that people swap in against diffusers: whole runs, schedules, addNoise and converted configs, recorded by
// scripts/reference/swap_scheduler_cases.py.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import { schedulerByName } from '../../dist/schedulers/registry.js'
import { Tensor } from '../../dist/tensor.js'
import { assertClose } from '../helpers/compare.mjs'
import { readSafetensors } from '../helpers/safetensors.mjs'

const fixtures = new URL('../fixtures/extra/', import.meta.url)
const recorded = JSON.parse(readFileSync(new URL('swap-scheduler-cases.json', fixtures)))
const tensors = readSafetensors(new URL('swap-scheduler-cases.safetensors', fixtures))

/** Entry `index` of a recorded tensor's first dimension. */
const entry = ({ data, shape: [count, ...shape] }, index) => {
  const length = data.length / count
  return new Tensor(data.slice(index * length, (index + 1) * length), shape)
}
const sample = new Tensor(tensors.get('sample').data, tensors.get('sample').shape)
const noise = entry(tensors.get('noises'), 0)
const TOLERANCE = 1e-5
/** UniPC on noise: the reference computes its weights in float32, as differences of near numbers. */
const NOISE_TOLERANCE = 3e-5
/** What a step rounds away of a sample as large as 20000: torch's square root itself is off by a unit in the last place. */
const ROUNDING = 3e-7
/** Timesteps that the reference finds by float32 logarithms, in which its SIMD code is not correctly rounded. */
const TIMESTEP_TOLERANCE = 1e-3

const name = ({ class: className, config, steps, start = 0, options = {} }) =>
  `${className} ${JSON.stringify(config)} ${steps} steps from ${start} ${JSON.stringify(options)}`

/** s_churn to sChurn */
const camelCase = (options) =>
  Object.fromEntries(
    Object.entries(options).map(([key, value]) => [key.replace(/_./, (m) => m[1].toUpperCase()), value]),
  )

function assertTimesteps(actual, expected, where) {
  assert.equal(actual.length, expected.length, where)
  for (const [i, timestep] of expected.entries())
    assert.ok(
      Math.abs(actual[i] - timestep) <= TIMESTEP_TOLERANCE,
      `${where}: timesteps[${i}] is ${actual[i]}, not ${timestep}`,
    )
}

/** Where the run of each case begins in `prev_samples`. */
let length = 0
const cases = recorded.cases.map((each) => {
  const first = length
  length += each.timesteps.length - (each.start ?? 0)
  return { ...each, first }
})

for (const className of new Set(cases.map((each) => each.class))) {
  test(`${className}: runs with all combinations of settings`, () => {
    const own = cases.filter((each) => each.class === className)
    assert.ok(own.length > 5)
    const failures = own.flatMap((each) => {
      try {
        runsLikeReference(each)
        return []
      } catch (error) {
        return [error.message]
      }
    })
    assert.deepEqual(failures, [])
  })
}

function runsLikeReference(each) {
  const { start = 0, options = {}, first } = each
  const where = name(each)
  const scheduler = schedulerByName(each.class, each.config)
  scheduler.setTimesteps(each.steps)
  assertTimesteps(scheduler.timesteps, each.timesteps, where)
  const sigma = scheduler.initNoiseSigma
  assertClose(
    `${where}: initNoiseSigma`,
    { data: [sigma], shape: [] },
    { data: [each.init_noise_sigma], shape: [] },
    1e-6,
  )
  if (start > 0) scheduler.setBeginIndex(start)
  let current = new Tensor(
    sample.data.map((x) => x * sigma),
    sample.shape,
  )
  for (const [call, timestep] of scheduler.timesteps.slice(start).entries()) {
    const scaled = scheduler.scaleModelInput(current, timestep)
    const pattern = entry(tensors.get('patterns'), call % 8)
    const modelOutput = new Tensor(
      scaled.data.map((x, i) => Math.fround(Math.fround(0.8) * x) + Math.fround(Math.fround(0.6) * pattern.data[i])),
      scaled.shape,
    )
    const generator = { randn: () => entry(tensors.get('noises'), call % 8) }
    const largest = current.data.reduce((max, x) => Math.max(max, Math.abs(x)), 0)
    const { prevSample } = scheduler.step(modelOutput, timestep, current, { generator, ...camelCase(options) })
    const expected = entry(tensors.get('prev_samples'), first + call)
    const tolerance = each.config.predict_x0 === false ? NOISE_TOLERANCE : TOLERANCE
    assertClose(`${where}: prevSample[${call}]`, prevSample, expected, Math.max(tolerance, largest * ROUNDING))
    // short runs go on with the reference's sample, so that every step is judged by itself
    current = each.steps < 20 ? expected : prevSample
  }
}

test('timesteps and noise levels of long runs', () => {
  for (const [index, each] of recorded.schedules.entries()) {
    const scheduler = schedulerByName(each.class, each.config)
    scheduler.setTimesteps(each.steps)
    assertTimesteps(scheduler.timesteps, tensors.get(`schedule.${index}.timesteps`).data, name(each))
    const { data: sigmas } = tensors.get(`schedule.${index}.sigmas`)
    const zeros = new Tensor(new Float32Array(1), [1, 1])
    const ones = new Tensor(Float32Array.of(1), [1, 1])
    for (const [i, timestep] of scheduler.timesteps.entries()) {
      // what addNoise makes of 0 and 1 is the noise level at that timestep
      scheduler.setBeginIndex(i - (i % scheduler.order))
      const [level] = scheduler.addNoise(zeros, ones, [timestep]).data
      const isScaled = scheduler.initNoiseSigma !== 1
      const expected = isScaled ? sigmas[i] : sigmas[i] / Math.sqrt(sigmas[i] ** 2 + 1)
      assert.ok(Math.abs(level / expected - 1) < 1e-6, `${name(each)}: sigma ${i} is ${level}, not ${expected}`)
    }
  }
})

test('addNoise at every timestep of a run', () => {
  for (const [index, each] of recorded.add_noise.entries()) {
    const scheduler = schedulerByName(each.class, each.config)
    scheduler.setTimesteps(each.steps)
    const rows = tensors.get(`add_noise.${index}`)
    for (const [i, timestep] of scheduler.timesteps.entries())
      assertClose(`${name(each)} at ${timestep}`, scheduler.addNoise(sample, noise, [timestep]), entry(rows, i), 1e-6)
  }
})

test('fromConfig takes from another class what diffusers takes', () => {
  for (const { source, stored, chain, config } of recorded.converted) {
    const made = chain.reduce((from, target) => schedulerByName(target, from.config), schedulerByName(source, stored))
    // of these JSON does not know the one, and the other is DPM-Solver's that takes none
    for (const [key, value] of Object.entries(made.config))
      if (key !== 'lambda_min_clipped' && key !== 'variance_type')
        assert.deepEqual(value, config[key], `${source} to ${chain}: ${key}`)
  }
})

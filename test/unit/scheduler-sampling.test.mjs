// Whether the schedulers that people swap in sample: from a distribution whose perfect network has a formula, by themselves
// and in the pipelines' loop.
import assert from 'node:assert/strict'
import test from 'node:test'
import { sample } from '../../dist/pipelines/sampling/sample.js'
import { scaledNoise } from '../../dist/pipelines/sampling/start.js'
import { Generator } from '../../dist/random.js'
import { DPMSolverMultistepScheduler } from '../../dist/schedulers/dpmsolver-multistep.js'
import { EulerDiscreteScheduler } from '../../dist/schedulers/euler.js'
import { EulerAncestralDiscreteScheduler } from '../../dist/schedulers/euler-ancestral.js'
import { HeunDiscreteScheduler } from '../../dist/schedulers/heun.js'
import { LCMScheduler } from '../../dist/schedulers/lcm.js'
import { PNDMScheduler } from '../../dist/schedulers/pndm.js'
import { UniPCMultistepScheduler } from '../../dist/schedulers/unipc-multistep.js'
import { Tensor } from '../../dist/tensor.js'
import { assertClose } from '../helpers/compare.mjs'

/** LCM needs a network that was distilled for it. */
const classes = [
  EulerDiscreteScheduler,
  EulerAncestralDiscreteScheduler,
  HeunDiscreteScheduler,
  DPMSolverMultistepScheduler,
  UniPCMultistepScheduler,
  PNDMScheduler,
]
/** the noise schedule of Kandinsky 2.2 */
const KANDINSKY = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'linear', steps_offset: 1 }
const randn = (seed, shape = [2, 4, 2, 3]) => new Generator(seed).randn(shape)
const map = ({ data, shape }, f) => new Tensor(data.map(f), shape)

// ---- sampling a known distribution: every value N(MEAN, STD²), for which the best prediction has a formula

const MEAN = 0.7
const STD = 0.4

/** Weights of signal and noise that the network sees at a timestep. */
function mixtureAt(scheduler, timestep) {
  const [zero, one] = [new Tensor(new Float32Array(1), [1, 1]), new Tensor(Float32Array.of(1), [1, 1])]
  const signal = scheduler.addNoise(one, zero, [timestep]).data[0]
  const noise = scheduler.addNoise(zero, one, [timestep]).data[0]
  const norm = Math.hypot(signal, noise)
  return { signal: signal / norm, noise: noise / norm }
}

/** The noise to expect in `input`. */
const expectedNoise = (input, { signal, noise }) =>
  map(input, (x) => (noise * (x - signal * MEAN)) / (signal ** 2 * STD ** 2 + noise ** 2))

/** Where the probability flow leads `input`: it keeps its quantile. */
const flowEnd = (input, { signal, noise }) =>
  map(input, (x) => MEAN + (STD * (x - signal * MEAN)) / Math.hypot(signal * STD, noise))

/** A run from index `begin` of the timesteps; `start` is drawn from the distribution as it looks there. */
function sampleGaussian(scheduler, steps, { begin = 0, shape = [1, 4, 8, 8], seed = 1 } = {}) {
  scheduler.setTimesteps(steps)
  scheduler.setBeginIndex(begin)
  const timesteps = scheduler.timesteps.slice(begin)
  const original = map(randn(seed, shape), (z) => MEAN + STD * z)
  let sample = scheduler.addNoise(original, randn(seed + 1, shape), [timesteps[0]])
  const expected = flowEnd(scheduler.scaleModelInput(sample, timesteps[0]), mixtureAt(scheduler, timesteps[0]))
  const generator = new Generator(seed + 2)
  for (const timestep of timesteps) {
    const input = scheduler.scaleModelInput(sample, timestep)
    const modelOutput = expectedNoise(input, mixtureAt(scheduler, timestep))
    sample = scheduler.step(modelOutput, timestep, sample, { generator }).prevSample
  }
  return { sample, expected }
}

const rootMeanSquare = (a, b) => Math.hypot(...a.data.map((x, i) => x - b.data[i])) / Math.sqrt(a.data.length)
const flowError = (scheduler, steps, options) => {
  const { sample, expected } = sampleGaussian(scheduler, steps, options)
  return rootMeanSquare(sample, expected)
}

test('deterministic solvers find the end of the probability flow, those of higher order much nearer than Euler', () => {
  const config = { ...KANDINSKY, use_karras_sigmas: true }
  const euler = flowError(new EulerDiscreteScheduler(config), 20)
  assert.ok(euler < 0.05, `Euler: ${euler}`)
  assert.ok(flowError(new EulerDiscreteScheduler(config), 80) < euler / 3, 'first order')
  for (const scheduler of [
    new HeunDiscreteScheduler(config),
    new DPMSolverMultistepScheduler(config),
    new DPMSolverMultistepScheduler({ ...config, solver_order: 3 }),
    new UniPCMultistepScheduler(config),
    new PNDMScheduler({ ...KANDINSKY, set_alpha_to_one: true }),
    new PNDMScheduler({ ...KANDINSKY, set_alpha_to_one: true, skip_prk_steps: true }),
  ]) {
    const error = flowError(scheduler, 20)
    assert.ok(error < euler / 4, `${scheduler.constructor.name}: ${error}, Euler: ${euler}`)
  }
})

test('karras and exponential sigmas sample the same distribution', () => {
  for (const key of ['use_karras_sigmas', 'use_exponential_sigmas'])
    for (const Class of [
      EulerDiscreteScheduler,
      HeunDiscreteScheduler,
      DPMSolverMultistepScheduler,
      UniPCMultistepScheduler,
    ]) {
      const error = flowError(new Class({ ...KANDINSKY, [key]: true }), 30)
      assert.ok(error < 0.05, `${Class.name} ${key}: ${error}`)
    }
})

test('samplers that add noise keep mean and standard deviation', () => {
  const shape = [1, 4, 32, 32]
  for (const scheduler of [
    new EulerAncestralDiscreteScheduler(KANDINSKY),
    new DPMSolverMultistepScheduler({ ...KANDINSKY, algorithm_type: 'sde-dpmsolver++' }),
    new DPMSolverMultistepScheduler({ ...KANDINSKY, algorithm_type: 'sde-dpmsolver', final_sigmas_type: 'sigma_min' }),
  ]) {
    const { data } = sampleGaussian(scheduler, 200, { shape }).sample
    const mean = data.reduce((sum, x) => sum + x, 0) / data.length
    const std = Math.sqrt(data.reduce((sum, x) => sum + (x - mean) ** 2, 0) / data.length)
    const { algorithm_type } = scheduler.config
    assert.ok(Math.abs(mean - MEAN) < 0.02, `${scheduler.constructor.name} ${algorithm_type}: mean ${mean}`)
    assert.ok(Math.abs(std - STD) < 0.03, `${scheduler.constructor.name} ${algorithm_type}: standard deviation ${std}`)
  }
})

test('a run may begin at any step, a PNDM run also within a Runge-Kutta step', () => {
  for (const Class of [
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
  ])
    for (const step of [0, 1, 10, 29]) {
      const scheduler = new Class(KANDINSKY)
      const error = flowError(scheduler, 30, { begin: step * scheduler.order })
      assert.ok(error < 0.06, `${Class.name} from step ${step}: ${error}`)
    }
  for (const skip_prk_steps of [true, false])
    for (let begin = 0; begin < 30; begin++) {
      const error = flowError(new PNDMScheduler({ ...KANDINSKY, set_alpha_to_one: true, skip_prk_steps }), 30, {
        begin,
      })
      assert.ok(error < 0.06, `PNDM ${skip_prk_steps} from ${begin}: ${error}`)
    }
})

test('LCM: a network that knows the end of the flow needs one step', () => {
  const scheduler = new LCMScheduler({ ...KANDINSKY, prediction_type: 'sample' })
  scheduler.setTimesteps(1)
  const sample = randn(1)
  const end = flowEnd(sample, mixtureAt(scheduler, scheduler.timesteps[0]))
  assertClose('prevSample', scheduler.step(end, scheduler.timesteps[0], sample).prevSample, end, 1e-3)
})

// ---- the pipelines' loop

/** Predicts the noise of the known distribution and notes the timesteps it was asked at. */
function gaussian(scheduler) {
  const asked = []
  const predict = async (latents, { timestep }) => {
    asked.push(timestep)
    return expectedNoise(latents, mixtureAt(scheduler, timestep))
  }
  return { asked, predict }
}

test('the loop scales inputs, calls in order and passes timesteps on unrounded', async () => {
  for (const Class of classes) {
    const scheduler = new Class({ ...KANDINSKY, timestep_spacing: 'trailing' })
    scheduler.setTimesteps(30)
    const { asked, predict } = gaussian(scheduler)
    const noise = randn(3, [1, 4, 16, 16])
    const latents = await sample({
      ...{
        stage: 'decoder',
        predict,
        scheduler,
        timesteps: scheduler.timesteps,
        latents: scaledNoise(noise, scheduler),
      },
      generator: new Generator(1),
    })
    assert.deepEqual(asked, [...scheduler.timesteps], Class.name)
    const mean = latents.data.reduce((sum, x) => sum + x, 0) / latents.data.length
    assert.ok(Math.abs(mean - MEAN) < 0.06, `${Class.name}: mean ${mean}`)
  }
})

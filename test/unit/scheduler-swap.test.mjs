// What the schedulers that people swap in promise beyond the reference's numbers: order of calls, begin indices, state,
// configs, errors.
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import test from 'node:test'
import fc from 'fast-check'
import { DPMSolverMultistepScheduler as PretrainedDPMSolver } from '../../dist/pipelines/schedulers.js'
import { Generator } from '../../dist/random.js'
import { DDPMScheduler } from '../../dist/schedulers/ddpm.js'
import { DPMSolverMultistepScheduler } from '../../dist/schedulers/dpmsolver-multistep.js'
import { EulerDiscreteScheduler } from '../../dist/schedulers/euler.js'
import { EulerAncestralDiscreteScheduler } from '../../dist/schedulers/euler-ancestral.js'
import { HeunDiscreteScheduler } from '../../dist/schedulers/heun.js'
import { LCMScheduler } from '../../dist/schedulers/lcm.js'
import { PNDMScheduler } from '../../dist/schedulers/pndm.js'
import { schedulerByName, schedulerShortNames } from '../../dist/schedulers/registry.js'
import { UniPCMultistepScheduler } from '../../dist/schedulers/unipc-multistep.js'
import { Tensor } from '../../dist/tensor.js'

const classes = [
  EulerDiscreteScheduler,
  EulerAncestralDiscreteScheduler,
  HeunDiscreteScheduler,
  DPMSolverMultistepScheduler,
  UniPCMultistepScheduler,
  PNDMScheduler,
  LCMScheduler,
]
/** the noise schedule of Kandinsky 2.2 */
const KANDINSKY = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'linear', steps_offset: 1 }
const SHAPE = [2, 4, 2, 3]
const randn = (seed, shape = SHAPE) => new Generator(seed).randn(shape)
const map = ({ data, shape }, f) => new Tensor(data.map(f), shape)
const invalidArgument = (message) => ({ name: 'KandinskyError', code: 'INVALID_ARGUMENT', message })

test('linspace and karras timesteps are fractions', () => {
  const linspace = new EulerDiscreteScheduler()
  linspace.setTimesteps(4)
  assert.deepEqual(linspace.timesteps, [999, 666, 333, 0])
  linspace.setTimesteps(3)
  assert.deepEqual(linspace.timesteps, [999, 499.5, 0])
  const karras = new EulerDiscreteScheduler({ ...KANDINSKY, use_karras_sigmas: true })
  karras.setTimesteps(5)
  assert.ok(karras.timesteps.slice(1, -1).every((timestep) => !Number.isInteger(timestep)))
})

// ---- order of calls

test('a run that leaves out steps has the others: strength counts steps, not model calls', () => {
  for (const Class of classes)
    for (const config of Class === PNDMScheduler ? [{}, { skip_prk_steps: true }] : [{}]) {
      const scheduler = new Class({ ...KANDINSKY, timestep_spacing: 'leading', ...config })
      scheduler.setTimesteps(10)
      const spaced = [...new Set(scheduler.timesteps)]
        .sort((a, b) => b - a)
        .filter((t) => Class !== PNDMScheduler || t % 100 === 1)
      for (const left of [0, 1, 2, 3, 7, 9]) {
        const index = scheduler.firstCall(left)
        assert.equal(
          scheduler.timesteps[index],
          spaced[left],
          `${Class.name} ${JSON.stringify(config)} without ${left}`,
        )
        if (left > 0) assert.ok(scheduler.timesteps[index - 1] >= spaced[left])
      }
      // 10 steps of strength 0.3; the reference runs 12 calls of PNDM there
      assert.equal(
        scheduler.timesteps.length - scheduler.firstCall(7),
        3 * scheduler.order - (Class === HeunDiscreteScheduler ? 1 : 0),
      )
    }
})

test('Heun and PNDM name a timestep for every model call', () => {
  const heun = new HeunDiscreteScheduler({ ...KANDINSKY, timestep_spacing: 'leading' })
  heun.setTimesteps(3)
  assert.equal(heun.order, 2)
  assert.deepEqual(heun.timesteps, [667, 334, 334, 1, 1])
  const pndm = new PNDMScheduler(KANDINSKY)
  pndm.setTimesteps(5)
  assert.deepEqual(pndm.timesteps, [801, 701, 701, 601, 601, 501, 501, 401, 401, 301, 301, 201, 201, 1])
  assert.throws(() => pndm.setTimesteps(3), invalidArgument(/at least 4 without skip_prk_steps.*3/))
  const plms = new PNDMScheduler({ ...KANDINSKY, skip_prk_steps: true })
  plms.setTimesteps(3)
  assert.deepEqual(plms.timesteps, [667, 334, 334, 1])
})

test('steps out of order are refused, and so is going on after the end', () => {
  for (const Class of classes.filter((Class) => Class !== LCMScheduler)) {
    const scheduler = new Class(KANDINSKY)
    const generator = new Generator(1)
    const step = (timestep, options) => scheduler.step(randn(1), timestep, randn(2), { generator, ...options })
    assert.throws(() => step(999), invalidArgument(/setTimesteps/), Class.name)
    scheduler.setTimesteps(6)
    const [first, second, third] = scheduler.timesteps
    assert.throws(() => step(0.25), invalidArgument(/timesteps for timestep but received 0.25/), Class.name)
    step(first)
    assert.throws(
      () => step(first),
      invalidArgument(new RegExp(`Expected ${second}, the next.*received ${first}`)),
      Class.name,
    )
    assert.throws(() => step(second, { prevTimestep: -7 }), invalidArgument(/prevTimestep/), Class.name)
    step(second, { prevTimestep: third })
    for (const timestep of scheduler.timesteps.slice(2)) step(timestep)
    assert.throws(() => step(first), invalidArgument(/setTimesteps.*another run/), Class.name)
  }
})

test('a run begins where setBeginIndex says, or where its first call names a timestep', () => {
  for (const Class of classes) {
    const scheduler = new Class(KANDINSKY)
    scheduler.setTimesteps(8)
    const begin = 4 * scheduler.order
    const rest = scheduler.timesteps.slice(begin)
    const run = () => {
      const generator = new Generator(5)
      let sample = randn(1)
      for (const timestep of rest) sample = scheduler.step(randn(2), timestep, sample, { generator }).prevSample
      return sample
    }
    const found = run()
    scheduler.setBeginIndex(begin)
    assert.deepEqual(run(), found, Class.name)
    for (const index of [-1, 0.5, scheduler.timesteps.length, Number.NaN, undefined])
      assert.throws(() => scheduler.setBeginIndex(index), invalidArgument(/index/), `${Class.name} ${index}`)
  }
  const heun = new HeunDiscreteScheduler()
  heun.setTimesteps(8)
  assert.throws(() => heun.setBeginIndex(3), invalidArgument(/multiple of 2 from 0 to 14.*3/))
})

test('a run leaves nothing behind, and a clone has no state', () => {
  const run = (scheduler, steps) => {
    scheduler.setTimesteps(steps)
    const generator = new Generator(5)
    let sample = randn(1)
    for (const [i, timestep] of scheduler.timesteps.entries())
      sample = scheduler.step(randn(i + 2), timestep, sample, { generator }).prevSample
    return sample
  }
  for (const Class of classes) {
    const scheduler = new Class(KANDINSKY)
    const first = run(scheduler, 6)
    scheduler.setTimesteps(9)
    scheduler.step(randn(1), scheduler.timesteps[0], randn(2), { generator: new Generator(1) })
    assert.deepEqual(scheduler.clone().timesteps, [], Class.name)
    assert.deepEqual(run(scheduler.clone(), 6), first, Class.name)
    assert.deepEqual(run(scheduler, 6), first, Class.name)
    assert.deepEqual(scheduler.clone().config, scheduler.config)
  }
})

test('inputs are left as they were, and what a step keeps of them is its own', () => {
  for (const Class of classes) {
    const runs = [false, true].map((overwrite) => {
      const scheduler = new Class(KANDINSKY)
      scheduler.setTimesteps(6)
      let sample = randn(1)
      for (const [i, timestep] of scheduler.timesteps.entries()) {
        const modelOutput = randn(i)
        const before = sample
        const copy = before.data.slice()
        const step = scheduler.step(modelOutput, timestep, before, { generator: new Generator(3) })
        assert.deepEqual([modelOutput, before.data], [randn(i), copy], Class.name)
        sample = new Tensor(step.prevSample.data.slice(), SHAPE)
        if (overwrite)
          for (const { data } of [modelOutput, before, step.prevSample, step.predOriginalSample]) data.fill(9)
      }
      return sample
    })
    assert.deepEqual(runs[0], runs[1], Class.name)
  }
})

test('a step that draws noise needs a generator; DPM-Solver takes the noise itself, too', () => {
  const config = { ...KANDINSKY, algorithm_type: 'sde-dpmsolver++' }
  for (const scheduler of [
    new EulerAncestralDiscreteScheduler(KANDINSKY),
    new DPMSolverMultistepScheduler(config),
    new LCMScheduler(KANDINSKY),
  ]) {
    scheduler.setTimesteps(3)
    assert.throws(() => scheduler.step(randn(1), scheduler.timesteps[0], randn(2)), invalidArgument(/generator/))
  }
  const step = (options) => {
    const scheduler = new DPMSolverMultistepScheduler(config)
    scheduler.setTimesteps(3)
    return scheduler.step(randn(1), scheduler.timesteps[0], randn(2), options).prevSample
  }
  assert.deepEqual(step({ varianceNoise: randn(3) }), step({ generator: new Generator(3) }))
  assert.throws(() => step({ varianceNoise: randn(3), generator: new Generator(3) }), invalidArgument(/both/))
})

test('Euler: noise added in between needs a generator and sane numbers', () => {
  const step = (options) => {
    const scheduler = new EulerDiscreteScheduler(KANDINSKY)
    scheduler.setTimesteps(3)
    return scheduler.step(randn(1), scheduler.timesteps[0], randn(2), options).prevSample
  }
  const generator = new Generator(1)
  assert.throws(() => step({ sChurn: 1 }), invalidArgument(/generator/))
  assert.deepEqual(step({ sChurn: 1, sTmax: 0.1 }), step())
  assert.notDeepEqual(step({ sChurn: 1, generator }), step())
  for (const [key, value] of [
    ['sChurn', -1],
    ['sTmin', '0'],
    ['sTmax', Number.NaN],
    ['sNoise', null],
  ])
    assert.throws(() => step({ generator, [key]: value }), invalidArgument(new RegExp(key)), key)
})

// ---- configs

const PUBLISHED = {
  ...KANDINSKY,
  ...{ _class_name: 'DDPMScheduler', _diffusers_version: '0.18.0', clip_sample: false, num_train_timesteps: 1000 },
  ...{ prediction_type: 'epsilon', thresholding: false, trained_betas: null, variance_type: 'learned_range' },
}

test('every class runs with the config of a published decoder on latents of four channels', () => {
  const own = DDPMScheduler.fromConfig(PUBLISHED)
  for (const name of schedulerShortNames.filter((name) => !['ddpm', 'unclip'].includes(name))) {
    const scheduler = schedulerByName(name, own.config)
    assert.equal(scheduler.learnsVariance, false, name)
    scheduler.setTimesteps(5)
    const generator = new Generator(1)
    let sample = randn(1)
    for (const timestep of scheduler.timesteps)
      sample = scheduler.step(randn(2), timestep, sample, { generator }).prevSample
    assert.ok(sample.data.every(Number.isFinite), name)
  }
})

test('swapping back and forth loses no setting', () => {
  const names = [...schedulerShortNames.slice(3), 'ddpm']
  const { config } = names.reduce(
    (from, name) => schedulerByName(name, from.config),
    DDPMScheduler.fromConfig(PUBLISHED),
  )
  assert.deepEqual(config, DDPMScheduler.fromConfig(PUBLISHED).config)
})

test('a default of one class does not become a setting of the next', () => {
  const { config } = DDPMScheduler.fromConfig(PUBLISHED)
  assert.equal(config.timestep_spacing, 'leading')
  assert.equal(EulerDiscreteScheduler.fromConfig(config).config.timestep_spacing, 'linspace')
  const stated = DDPMScheduler.fromConfig({ ...PUBLISHED, timestep_spacing: 'leading' })
  assert.equal(EulerDiscreteScheduler.fromConfig(stated.config).config.timestep_spacing, 'leading')
})

test('short names', () => {
  for (const [name, Class] of [
    ['euler', EulerDiscreteScheduler],
    ['EulerDiscrete', EulerDiscreteScheduler],
    ['euler_a', EulerAncestralDiscreteScheduler],
    ['EulerAncestral', EulerAncestralDiscreteScheduler],
    ['dpm++', DPMSolverMultistepScheduler],
    ['dpmpp_2m', DPMSolverMultistepScheduler],
    ['dpmsolvermultistep', DPMSolverMultistepScheduler],
    ['UniPC', UniPCMultistepScheduler],
    ['heun', HeunDiscreteScheduler],
    ['pndm', PNDMScheduler],
    ['lcm', LCMScheduler],
  ])
    assert.ok(schedulerByName(name, {}) instanceof Class, name)
})

test('what a class cannot do is refused with key and value', () => {
  const bad = [
    [EulerDiscreteScheduler, { use_beta_sigmas: true }, /false for use_beta_sigmas of EulerDiscreteScheduler.*true/],
    [EulerDiscreteScheduler, { interpolation_type: 'cubic' }, /interpolation_type.*"cubic"/],
    [EulerDiscreteScheduler, { sigma_min: 0 }, /sigma_min.*0/],
    [
      HeunDiscreteScheduler,
      { use_karras_sigmas: true, use_exponential_sigmas: true },
      /use_karras_sigmas, use_exponential/,
    ],
    [EulerAncestralDiscreteScheduler, { prediction_type: 'sample' }, /prediction_type.*"sample"/],
    [DPMSolverMultistepScheduler, { solver_order: 4 }, /1 to 3 for solver_order.*4/],
    [DPMSolverMultistepScheduler, { algorithm_type: 'dpmsolver' }, /sigma_min.*final_sigmas_type.*"zero"/],
    [DPMSolverMultistepScheduler, { prediction_type: 'flow_prediction' }, /prediction_type.*"flow_prediction"/],
    [DPMSolverMultistepScheduler, { use_flow_sigmas: true }, /use_flow_sigmas.*true/],
    [
      DPMSolverMultistepScheduler,
      { algorithm_type: 'sde-dpmsolver', final_sigmas_type: 'sigma_min', solver_order: 3 },
      /solver_order.*3/,
    ],
    [UniPCMultistepScheduler, { predict_x0: false }, /final_sigmas_type.*"zero"/],
    [UniPCMultistepScheduler, { lower_order_final: false }, /final_sigmas_type.*"zero"/],
    [UniPCMultistepScheduler, { disable_corrector: [-1] }, /disable_corrector/],
    [UniPCMultistepScheduler, { shift_terminal: 0.1 }, /shift_terminal.*0.1/],
    [PNDMScheduler, { prediction_type: 'sample' }, /prediction_type.*"sample"/],
    [LCMScheduler, { original_inference_steps: 1001 }, /original_inference_steps.*1001/],
  ]
  for (const [Class, config, message] of bad)
    for (const make of [(c) => new Class(c), Class.fromConfig])
      assert.throws(() => make(config), invalidArgument(message), `${Class.name} ${JSON.stringify(config)}`)
  assert.throws(() => new LCMScheduler().setTimesteps(51), invalidArgument(/1 to 50.*51/))
  const unordered = new EulerDiscreteScheduler({ use_karras_sigmas: true, sigma_min: 5, sigma_max: 4 })
  assert.throws(() => unordered.setTimesteps(5), invalidArgument(/sigma_max.*4/))
})

test('step counts that would repeat a noise level are refused', () => {
  for (const Class of [DPMSolverMultistepScheduler, UniPCMultistepScheduler]) {
    for (const timestep_spacing of ['linspace', 'leading']) {
      const scheduler = new Class({ timestep_spacing })
      scheduler.setTimesteps(999)
      assert.equal(new Set(scheduler.timesteps).size, 999)
      assert.throws(() => scheduler.setTimesteps(1000), invalidArgument(/1 to 999.*1000/))
    }
    new Class({ timestep_spacing: 'trailing' }).setTimesteps(1000)
    new Class({ use_karras_sigmas: true }).setTimesteps(1000)
  }
})

test('fromPretrained reads settings as Python writes them, of any class', async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'kandinsky-scheduler-'))
  t.after(() => rmSync(folder, { recursive: true }))
  mkdirSync(path.join(folder, 'scheduler'))
  const text =
    '{"_class_name": "DEISMultistepScheduler", "beta_end": 0.012, "lambda_min_clipped": -Infinity,\n"algorithm_type": "deis"}'
  writeFileSync(path.join(folder, 'scheduler', 'scheduler_config.json'), text)
  writeFileSync(path.join(folder, 'model_index.json'), '{"_class_name": "KandinskyV22Pipeline"}')
  const { config } = await PretrainedDPMSolver.fromPretrained(folder)
  assert.equal(config.beta_end, 0.012)
  assert.equal(config.lambda_min_clipped, Number.NEGATIVE_INFINITY)
  assert.equal(config.algorithm_type, 'dpmsolver++')
})

// ---- properties

const swapConfigs = fc.record({
  num_train_timesteps: fc.integer({ min: 40, max: 1200 }),
  beta_schedule: fc.constantFrom('linear', 'scaled_linear', 'squaredcos_cap_v2'),
  prediction_type: fc.constantFrom('epsilon', 'v_prediction'),
  timestep_spacing: fc.constantFrom('leading', 'linspace', 'trailing'),
  steps_offset: fc.integer({ min: 0, max: 1 }),
  rescale_betas_zero_snr: fc.boolean(),
  use_karras_sigmas: fc.boolean(),
  skip_prk_steps: fc.boolean(),
  final_sigmas_type: fc.constantFrom('zero', 'sigma_min'),
})

test('any valid config and step count: timesteps do not grow, samples are finite and repeatable', () => {
  const property = (config, steps, seed) => {
    for (const Class of classes) {
      const scheduler = Class.fromConfig({
        ...config,
        original_inference_steps: 20,
        clip_sample: Class === LCMScheduler,
      })
      const run = () => {
        scheduler.setTimesteps(steps)
        const generator = new Generator(seed)
        let sample = map(generator.randn(SHAPE), (x) => x * scheduler.initNoiseSigma)
        for (const timestep of scheduler.timesteps) {
          const input = scheduler.scaleModelInput(sample, timestep)
          const modelOutput = map(input, (x) => 0.9 * x)
          sample = scheduler.step(modelOutput, timestep, sample, { generator }).prevSample
          assert.ok(sample.data.every(Number.isFinite), `${Class.name} at ${timestep}`)
        }
        return sample
      }
      const sample = run()
      // only where Runge-Kutta steps overlap does the next one begin above the last call
      if (Class !== PNDMScheduler)
        assert.ok(
          scheduler.timesteps.every((t, i, all) => i === 0 || t <= all[i - 1]),
          Class.name,
        )
      assert.deepEqual(run(), sample, Class.name)
    }
  }
  fc.assert(fc.property(swapConfigs, fc.integer({ min: 4, max: 20 }), fc.nat(1000), property), { numRuns: 60 })
})

// What schedulers promise beyond the reference's numbers: configs, state, errors, edge cases.
import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { Generator } from '../../dist/random.js'
import { DDIMScheduler } from '../../dist/schedulers/ddim.js'
import { DDPMScheduler } from '../../dist/schedulers/ddpm.js'
import { schedulerByName, schedulerFromConfig, schedulerNames } from '../../dist/schedulers/registry.js'
import { UnCLIPScheduler } from '../../dist/schedulers/unclip.js'
import { assertClose } from '../helpers/compare.mjs'

const classes = [DDPMScheduler, DDIMScheduler, UnCLIPScheduler]
const SHAPE = [2, 4, 2, 3]
const randn = (seed, shape = SHAPE) => new Generator(seed).randn(shape)
const invalidArgument = (message) => ({ name: 'KandinskyError', code: 'INVALID_ARGUMENT', message })

/** All samples of a run whose model outputs are noise. */
function run(scheduler, count, seed = 1) {
  scheduler.setTimesteps(count)
  const generator = new Generator(seed)
  let sample = generator.randn(SHAPE)
  const outputShape = scheduler.learnsVariance ? [2, 8, 2, 3] : SHAPE
  return scheduler.timesteps.map((timestep, i) => {
    sample = scheduler.step(randn(i, outputShape), timestep, sample, { generator }).prevSample
    return sample
  })
}

// ---- configs

test('fromConfig takes the keys of a stored config and leaves out bookkeeping', () => {
  const stored = {
    _class_name: 'DDPMScheduler',
    _diffusers_version: '0.17.1',
    beta_start: 0.00085,
    beta_end: 0.012,
    trained_betas: null,
    variance_type: 'learned_range',
    some_later_key: 7,
  }
  const { config } = DDPMScheduler.fromConfig(stored)
  assert.equal(config.beta_end, 0.012)
  assert.equal(config.timestep_spacing, 'leading')
  assert.ok(!('_class_name' in config) && !('some_later_key' in config))
  assert.throws(() => Object.assign(config, { beta_end: 1 }), TypeError)
})

test('a config of one class gives a scheduler of another: what applies is taken', () => {
  const ddpm = new DDPMScheduler({ beta_start: 0.00085, beta_end: 0.012, variance_type: 'learned_range' })
  const ddim = DDIMScheduler.fromConfig(ddpm.config)
  assert.equal(ddim.config.beta_start, 0.00085)
  assert.equal(ddim.config.set_alpha_to_one, true)
  assert.equal(ddpm.learnsVariance, true)
  assert.equal(ddim.learnsVariance, false, 'DDIM must not be given the variance channels')
  assert.ok(run(ddim, 4).at(-1).data.every(Number.isFinite))
})

test('the registry finds classes by _class_name and by name, and lists them when it cannot', () => {
  for (const name of schedulerNames) assert.equal(schedulerFromConfig({ _class_name: name }).constructor.name, name)
  assert.ok(schedulerByName('ddim', {}) instanceof DDIMScheduler)
  assert.ok(schedulerByName('UnCLIPScheduler', {}) instanceof UnCLIPScheduler)
  const listed = invalidArgument(/DDIMScheduler, DDPMScheduler, UnCLIPScheduler.*"SomeScheduler"/)
  assert.throws(() => schedulerFromConfig({ _class_name: 'SomeScheduler' }), listed)
  assert.throws(() => schedulerFromConfig({ _class_name: 'toString' }), invalidArgument(/_class_name/))
  for (const config of [{}, null, undefined, 7])
    assert.throws(() => schedulerFromConfig(config), invalidArgument(/_class_name/), `${config}`)
  assert.throws(() => schedulerByName('dpm', {}), invalidArgument(/ddim, ddpm, unclip.*"dpm"/))
  assert.throws(() => schedulerByName('ddim', 'leading'), invalidArgument(/object/))
})

test('values that a class does not know are errors that name key and value', () => {
  const bad = [
    [DDPMScheduler, 'beta_schedule', 'cosine'],
    [DDPMScheduler, 'variance_type', 'fixed'],
    [DDPMScheduler, 'prediction_type', 'flow_prediction'],
    [DDPMScheduler, 'timestep_spacing', 'even'],
    [DDPMScheduler, 'num_train_timesteps', 0],
    [DDPMScheduler, 'num_train_timesteps', '1000'],
    [DDPMScheduler, 'beta_start', Number.NaN],
    [DDPMScheduler, 'beta_end', 1.5],
    [DDPMScheduler, 'clip_sample', 'yes'],
    [DDPMScheduler, 'clip_sample_range', Number.POSITIVE_INFINITY],
    [DDPMScheduler, 'dynamic_thresholding_ratio', 1.1],
    [DDPMScheduler, 'steps_offset', -1],
    [DDIMScheduler, 'beta_schedule', 'sigmoid'],
    [DDIMScheduler, 'set_alpha_to_one', 1],
    [UnCLIPScheduler, 'prediction_type', 'v_prediction'],
    [UnCLIPScheduler, 'variance_type', 'fixed_small'],
    [UnCLIPScheduler, 'beta_schedule', 'linear'],
  ]
  for (const [Class, key, value] of bad) {
    const named = invalidArgument(new RegExp(`${key} of ${Class.name} but received.*${value}`))
    assert.throws(() => Class.fromConfig({ [key]: value }), named, `${Class.name} ${key}`)
  }
  assert.throws(
    () => new DDIMScheduler({ variance_type: 'learned' }),
    invalidArgument(/keys of DDIMScheduler.*"variance_type"/),
  )
  assert.throws(() => new DDPMScheduler({ trained_betas: [0.1, 0.2] }), invalidArgument(/1000 numbers.*trained_betas/))
  assert.throws(() => new DDPMScheduler({ trained_betas: [0.1, 'b'] }), invalidArgument(/trained_betas/))
  const vanishing = { trained_betas: [1e-12, 1e-12], num_train_timesteps: 2 }
  assert.throws(() => new DDPMScheduler(vanishing), invalidArgument(/cumulative alphas/))
})

// ---- timesteps

test('timesteps are empty before setTimesteps, and step says what is missing', () => {
  for (const Class of classes) {
    const scheduler = new Class()
    assert.deepEqual(scheduler.timesteps, [])
    assert.throws(() => scheduler.step(randn(1), 999, randn(2)), invalidArgument(/setTimesteps/), Class.name)
  }
})

test('step counts are integers from 1 to num_train_timesteps', () => {
  for (const Class of classes) {
    const scheduler = new Class({ num_train_timesteps: 50 })
    for (const count of [0, -1, 1.5, 51, Number.NaN, '7', undefined])
      assert.throws(() => scheduler.setTimesteps(count), { code: 'INVALID_ARGUMENT' }, `${Class.name} ${count}`)
    for (const count of [1, 7, 50]) {
      scheduler.setTimesteps(count)
      assert.equal(scheduler.timesteps.length, count)
    }
  }
})

test('DDPM takes descending timesteps of its range in place of a count', () => {
  const scheduler = new DDPMScheduler()
  scheduler.setTimesteps([900, 500, 3])
  assert.deepEqual(scheduler.timesteps, [900, 500, 3])
  for (const timesteps of [[], [3, 500], [5, 5], [1000, 3], [3, -1], [3.5], ['3']])
    assert.throws(() => scheduler.setTimesteps(timesteps), invalidArgument(/descending integers from 999 to 0/))
})

test('UnCLIP: one step goes from the noisiest timestep to the predicted sample', () => {
  const scheduler = new UnCLIPScheduler({ prediction_type: 'sample', clip_sample_range: 10 })
  scheduler.setTimesteps(1)
  assert.deepEqual(scheduler.timesteps, [999])
  const { prevSample } = scheduler.step(randn(1), 999, randn(2), { generator: new Generator(3) })
  assertClose('prevSample', prevSample, randn(1), 1e-6)
})

test('a step must start at one of the run’s timesteps and end at an earlier one', () => {
  for (const Class of classes) {
    const scheduler = new Class()
    scheduler.setTimesteps(4)
    const [timestep] = scheduler.timesteps
    const generator = new Generator(1)
    for (const unknown of [timestep - 1, -1, 1000, 0.5, Number.NaN, undefined])
      assert.throws(() => scheduler.step(randn(1), unknown, randn(2), { generator }), invalidArgument(/timestep/))
    for (const prevTimestep of [timestep, timestep + 1, 0.5, null])
      assert.throws(
        () => scheduler.step(randn(1), timestep, randn(2), { generator, prevTimestep }),
        invalidArgument(/prevTimestep/),
      )
  }
})

test('prevTimestep chooses where a step ends', () => {
  for (const Class of classes) {
    const scheduler = new Class({ clip_sample: false })
    scheduler.setTimesteps(4)
    const [timestep, next] = scheduler.timesteps
    const step = (prevTimestep) =>
      scheduler.step(randn(1), timestep, randn(2), { generator: new Generator(3), prevTimestep }).prevSample
    assert.deepEqual(step(next), step(undefined), Class.name)
    assert.notDeepEqual(step(next - 5), step(next), Class.name)
  }
})

// ---- steps

test('model outputs have the shape of the sample, with twice the channels where the variance is learned', () => {
  const mismatch = (message) => ({ code: 'SHAPE_MISMATCH', message })
  for (const Class of classes) {
    const scheduler = new Class()
    scheduler.setTimesteps(4)
    const [timestep] = scheduler.timesteps
    const doubled = randn(1, [2, 8, 2, 3])
    assert.throws(() => scheduler.step(doubled, timestep, randn(2)), mismatch(/\[2, 4, 2, 3\].*\[2, 8, 2, 3\]/))
    assert.throws(() => scheduler.step(randn(1, [2, 4]), timestep, randn(2)), mismatch(/modelOutput/))
    assert.throws(() => scheduler.step([1], timestep, randn(2)), invalidArgument(/modelOutput/))
    assert.throws(() => scheduler.step(randn(1), timestep, undefined), invalidArgument(/sample/))
  }
  for (const Class of [DDPMScheduler, UnCLIPScheduler]) {
    const scheduler = new Class({ variance_type: 'learned_range' })
    scheduler.setTimesteps(4)
    const [timestep] = scheduler.timesteps
    assert.throws(() => scheduler.step(randn(1), timestep, randn(2)), mismatch(/\[2, 8, 2, 3\].*\[2, 4, 2, 3\]/))
  }
})

test('a step that draws noise needs a generator; the last step of DDPM at timestep 0 and DDIM draw none', () => {
  const ddpm = new DDPMScheduler()
  ddpm.setTimesteps(4)
  assert.throws(() => ddpm.step(randn(1), ddpm.timesteps[0], randn(2)), invalidArgument(/generator/))
  ddpm.step(randn(1), 0, randn(2))
  const ddim = new DDIMScheduler()
  ddim.setTimesteps(4)
  ddim.step(randn(1), ddim.timesteps[0], randn(2))
  assert.throws(() => ddim.step(randn(1), ddim.timesteps[0], randn(2), { eta: 1 }), invalidArgument(/generator/))
})

test('the noise is drawn in the dtype asked for', () => {
  const scheduler = new DDPMScheduler()
  scheduler.setTimesteps(4)
  const asked = []
  const generator = {
    randn(shape, options) {
      asked.push(options.dtype)
      return randn(1, shape)
    },
  }
  for (const dtype of ['float16', undefined]) scheduler.step(randn(1), 750, randn(2), { generator, dtype })
  assert.deepEqual(asked, ['float16', 'float32'])
})

test('DDIM: varianceNoise stands in for a draw', () => {
  const scheduler = new DDIMScheduler()
  scheduler.setTimesteps(4)
  const step = (options) => scheduler.step(randn(1), 750, randn(2), { eta: 0.5, ...options }).prevSample
  assert.deepEqual(step({ varianceNoise: randn(3) }), step({ generator: new Generator(3) }))
  assert.throws(() => step({ varianceNoise: randn(3), generator: new Generator(3) }), invalidArgument(/both/))
  assert.throws(() => step({ varianceNoise: randn(3, [1]) }), { code: 'SHAPE_MISMATCH', message: /varianceNoise/ })
  for (const eta of [-0.1, 1.1, Number.NaN, '1']) assert.throws(() => step({ eta }), invalidArgument(/eta/), `${eta}`)
})

test('fixed_large_log is fixed_large (the reference gives NaN)', () => {
  const last = (variance_type) => run(new DDPMScheduler({ variance_type }), 4).at(-1)
  assert.deepEqual(last('fixed_large_log'), last('fixed_large'))
})

test('trailing spacing gives the steps asked for, also where the reference rounds to one more (docs/differences.md)', () => {
  for (const count of [60, 61, 103, 434]) {
    const scheduler = new DDIMScheduler({ timestep_spacing: 'trailing' })
    scheduler.setTimesteps(count)
    assert.equal(scheduler.timesteps.length, count)
    assert.ok(scheduler.timesteps.every((timestep) => timestep >= 0))
  }
})

test('no signal left: predicted noise is refused unless clipping makes it finite', () => {
  const config = { rescale_betas_zero_snr: true, timestep_spacing: 'trailing' }
  for (const Class of [DDPMScheduler, DDIMScheduler]) {
    const unclipped = new Class({ ...config, clip_sample: false })
    assert.throws(() => run(unclipped, 4), invalidArgument(/v_prediction.*rescale_betas_zero_snr.*"epsilon"/))
    assert.ok(run(new Class(config), 4).every(({ data }) => data.every(Number.isFinite)))
    const velocity = new Class({ ...config, clip_sample: false, prediction_type: 'v_prediction' })
    assert.ok(run(velocity, 4).every(({ data }) => data.every(Number.isFinite)))
  }
})

test('addNoise takes one timestep for all entries or one for each, and refuses others', () => {
  for (const Class of classes) {
    const scheduler = new Class()
    const [original, noise] = [randn(1), randn(2)]
    assert.deepEqual(scheduler.addNoise(original, noise, [500]), scheduler.addNoise(original, noise, [500, 500]))
    for (const timesteps of [[], [1, 2, 3], [1000], [-1], [0.5]])
      assert.throws(() => scheduler.addNoise(original, noise, timesteps), invalidArgument(/timestep/), `${timesteps}`)
    assert.throws(() => scheduler.addNoise(original, randn(2, [1]), [5]), { code: 'SHAPE_MISMATCH', message: /noise/ })
  }
})

test('a run leaves nothing behind: repeated, cloned and interleaved runs agree', () => {
  for (const Class of classes) {
    const scheduler = new Class()
    const first = run(scheduler, 5)
    run(scheduler, 3)
    assert.deepEqual(run(scheduler, 5), first, `${Class.name}: again`)
    const clone = scheduler.clone()
    assert.deepEqual(clone.config, scheduler.config)
    assert.deepEqual(clone.timesteps, [], `${Class.name}: a clone has no state`)
    clone.setTimesteps(3)
    assert.equal(scheduler.timesteps.length, 5)
    assert.deepEqual(run(clone, 5), first, `${Class.name}: clone`)
  }
})

test('inputs are left as they were', () => {
  for (const Class of classes) {
    const scheduler = new Class({ prediction_type: 'sample', clip_sample_range: 0.1 })
    scheduler.setTimesteps(4)
    const [modelOutput, sample] = [randn(1), randn(2)]
    scheduler.step(modelOutput, scheduler.timesteps[0], sample, { generator: new Generator(3) })
    scheduler.addNoise(sample, modelOutput, [5])
    assert.deepEqual([modelOutput, sample], [randn(1), randn(2)], Class.name)
    assert.equal(scheduler.scaleModelInput(sample, scheduler.timesteps[0]), sample)
  }
})

const ddpmConfigs = fc.record({
  num_train_timesteps: fc.integer({ min: 10, max: 1200 }),
  beta_schedule: fc.constantFrom('linear', 'scaled_linear', 'squaredcos_cap_v2', 'sigmoid'),
  variance_type: fc.constantFrom('fixed_small', 'fixed_small_log', 'fixed_large', 'fixed_large_log', 'learned_range'),
  prediction_type: fc.constantFrom('epsilon', 'sample', 'v_prediction'),
  timestep_spacing: fc.constantFrom('leading', 'linspace', 'trailing'),
  clip_sample: fc.boolean(),
  thresholding: fc.boolean(),
  sample_max_value: fc.double({ min: 0.5, max: 4, noNaN: true }),
})

test('any valid config and step count: descending timesteps, finite and repeatable samples', () => {
  const property = (config, share, seed) => {
    const count = Math.max(1, Math.round(share * Math.min(20, config.num_train_timesteps)))
    const scheduler = new DDPMScheduler(config)
    const samples = run(scheduler, count, seed)
    assert.ok(scheduler.timesteps.every((t, i, all) => t >= 0 && (i === 0 || t < all[i - 1])))
    for (const { data } of samples) assert.ok(data.every(Number.isFinite))
    assert.deepEqual(run(scheduler, count, seed), samples)
    if (count > 1 && scheduler.timesteps[0] > 0) assert.notDeepEqual(run(scheduler, count, seed + 1), samples)
  }
  fc.assert(fc.property(ddpmConfigs, fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(1000), property))
})

test('the noise that addNoise added is found again: a perfect prediction leads back to the original', () => {
  const property = (timestep, seed) => {
    const [original, noise] = [randn(seed), randn(seed + 1)]
    for (const Class of [DDPMScheduler, DDIMScheduler]) {
      const scheduler = new Class({ clip_sample: false, beta_start: 0.00085, beta_end: 0.012 })
      scheduler.setTimesteps(1000)
      const noisy = scheduler.addNoise(original, noise, [timestep])
      const { predOriginalSample } = scheduler.step(noise, timestep, noisy, { generator: new Generator(1) })
      assertClose(`${Class.name} at ${timestep}`, predOriginalSample, original, 1e-4)
    }
  }
  fc.assert(fc.property(fc.integer({ min: 0, max: 999 }), fc.nat(1000), property), { numRuns: 30 })
})

// A config knows which of its values were given and which are defaults: only the former go over to another class.
import assert from 'node:assert/strict'
import test from 'node:test'
import * as kandinsky from '../../dist/index.js'

/** UnCLIP knows another beta schedule only. */
const classes = Object.values(kandinsky).filter(
  (value) => /^[A-Z].*Scheduler$/.test(value?.name) && !/UnCLIP/.test(value.name),
)
const { DDPMScheduler, EulerDiscreteScheduler } = kandinsky

/** As Kandinsky 2.1 stores it: nothing about the spacing of timesteps. */
const stored = { _class_name: 'DDPMScheduler', beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'linear' }

function timesteps(scheduler) {
  scheduler.setTimesteps(10)
  return [...scheduler.timesteps]
}

test('defaults of one class do not become settings of another, through spreading as well', () => {
  const { config } = DDPMScheduler.fromConfig(stored)
  const karras = { use_karras_sigmas: true }
  const direct = EulerDiscreteScheduler.fromConfig({ ...stored, ...karras })
  assert.equal(direct.config.timestep_spacing, 'linspace')
  for (const made of [
    EulerDiscreteScheduler.fromConfig({ ...config, ...karras }),
    EulerDiscreteScheduler.fromConfig(config, karras),
    EulerDiscreteScheduler.fromConfig({ ...config }, karras),
  ]) {
    assert.deepEqual(made.config, direct.config)
    assert.deepEqual(timesteps(made), timesteps(direct))
  }
})

test('every class made from every other is the same from its config and from a copy of it', () => {
  for (const From of classes)
    for (const To of classes) {
      const { config } = From.fromConfig(stored)
      assert.deepEqual(To.fromConfig({ ...config }).config, To.fromConfig(config).config, `${From.name} to ${To.name}`)
    }
})

test('a value that is changed in a copy is given', () => {
  const { config } = DDPMScheduler.fromConfig(stored)
  const { timestep_spacing: _, ...without } = config
  assert.equal(
    EulerDiscreteScheduler.fromConfig({ ...config, timestep_spacing: 'trailing' }).config.timestep_spacing,
    'trailing',
  )
  assert.equal(EulerDiscreteScheduler.fromConfig(without).config.timestep_spacing, 'linspace')
})

test('what a class does not know goes on to the next that knows it', () => {
  const euler = EulerDiscreteScheduler.fromConfig({ ...stored, clip_sample_range: 2, clip_sample: true })
  const { config } = DDPMScheduler.fromConfig({ ...euler.config })
  assert.deepEqual([config.clip_sample, config.clip_sample_range], [true, 2])
})

test('overrides are the class’s own settings; others are refused with the one that was meant', () => {
  assert.throws(() => EulerDiscreteScheduler.fromConfig(stored, { use_karas_sigmas: true }), {
    code: 'INVALID_ARGUMENT',
    message: /EulerDiscreteScheduler.*"use_karas_sigmas".*did you mean use_karras_sigmas/,
  })
  assert.throws(() => EulerDiscreteScheduler.fromConfig(stored, { use_karras_sigmas: 'yes' }), {
    code: 'INVALID_ARGUMENT',
    message: /use_karras_sigmas.*"yes"/,
  })
  for (const overrides of [null, 7, []])
    assert.throws(() => EulerDiscreteScheduler.fromConfig(stored, overrides), { code: 'INVALID_ARGUMENT' })
})

// FlowMatchEulerDiscreteScheduler against recorded runs of diffusers (test/fixtures/traces/schedulers/flow-match-*).
import assert from 'node:assert/strict'
import test from 'node:test'
import { FlowMatchEulerDiscreteScheduler } from '../../dist/schedulers/flow-match-euler.js'
import { Tensor } from '../../dist/tensor.js'
import { readCase, tensorOf } from '../helpers/cases.mjs'
import { assertClose } from '../helpers/compare.mjs'

const ROUNDING = 3e-7

for (const name of ['flow-match-k5', 'flow-match-shift3', 'flow-match-shift7']) {
  const { config, full_config, tensors } = readCase('schedulers', name)
  const schedulerOf = (steps) => {
    const scheduler = FlowMatchEulerDiscreteScheduler.fromConfig(config)
    scheduler.setTimesteps(steps)
    return scheduler
  }

  test(`${name}: the defaults of the config`, () => {
    const { config } = schedulerOf(1)
    for (const [key, value] of Object.entries(full_config)) assert.deepEqual(config[key], value, key)
    assert.equal(Object.keys(config).length, Object.keys(full_config).length)
  })

  test(`${name}: timesteps and sigmas`, () => {
    for (const [key, { data }] of tensors) {
      const [what, steps] = key.split('.')
      if (what !== 'timesteps' && what !== 'sigmas') continue
      const actual = schedulerOf(Number(steps))[what]
      assertClose(
        key,
        { data: Float32Array.from(actual), shape: [data.length] },
        { data, shape: [data.length] },
        ROUNDING,
      )
    }
  })

  for (const steps of [4, 7])
    test(`${name}: a run of ${steps} steps`, () => {
      const scheduler = schedulerOf(steps)
      let sample = tensorOf(tensors.get(`sequence.${steps}.sample`))
      const entry = (what, i) => {
        const { data, shape } = tensors.get(`sequence.${steps}.${what}`)
        const size = data.length / shape[0]
        return new Tensor(Float32Array.from(data.slice(i * size, (i + 1) * size)), shape.slice(1))
      }
      for (const [i, timestep] of scheduler.timesteps.entries()) {
        sample = scheduler.step(entry('model_outputs', i), timestep, sample).prevSample
        assertClose(`step ${i}`, sample, entry('prev_samples', i), ROUNDING)
      }
    })

  test(`${name}: noise is mixed in as scale_noise does it`, () => {
    const recorded = (part) => tensorOf(tensors.get(`scale_noise.${part}`))
    const scheduler = schedulerOf(10)
    const nearest = [...recorded('timesteps').data].map((timestep) =>
      scheduler.timesteps.reduce((a, b) => (Math.abs(b - timestep) < Math.abs(a - timestep) ? b : a)),
    )
    assertClose(
      'result',
      scheduler.addNoise(recorded('original'), recorded('noise'), nearest),
      recorded('result'),
      ROUNDING,
    )
  })
}

test('what the engine does not implement is refused by name', () => {
  assert.throws(() => FlowMatchEulerDiscreteScheduler.fromConfig({ use_dynamic_shifting: true }), {
    code: 'INVALID_ARGUMENT',
    message: /use_dynamic_shifting/,
  })
})

test('other sizes of a prediction are refused', () => {
  const scheduler = new FlowMatchEulerDiscreteScheduler()
  scheduler.setTimesteps(2)
  const of = (length) => new Tensor(new Float32Array(length), [1, length])
  assert.throws(() => scheduler.step(of(3), scheduler.timesteps[0], of(4)), { code: 'SHAPE_MISMATCH' })
})

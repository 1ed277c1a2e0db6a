// DDPM, DDIM and UnCLIP against diffusers: recorded runs (test/fixtures/traces/schedulers) and single steps for many
// combinations of settings (test/fixtures/extra/scheduler-cases, written by scripts/reference/scheduler_cases.py).
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import test from 'node:test'
import { betasForAlphaBar, cosineAlphaBar, cumulativeAlphas, makeBetas } from '../../dist/schedulers/betas.js'
import { DDPMScheduler } from '../../dist/schedulers/ddpm.js'
import { schedulerByName } from '../../dist/schedulers/registry.js'
import { Tensor } from '../../dist/tensor.js'
import { assertClose } from '../helpers/compare.mjs'
import { replay } from '../helpers/replay.mjs'
import { readSafetensors } from '../helpers/safetensors.mjs'

const fixtures = new URL('../fixtures/', import.meta.url)
const readTrace = (name) => ({
  ...JSON.parse(readFileSync(new URL(`${name}.json`, fixtures))),
  tensors: readSafetensors(new URL(`${name}.safetensors`, fixtures)),
})
const tensorOf = ({ data, shape }) => new Tensor(data, shape)
/** Entry `index` of a recorded tensor's first dimension. */
const entry = ({ data, shape: [count, ...shape] }, index) => {
  const length = data.length / count
  return new Tensor(data.slice(index * length, (index + 1) * length), shape)
}

// torch's square roots and exponentials are up to one unit in the last place off
const STEP_TOLERANCE = 2e-6
const ROUNDING = 3e-7

const traces = readdirSync(new URL('traces/schedulers', fixtures))
  .filter((file) => file.endsWith('.json') && !file.startsWith('flow-match'))
  .map((file) => readTrace(`traces/schedulers/${file.slice(0, -'.json'.length)}`))

for (const trace of traces) {
  const { tensors } = trace
  const newScheduler = () => schedulerByName(trace.class, trace.config)

  test(`${trace.case}: the defaults of the config`, () => {
    const { config } = newScheduler()
    for (const [key, value] of Object.entries(trace.full_config)) assert.deepEqual(config[key], value, key)
    assert.equal(Object.keys(config).length, Object.keys(trace.full_config).length)
  })

  test(`${trace.case}: cumulative alphas are bit-exact`, () => {
    const { config } = newScheduler()
    const betas =
      trace.class === 'UnCLIPScheduler'
        ? betasForAlphaBar(config.num_train_timesteps, cosineAlphaBar)
        : makeBetas(config)
    assert.deepEqual(cumulativeAlphas(betas), tensors.get('alphas_cumprod').data)
  })

  test(`${trace.case}: timesteps`, () => {
    const scheduler = newScheduler()
    for (const [name, { data }] of tensors) {
      if (!name.startsWith('timesteps.')) continue
      const count = Number(name.slice('timesteps.'.length))
      if (data[0] >= scheduler.config.num_train_timesteps) {
        // the reference accepts this and fails in the first step
        assert.throws(() => scheduler.setTimesteps(count), { code: 'INVALID_ARGUMENT', message: /steps_offset/ })
        continue
      }
      scheduler.setTimesteps(count)
      assert.deepEqual([...scheduler.timesteps], data, name)
    }
  })

  for (const count of [4, 7]) {
    test(`${trace.case}: a run of ${count} steps`, () => {
      const recorded = (name) => tensors.get(`sequence.${count}.${name}`)
      const scheduler = newScheduler()
      scheduler.setTimesteps(count)
      let sample = tensorOf(recorded('sample'))
      for (const [i, timestep] of scheduler.timesteps.entries()) {
        const modelOutput = entry(recorded('model_outputs'), i)
        const generator = replay([entry(recorded('noises'), i)])
        sample = scheduler.step(modelOutput, timestep, sample, { generator }).prevSample
        // model outputs are random, so samples and rounding errors grow with each step
        assertClose(`prev_samples[${i}]`, sample, entry(recorded('prev_samples'), i), STEP_TOLERANCE)
      }
    })
  }

  test(`${trace.case}: addNoise`, () => {
    const [original, noise] = ['original', 'noise'].map((name) => tensorOf(tensors.get(`add_noise.${name}`)))
    const result = newScheduler().addNoise(original, noise, tensors.get('add_noise.timesteps').data)
    assertClose('result', result, tensors.get('add_noise.result'), ROUNDING)
  })
}

const extra = readTrace('extra/scheduler-cases')

test('cumulative alphas of every beta schedule, also rescaled to zero terminal SNR', () => {
  for (const [name, expected] of extra.tensors) {
    const [kind, beta_schedule, zeroSnr] = name.split('.')
    if (kind !== 'alphas_cumprod') continue
    const { config } = new DDPMScheduler({ beta_schedule, rescale_betas_zero_snr: zeroSnr !== undefined })
    const alphas = cumulativeAlphas(makeBetas(config))
    assertClose(name, { data: alphas, shape: [1000] }, expected, 1e-6)
    if (zeroSnr !== undefined) assert.equal(alphas.at(-1), 0, name)
  }
})

test('timesteps of every spacing', () => {
  for (const [timestep_spacing, table] of Object.entries(extra.timesteps)) {
    const scheduler = new DDPMScheduler({ timestep_spacing })
    for (const [count, expected] of Object.entries(table)) {
      scheduler.setTimesteps(Number(count))
      // for some counts the reference's trailing timesteps have a -1 too many
      assert.deepEqual([...scheduler.timesteps], expected.slice(0, Number(count)), `${timestep_spacing}, ${count}`)
    }
  }
})

const name = ({ class: className, config, num_inference_steps, eta, use_clipped_model_output }) =>
  `${className} ${JSON.stringify({ ...config, num_inference_steps, eta, use_clipped_model_output })}`

for (const className of ['DDPMScheduler', 'DDIMScheduler', 'UnCLIPScheduler']) {
  test(`${className}: steps with all combinations of settings`, () => {
    const cases = [...extra.cases.entries()].filter(([, recorded]) => recorded.class === className)
    assert.ok(cases.length > 0)
    for (const [index, recorded] of cases) stepsLikeReference(recorded, index)
  })
}

function stepsLikeReference(recorded, index) {
  const { tensors } = extra
  const scheduler = schedulerByName(recorded.class, recorded.config)
  scheduler.setTimesteps(recorded.timesteps ?? recorded.num_inference_steps)
  const modelOutput = scheduler.learnsVariance
    ? joinChannels(tensors.get('model_output'), tensors.get('learned_variance'))
    : tensorOf(tensors.get('model_output'))
  for (const [i, timestep] of recorded.steps.entries()) {
    const { prevSample, predOriginalSample } = scheduler.step(modelOutput, timestep, tensorOf(tensors.get('sample')), {
      eta: recorded.eta,
      useClippedModelOutput: recorded.use_clipped_model_output,
      generator: replay([tensors.get('noise')]),
    })
    const where = `${name(recorded)} at ${timestep}`
    const expected = (kind) => entry(entry(tensors.get(kind), index), i)
    assertClose(`${where}: prevSample`, prevSample, expected('prev_samples'), STEP_TOLERANCE)
    assertClose(`${where}: predOriginalSample`, predOriginalSample, expected('pred_original_samples'), STEP_TOLERANCE)
  }
}

function joinChannels(first, second) {
  const [batch, channels, ...size] = first.shape
  const rows = Array.from({ length: batch }, (_, i) => [...entry(first, i).data, ...entry(second, i).data])
  return new Tensor(Float32Array.from(rows.flat()), [batch, 2 * channels, ...size])
}

// Options that compute less: a part of the run without guidance, and steps that are forecast. What they leave out is
// counted at the network; off, or left out, nothing changes.
import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import {
  AutoPipelineForText2Image,
  DDIMScheduler,
  Generator,
  Kandinsky3Pipeline,
  Kandinsky5T2IPipeline,
  KandinskyV22Img2ImgPipeline,
  loadImage,
  recipeOptions,
  recipeScheduler,
  Tensor,
} from '../../dist/index.js'
import { schedulerByName, schedulerShortNames } from '../../dist/schedulers/registry.js'
import { checkpoint } from '../helpers/cases.mjs'
import { kandinskyIn } from '../helpers/cli.mjs'
import { psnr } from '../helpers/compare.mjs'
import { temporaryFolder } from '../helpers/files.mjs'
import { shapesOfRuns } from '../helpers/runs.mjs'

const demo = await AutoPipelineForText2Image.fromPretrained('demo', { threads: 1, device: 'cpu' })
test.after(() => demo.dispose())

/** Rows of the network's input at each of its runs during `make`. */
const rowsOfRuns = async (...run) => (await shapesOfRuns(...run)).map(([rows]) => rows)

const call = { prompt: 'a red apple', numInferenceSteps: 10, priorNumInferenceSteps: 2, seed: 1 }
const bytes = async (options, pipe = demo) => (await pipe.generate({ ...call, ...options })).images[0].data
const unetRows = (options) =>
  rowsOfRuns(demo.decoderPipe.components.unet, 'sample', () => demo.generate({ ...call, ...options }))

test('without guidance outside the interval half of the batch is computed', async () => {
  assert.deepEqual(await unetRows({ guidanceInterval: [0.2, 0.65] }), [1, 1, 2, 2, 2, 2, 1, 1, 1, 1])
  assert.deepEqual(await unetRows({ guidanceInterval: [0, 1] }), Array(10).fill(2))
})

test('an interval of the whole run changes nothing, an empty one is no guidance', async () => {
  assert.deepEqual(await bytes({ guidanceInterval: [0, 1] }), await bytes({}))
  assert.deepEqual(await bytes({ guidanceInterval: [0.5, 0.5] }), await bytes({ guidanceScale: 1 }))
})

test('an interval is two fractions in their order', async () => {
  for (const guidanceInterval of [[0.6, 0.2], [-0.1, 1], [0, 1.1], [0], [0, 0.5, 1], ['0', 1], 0.5, [Number.NaN, 1]])
    await assert.rejects(bytes({ guidanceInterval }), {
      code: 'INVALID_ARGUMENT',
      message: /guidanceInterval/,
    })
})

test('Kandinsky 3 and 5 leave out the unconditional half, too', async (t) => {
  const small = { prompt: 'a cat', height: 64, width: 64, numInferenceSteps: 4, guidanceInterval: [0, 0.5], seed: 0 }
  const options = { weights: 'f32', threads: 1, device: 'cpu' }
  const three = await Kandinsky3Pipeline.fromPretrained(checkpoint('kandinsky-3'), options)
  t.after(() => three.dispose())
  assert.deepEqual(await rowsOfRuns(three.components.unet, 'sample', () => three.generate(small)), [2, 2, 1, 1])
  const five = await Kandinsky5T2IPipeline.fromPretrained(checkpoint('kandinsky-5-t2i'), options)
  t.after(() => five.dispose())
  five.resolutions = [[64, 64]]
  // One row at a time: two runs a guided step.
  const rows = await rowsOfRuns(five.components.transformer, 'hidden_states', () => five.generate(small))
  assert.equal(rows.length, 2 * 2 + 2)
})

test('a forecast computes the first steps, then one of so many, and the last', async () => {
  const runs = async (numInferenceSteps, forecast) => (await unetRows({ numInferenceSteps, forecast })).length
  assert.equal(await runs(25, 'balanced'), 11)
  assert.equal(await runs(25, 'fast'), 8)
  assert.equal(await runs(12, { interval: 2, warmup: 2 }), 2 + 5)
  assert.equal(await runs(12, { interval: 10, warmup: 11 }), 12)
})

test('a forecast that computes every step changes nothing', async () => {
  assert.deepEqual(await bytes({ forecast: { interval: 10, warmup: 100 } }), await bytes({}))
})

const ofThisDecoder = schedulerShortNames.filter((name) => name !== 'flow_match' && name !== 'unclip')
for (const name of ofThisDecoder)
  test(`${name}: a forecast picture is nearly the computed one, or refused`, async (t) => {
    const own = demo.scheduler
    t.after(() => {
      demo.scheduler = own
    })
    demo.scheduler = schedulerByName(name, own.config)
    const forecast = (options) => bytes({ numInferenceSteps: 25, forecast: 'balanced', ...options })
    if (['heun', 'pndm', 'lcm', 'kandinsky3_flash'].includes(name))
      return assert.rejects(forecast(), { code: 'INVALID_ARGUMENT', message: /forecast does not go with/ })
    const [full, first, again] = [await bytes({ numInferenceSteps: 25 }), await forecast(), await forecast()]
    assert.deepEqual(first, again)
    assert.notDeepEqual(first, full)
    assert.ok(psnr(first, full) > 35, `${psnr(first, full)} dB`)
  })

test('a run of a few steps, and what is no forecast, is refused', async () => {
  await assert.rejects(bytes({ numInferenceSteps: 7, forecast: 'fast' }), { message: /8 steps or more/ })
  for (const forecast of [
    'slow',
    'constructor',
    2,
    true,
    {},
    { interval: 1 },
    { interval: 2.5 },
    { interval: 2, order: 3 },
  ])
    await assert.rejects(bytes({ forecast }), { code: 'INVALID_ARGUMENT' })
  await assert.rejects(bytes({ forecast: { interval: 2, warm: 3 } }), { message: /warm/ })
})

test('image-to-image forecasts the part that it runs', async (t) => {
  const pipe = KandinskyV22Img2ImgPipeline.fromPipe(demo.decoderPipe)
  const embeds = await demo.priorPipe.generate({ prompt: 'a tomato', numInferenceSteps: 2, seed: 0 })
  const [image] = (await demo.generate(call)).images
  const make = () =>
    pipe.generate({ ...embeds, image, strength: 0.5, numInferenceSteps: 24, forecast: 'fast', seed: 0 })
  t.after(() => pipe.scheduler.clone())
  assert.equal((await rowsOfRuns(pipe.components.unet, 'sample', make)).length, 5)
})

test('a picture so made says so, and is made again to the byte', async () => {
  const options = { ...call, numInferenceSteps: 12, guidanceInterval: [0, 0.5], forecast: { interval: 3, warmup: 2 } }
  const [picture] = (await demo.generate(options)).images
  assert.deepEqual(picture.recipe.guidanceInterval, [0, 0.5])
  assert.deepEqual(picture.recipe.forecast, { interval: 3, warmup: 2, order: 1 })
  const own = demo.scheduler
  demo.scheduler = await recipeScheduler(picture.recipe)
  const [again] = (await demo.generate(await recipeOptions(picture.recipe))).images
  demo.scheduler = own
  assert.deepEqual(again.data, picture.data)
  assert.equal((await demo.generate(call)).images[0].recipe.forecast, undefined)
})

test('the command line has both, and --from repeats them', async (t) => {
  const folder = temporaryFolder(t)
  const pixels = async (name) => (await loadImage(path.join(folder, name))).data
  const run = (...args) => kandinskyIn(folder, ['generate', ...args, '--threads', '1', '--device', 'cpu'])
  const small = ['a red apple', '--steps', '9', '--prior-steps', '2', '--seed', '3']
  const first = run(...small, '-o', 'a.png', '--guidance-interval', '0,0.5', '--forecast', '2,3,1')
  assert.equal(first.status, 0, first.stderr)
  const second = run('--from', 'a.png', '-o', 'b.png')
  assert.equal(second.status, 0, second.stderr)
  assert.deepEqual(await pixels('b.png'), await pixels('a.png'))
  for (const wrong of [
    ['--forecast', 'slow'],
    ['--forecast', '2,,1'],
    ['--guidance-interval', '0.5'],
  ]) {
    const { status, stderr } = run(...small, '-o', 'c.png', ...wrong)
    assert.notEqual(status, 0)
    assert.match(stderr, new RegExp(wrong[0]))
  }
})

/** Of classes that do not have all. */
const predictionTypes = {
  flow_match: ['flow'],
  euler_a: ['epsilon', 'v_prediction'],
  pndm: ['epsilon', 'v_prediction'],
  kandinsky3_flash: ['epsilon'],
}

test('the clean sample that a prediction implies is the one that the step finds', () => {
  const noise = (seed) =>
    new Tensor(
      Float32Array.from({ length: 24 }, (_, i) => Math.sin(seed * (i + 1))),
      [1, 4, 2, 3],
    )
  // These limit the clean sample in every step, or make another sample of it.
  for (const name of schedulerShortNames.filter((name) => !['lcm', 'unclip', 'kandinsky3'].includes(name)))
    for (const prediction_type of predictionTypes[name] ?? ['epsilon', 'sample', 'v_prediction']) {
      const base = name === 'flow_match' ? {} : { ...new DDIMScheduler().config, clip_sample: false, prediction_type }
      const scheduler = schedulerByName(name, base)
      scheduler.setTimesteps(5)
      const [sample, output, timestep] = [noise(1), noise(2), scheduler.timesteps[0]]
      const original = scheduler.originalOf(output, timestep, sample)
      const back = scheduler.predictionOf(original, timestep, sample)
      const input = scheduler.scaleModelInput(sample, timestep) // tells some where the run stands
      assert.ok(input)
      const { predOriginalSample } = scheduler.step(output, timestep, sample, { generator: new Generator(0) })
      for (let i = 0; i < 24; i++) {
        const scale = 1 + Math.abs(original.data[i])
        assert.ok(Math.abs(predOriginalSample.data[i] - original.data[i]) / scale < 1e-3, `${name} ${prediction_type}`)
        assert.ok(Math.abs(back.data[i] - output.data[i]) < 2e-2, `${name} ${prediction_type}: ${back.data[i]}`)
      }
    }
})

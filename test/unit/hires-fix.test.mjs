// Pictures in two runs: what a call with `hiresFix` makes is what text-to-image and image-to-image make by hand, one after
// the other, with one stream of noise.
import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import {
  AutoPipelineForText2Image,
  Generator,
  Kandinsky3Img2ImgPipeline,
  Kandinsky3Pipeline,
  KandinskyImg2ImgPipeline,
  KandinskyPipeline,
  KandinskyV22Img2ImgPipeline,
  readRecipe,
  recipeOptions,
} from '../../dist/index.js'
import { schedulerByName, schedulerShortNames } from '../../dist/schedulers/registry.js'
import { checkpoint } from '../helpers/cases.mjs'
import { kandinskyIn, small } from '../helpers/cli.mjs'
import { temporaryFolder } from '../helpers/files.mjs'
import { shapesOfRuns } from '../helpers/runs.mjs'

const demo = await AutoPipelineForText2Image.fromPretrained('demo', { threads: 1, device: 'cpu' })
test.after(() => demo.dispose())
const call = {
  prompt: 'a red apple',
  height: 128,
  width: 128,
  numInferenceSteps: 4,
  priorNumInferenceSteps: 2,
  seed: 1,
}
const pictures = async (options, pipe = demo) => (await pipe.generate({ ...call, ...options })).images

/** Sides of the latents at each run of the UNet during `make`. */
const sidesOfRuns = async (make) =>
  (await shapesOfRuns(demo.decoderPipe.components.unet, 'sample', make)).map((shape) => shape.slice(2).join('x'))

/** Both runs by hand. */
async function byHand(first, second, options, { scale = 2, strength = 0.3 } = {}) {
  const generator = new Generator(9)
  const { height, width } = options
  const half = { height: height / scale, width: width / scale }
  const { images } = await first.generate({ ...options, ...half, generator })
  return (await second.generate({ ...options, image: images, strength, generator })).images
}

function assertSame(actual, expected) {
  assert.equal(actual.length, expected.length)
  for (const [i, { data }] of actual.entries()) assert.deepEqual(data, expected[i].data)
}

test('2.2: two runs in one call are those of two calls', async () => {
  const pipe = demo.decoderPipe
  const embeds = await demo.priorPipe.generate({ prompt: ['a red apple', 'a tiger'], numInferenceSteps: 2, seed: 0 })
  const options = { ...embeds, height: 128, width: 256, numInferenceSteps: 4, guidanceScale: 2 }
  const expected = await byHand(pipe, KandinskyV22Img2ImgPipeline.fromPipe(pipe), options)
  const { images } = await pipe.generate({ ...options, hiresFix: {}, generator: new Generator(9) })
  assertSame(images, expected)
})

test('2.1 adds noise as its own image-to-image does, Kandinsky 3 as its', async (t) => {
  const f32 = { weights: 'f32', threads: 1, device: 'cpu' }
  const load = async (Class, name) => {
    const pipe = await Class.fromPretrained(checkpoint(name), f32)
    t.after(() => pipe.dispose())
    return pipe
  }
  const shared = { prompt: 'a cat', height: 128, width: 128, numInferenceSteps: 4, guidanceScale: 4 }
  const random = new Generator(1)
  const embeds = { imageEmbeds: random.randn([1, 64]), negativeImageEmbeds: random.randn([1, 64]) }
  for (const [First, Second, name, given] of [
    [KandinskyPipeline, KandinskyImg2ImgPipeline, 'kandinsky-2-1', embeds],
    [Kandinsky3Pipeline, Kandinsky3Img2ImgPipeline, 'kandinsky-3', {}],
  ]) {
    const [first, second] = [await load(First, name), await load(Second, name)]
    const options = { ...shared, ...given }
    const expected = await byHand(first, second, options, { strength: 0.75 })
    const hiresFix = { scale: 2, strength: 0.75 }
    assertSame((await first.generate({ ...options, hiresFix, generator: new Generator(9) })).images, expected)
  }
})

test('the first run is small, the second has its share of the steps, and events count both', async () => {
  const steps = []
  const options = { hiresFix: { scale: 2, strength: 0.5 }, preview: true, height: 256 }
  const onStep = ({ stage, step, steps: all, preview, latents }) => {
    if (stage === 'decoder') steps.push([step, all, preview[0].height, latents.shape[2]])
  }
  const sides = await sidesOfRuns(() => pictures({ ...options, onStep }))
  const [small, full] = [[...new Set(sides)][0], sides.at(-1)].map((side) => Number(side.split('x')[0]))
  assert.equal(full, 2 * small)
  assert.equal(sides.length, 6)
  assert.deepEqual(
    steps,
    [small, small, small, small, full, full].map((side, i) => [i + 1, 6, side, side]),
  )
})

test('sides of the first run are multiples of 64, and smaller than those of the second', async () => {
  const sides = await sidesOfRuns(() => pictures({ height: 192, hiresFix: { scale: 1.5, strength: 0.25 } }))
  const [height, width] = sides.at(-1).split('x').map(Number)
  assert.equal(sides[0], `${(height * 2) / 3}x${width}`)
  await assert.rejects(pictures({ height: 64, width: 64, hiresFix: {} }), { message: /makes 64x64 pixels smaller/ })
})

test('every picture of a call is the one that its seed makes alone', async () => {
  const two = await pictures({ numImagesPerPrompt: 2, hiresFix: {} })
  assertSame([two[1]], await pictures({ seed: 2, hiresFix: {} }))
})

for (const name of schedulerShortNames.filter((name) => !['unclip', 'flow_match'].includes(name)))
  test(`${name} makes it, the same each time`, async (t) => {
    const own = demo.scheduler
    t.after(() => {
      demo.scheduler = own
    })
    demo.scheduler = schedulerByName(name, own.config)
    const [first, again] = [
      await pictures({ hiresFix: { strength: 0.5 } }),
      await pictures({ hiresFix: { strength: 0.5 } }),
    ]
    assertSame(again, first)
    assert.notDeepEqual(first[0].data, (await pictures({}))[0].data)
  })

test('a sampler with fewer timesteps than were asked for still has one for the least strength', async (t) => {
  const own = demo.scheduler
  t.after(() => {
    demo.scheduler = own
  })
  demo.scheduler = schedulerByName('kandinsky3', own.config)
  const sides = await sidesOfRuns(() => pictures({ numInferenceSteps: 60, hiresFix: { strength: 0.02 } }))
  assert.equal(sides.length, 59 + 1)
})

test('it ends in the middle of the second run, and goes with a forecast and an interval', async () => {
  const aborter = new AbortController()
  const onStep = ({ stage, step }) => stage === 'decoder' && step === 5 && aborter.abort(new Error('enough'))
  await assert.rejects(pictures({ hiresFix: { strength: 0.5 }, onStep, signal: aborter.signal }), { message: 'enough' })
  const options = { hiresFix: { strength: 0.5 }, numInferenceSteps: 16, forecast: 'fast', guidanceInterval: [0, 0.5] }
  const sides = await sidesOfRuns(() => pictures(options))
  assert.ok(sides.length < 16)
})

test('a picture so made says so, and is made again to the byte', async () => {
  const [image] = await pictures({ hiresFix: { strength: 0.6 } })
  assert.deepEqual(image.recipe.hiresFix, { scale: 2, strength: 0.6 })
  assertSame((await demo.generate(await recipeOptions(image.recipe))).images, [image])
})

test('what is no such option is refused before anything is computed', async () => {
  const refuses = (hiresFix, message) =>
    assert.rejects(pictures({ hiresFix }), (error) => error.code === 'INVALID_ARGUMENT' && message.test(error.message))
  await refuses(true, /Expected an object for hiresFix/)
  await refuses({ scale: 0.5 }, /from 1 to 8 for hiresFix.scale/)
  await refuses({ scale: '2' }, /hiresFix.scale/)
  await refuses({ strength: 0 }, /at least 0.25, .* for hiresFix.strength/)
  await refuses({ strength: 1.5 }, /hiresFix.strength/)
  await refuses({ steps: 3 }, /Unknown option steps/)
})

test('--hires-scale and --hires-strength, and --from', (t) => {
  const folder = temporaryFolder(t)
  const run = (...args) => kandinskyIn(folder, ['generate', ...args])
  const size = ['--width', '128', '--height', '128', '--seed', '2']
  const first = run('a cat', ...small, ...size, '--hires-scale', '2', '--hires-strength', '0.5', '-o', 'a.png')
  assert.equal(first.status, 0, first.stderr)
  const again = run('--from', 'a.png', ...small.slice(0, 2), '--threads', '1', '-o', 'b.png')
  assert.equal(again.status, 0, again.stderr)
  return Promise.all(['a.png', 'b.png'].map((name) => readRecipe(path.join(folder, name)))).then(([a, b]) => {
    assert.deepEqual(a.hiresFix, { scale: 2, strength: 0.5 })
    assert.deepEqual(b, a)
    const wrong = run('a cat', ...small, '--hires-scale', '2', '--image', 'a.png')
    assert.equal(wrong.status, 2)
    assert.match(wrong.stderr, /--hires-scale and --image exclude each other/)
  })
})

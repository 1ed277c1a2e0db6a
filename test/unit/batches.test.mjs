// Batches for which there is not enough memory are computed in parts: the same pictures, later.
import assert from 'node:assert/strict'
import test from 'node:test'
import {
  AutoPipelineForText2Image,
  Generator,
  Kandinsky3Pipeline,
  KandinskyError,
  KandinskyPipeline,
} from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'

/** `make` with a network that has memory for so many rows; and the rows of each run that was tried. */
async function withRoomFor(rows, network, make) {
  const tried = []
  const run = network.run
  network.run = async (method, inputs, options) => {
    const batch = inputs.sample.shape[0]
    tried.push(batch)
    if (batch > rows) throw new KandinskyError('OUT_OF_MEMORY', 'no room')
    return run.call(network, method, inputs, options)
  }
  try {
    return { made: await make(), tried }
  } finally {
    network.run = run
  }
}

const f32 = { weights: 'f32', threads: 1, device: 'cpu' }
const demo = await AutoPipelineForText2Image.fromPretrained('demo', { threads: 1, device: 'cpu' })
test.after(() => demo.dispose())
const { unet } = demo.decoderPipe.components
const call = { prompt: ['a red apple', 'a tiger', 'a fox'], numInferenceSteps: 2, priorNumInferenceSteps: 2, seed: 1 }
const data = ({ images }) => images.map(({ data }) => data)

test('what fits is one run a step', async () => {
  assert.deepEqual((await withRoomFor(6, unet, () => demo.generate(call))).tried, [6, 6])
})

test('what does not fit is halved until it does, once in a loop, and gives the same pictures', async () => {
  const whole = data(await demo.generate(call))
  const halves = await withRoomFor(4, unet, () => demo.generate(call))
  assert.deepEqual(halves.tried, [6, 3, 3, 3, 3])
  assert.deepEqual(data(halves.made), whole)
  const single = await withRoomFor(1, unet, () => demo.generate(call))
  assert.deepEqual(single.tried, [6, 3, 2, ...Array(12).fill(1)])
  assert.deepEqual(data(single.made), whole)
})

test('where not even one row fits the call fails, and the next works', async () => {
  const failed = withRoomFor(0, unet, () => demo.generate(call))
  await assert.rejects(failed, { code: 'OUT_OF_MEMORY' })
  assert.equal((await demo.generate(call)).images.length, 3)
})

test('texts and masks are parted with the rows that they belong to', async (t) => {
  const random = new Generator(1)
  const embeds = { imageEmbeds: random.randn([2, 64]), negativeImageEmbeds: random.randn([2, 64]) }
  for (const [Class, name, given] of [
    [KandinskyPipeline, 'kandinsky-2-1', embeds],
    [Kandinsky3Pipeline, 'kandinsky-3', {}],
  ]) {
    const pipe = await Class.fromPretrained(checkpoint(name), f32)
    t.after(() => pipe.dispose())
    const options = {
      ...given,
      prompt: ['a cat', 'a very big dog'],
      height: 64,
      width: 64,
      numInferenceSteps: 1,
      seed: 3,
    }
    const whole = data(await pipe.generate(options))
    const parts = await withRoomFor(1, pipe.components.unet, () => pipe.generate(options))
    assert.deepEqual(data(parts.made), whole, name)
    assert.deepEqual(parts.tried, [4, 2, 1, 1, 1, 1])
  }
})

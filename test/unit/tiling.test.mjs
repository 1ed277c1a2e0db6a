// Pictures in tiles, as callers ask for them. That results are the same at all sizes, when tiles are chosen by
// themselves and that they can be cancelled is tested natively (native/test/test_movq_tiles.cpp).
import assert from 'node:assert/strict'
import test from 'node:test'
import { DepthEstimator, Generator, KandinskyPriorPipeline, KandinskyV22Pipeline } from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'

const decoder = checkpoint('kandinsky-2-2-decoder')

async function generate(t, tiling) {
  const pipe = await KandinskyV22Pipeline.fromPretrained(decoder, { device: 'cpu', weights: 'f32', threads: 1, tiling })
  t.after(() => pipe.dispose())
  const random = new Generator(1)
  const [imageEmbeds, negativeImageEmbeds] = [random.randn([2, 128]), random.randn([2, 128])]
  const size = { height: 256, width: 192 }
  const options = { ...size, imageEmbeds, negativeImageEmbeds, numInferenceSteps: 1, generator: random }
  const { images } = await pipe.generate({ ...options, outputType: 'float' })
  return { images, bytes: pipe.components.movq.memory().compute }
}

test('with tiling, a pipeline makes the same pictures in less memory', async (t) => {
  const [whole, tiled, automatic] = [await generate(t, 'never'), await generate(t, 'always'), await generate(t, 'auto')]
  assert.deepEqual(tiled.images, whole.images)
  assert.ok(tiled.bytes < 0.6 * whole.bytes, `${tiled.bytes} of ${whole.bytes} bytes`)
  assert.equal(automatic.bytes, whole.bytes) // there is enough
})

test('other values of tiling are refused, and so is tiling where there is no MoVQ', async () => {
  for (const tiling of ['sometimes', true, null, 512])
    await assert.rejects(KandinskyV22Pipeline.fromPretrained(decoder, { tiling }), {
      code: 'INVALID_ARGUMENT',
      message: /^Expected 'auto', 'always' or 'never' for tiling but received/,
    })
  for (const Pipeline of [DepthEstimator, KandinskyPriorPipeline])
    await assert.rejects(Pipeline.fromPretrained(decoder, { tiling: 'always' }), {
      code: 'INVALID_ARGUMENT',
      message: /tiling/,
    })
})

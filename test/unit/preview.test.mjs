// The linear map from latents to colours that previews use, on a MoVQ whose true map is known.
import assert from 'node:assert/strict'
import test from 'node:test'
import { previewer } from '../../dist/pipelines/sampling/preview.js'
import { Generator } from '../../dist/random.js'
import { Tensor } from '../../dist/tensor.js'

const factor = 8
/** latents = encoding x colour, per cell; the fourth says nothing new */
const encoding = [
  [0.5, 0.1, -0.2],
  [-0.3, 0.6, 0.1],
  [0.2, 0.2, 0.7],
  [0, 0, 0],
]
/** colour = decoding x [latents, 1] */
const decoding = [
  [0.4, -0.2, 0.1, 0, 0.05],
  [0.1, 0.5, -0.3, 0, -0.1],
  [-0.2, 0.1, 0.6, 0, 0.2],
]

/** Applies rows of coefficients (the last one constant where there is one more) to the channels of one picture. */
function mapChannels({ data, shape: [, channels, height, width] }, rows) {
  const pixels = height * width
  const out = rows.map((row) =>
    Float32Array.from({ length: pixels }, (_, i) =>
      row.reduce((sum, factor, c) => sum + factor * (c < channels ? data[c * pixels + i] : 1), 0),
    ),
  )
  return new Tensor(new Float32Array(out.flatMap((plane) => [...plane])), [1, rows.length, height, width])
}

/** Every cell takes the value of its first pixel when shrinking, every pixel that of its cell when growing. */
function rescale({ data, shape: [, channels, height, width] }, scale) {
  const [h, w] = [height * scale, width * scale]
  const out = Float32Array.from({ length: channels * h * w }, (_, i) => {
    const [c, y, x] = [Math.floor(i / (h * w)), Math.floor(i / w) % h, i % w]
    return data[(c * height + Math.floor(y / scale)) * width + Math.floor(x / scale)]
  })
  return new Tensor(out, [1, channels, h, w])
}

function linearMovq() {
  let runs = 0
  return {
    config: { block_out_channels: [1, 1, 1, 1], latent_channels: 4 },
    get runs() {
      return runs
    },
    async run(method, { sample, latents }) {
      runs++
      if (method === 'encode') return { latents: mapChannels(rescale(sample, 1 / factor), encoding) }
      return { sample: rescale(mapChannels(latents, decoding), factor) }
    },
  }
}

test('a linear decoder is recovered, to the byte, and fitted once', async () => {
  const movq = linearMovq()
  const latents = new Tensor(new Generator(5).randn([1, 4, 6, 4]).data.fill(0, 72), [1, 4, 6, 4])
  const [preview] = (await previewer(movq))(latents)
  assert.deepEqual([preview.width, preview.height], [4, 6])
  const colours = mapChannels(latents, decoding).data
  for (const [i, byte] of preview.data.entries()) {
    const expected = Math.min(1, Math.max(0, colours[(i % 3) * 24 + Math.floor(i / 3)] * 0.5 + 0.5)) * 255
    assert.ok(Math.abs(byte - expected) <= 1, `pixel ${Math.floor(i / 3)}, colour ${i % 3}: ${byte}, not ${expected}`)
  }
  await previewer(movq)
  assert.equal(movq.runs, 2)
})

test('a fit that fails is tried again', async () => {
  const movq = linearMovq()
  const failing = { ...movq, config: movq.config, run: () => Promise.reject(new Error('no memory')) }
  await assert.rejects(previewer(failing), /no memory/)
  failing.run = movq.run
  assert.equal((await previewer(failing))(new Tensor(new Float32Array(4), [1, 4, 1, 1])).length, 1)
})

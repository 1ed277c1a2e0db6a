// Kandinsky 5 beyond the recorded runs: every way to load it, sizes, wrong input.
import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import { AutoPipelineForText2Image, convert, Generator, Kandinsky5T2IPipeline, Tensor } from '../../dist/index.js'
import { checkpoint, difference } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const source = checkpoint('kandinsky-5-t2i')
const f32 = { weights: 'f32', threads: 1, device: 'cpu' }
const small = { prompt: 'red cat', height: 64, width: 64, numInferenceSteps: 2, outputType: 'float' }
const seeded = () => ({ ...small, generator: new Generator(0) })

async function load(t, Class = Kandinsky5T2IPipeline, from = source, options = f32) {
  const pipe = await Class.fromPretrained(from, options)
  t.after(() => pipe.dispose())
  pipe.resolutions = [
    [64, 64],
    [48, 96],
  ]
  return pipe
}

test('a GGUF file of it gives the same pictures, quantized ones nearly', async (t) => {
  const folder = temporaryFolder(t)
  const expected = (await (await load(t)).generate(seeded())).images
  for (const [type, limit] of [
    ['f32', 0],
    ['q8_0', 0.05],
  ]) {
    const file = path.join(folder, `${type}.gguf`)
    await convert(source, file, { weights: type })
    const pipe = await load(t, AutoPipelineForText2Image, file, { threads: 1, device: 'cpu' })
    assert.ok(pipe instanceof Kandinsky5T2IPipeline)
    const { max } = difference((await pipe.generate(seeded())).images, expected)
    assert.ok(max <= limit, `${type}: ${max}`)
  }
})

test('one network at a time gives the same picture', async (t) => {
  const [all, one] = [await load(t), await load(t, Kandinsky5T2IPipeline, source, { ...f32, offload: 'model' })]
  assert.deepEqual((await one.generate(seeded())).images, (await all.generate(seeded())).images)
})

test('guidance off reads no negative prompt', async (t) => {
  const pipe = await load(t)
  const pictures = async (negativePrompt) =>
    (await pipe.generate({ ...seeded(), guidanceScale: 1, negativePrompt })).images
  assert.deepEqual(await pictures('a dog'), await pictures(''))
})

test('rows of given embeddings end where promptCuSeqlens says', async (t) => {
  const pipe = await load(t)
  const { in_text_dim: qwen, in_text_dim2: clip } = pipe.components.transformer.config
  const of = (...shape) =>
    new Tensor(
      Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i)),
      shape,
    )
  const promptEmbedsClip = of(1, clip)
  const { prompt: _, ...rest } = seeded()
  const call = async (tokens, length) =>
    (
      await pipe.generate({
        ...{ ...rest, generator: new Generator(0), promptEmbedsClip, promptEmbedsQwen: of(1, tokens, qwen) },
        promptCuSeqlens: length && new Tensor(Float32Array.of(0, length), [2]),
      })
    ).images
  assert.deepEqual(await call(6, 4), await call(4))
  assert.notDeepEqual(await call(6), await call(4))
})

test('wrong input is refused before anything is computed', async (t) => {
  const pipe = await load(t)
  for (const [options, message] of [
    [{ prompt: undefined }, /prompt/],
    [{ prompt: ['a', 'b'], negativePrompt: ['c'] }, /negativePrompt/],
    [{ maxSequenceLength: 1025 }, /maxSequenceLength/],
    [{ promptEmbedsQwen: new Tensor(new Float32Array(64), [1, 1, 64]) }, /promptEmbedsClip/],
    [{ preview: true }, /preview/],
    [{ width: 0 }, /width/],
  ])
    await assert.rejects(pipe.generate({ ...small, ...options }), { code: 'INVALID_ARGUMENT', message })
  for (const sizes of [[], [[64]], [[60, 64]], [[64, 128 * 16 + 16]]])
    assert.throws(
      () => {
        pipe.resolutions = sizes
      },
      { code: 'INVALID_ARGUMENT', message: /resolutions/ },
    )
})

test('schedulers of other processes are refused', async (t) => {
  const pipe = await load(t, Kandinsky5T2IPipeline, source, { ...f32, scheduler: 'ddim' })
  await assert.rejects(pipe.generate(small), { code: 'INVALID_ARGUMENT', message: /FlowMatchEulerDiscreteScheduler/ })
})

test('the checkpoint for editing is not one for this', async () => {
  await assert.rejects(Kandinsky5T2IPipeline.fromPretrained(checkpoint('kandinsky-5-i2i'), f32), {
    code: 'UNSUPPORTED_MODEL',
  })
})

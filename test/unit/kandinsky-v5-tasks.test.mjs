// Kandinsky 5 beyond the recorded runs: every way to load it, sizes, wrong input.
import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import {
  AutoPipelineForImage2Image,
  AutoPipelineForText2Image,
  convert,
  Generator,
  Kandinsky5I2IPipeline,
  Kandinsky5T2IPipeline,
  RawImage,
  Tensor,
} from '../../dist/index.js'
import { checkpoint, difference } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const source = checkpoint('kandinsky-5-t2i')
const editing = checkpoint('kandinsky-5-i2i')
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
    [{ image: new RawImage(new Uint8Array(12), 2, 2) }, /image/],
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
  await assert.rejects(Kandinsky5T2IPipeline.fromPretrained(editing, f32), { code: 'UNSUPPORTED_MODEL' })
  await assert.rejects(AutoPipelineForText2Image.fromPretrained(editing, f32), {
    code: 'UNSUPPORTED_MODEL',
    message: /does image-to-image/,
  })
  await assert.rejects(Kandinsky5I2IPipeline.fromPretrained(source, f32), { code: 'UNSUPPORTED_MODEL' })
})

test('prompts can be encoded once and kept', async (t) => {
  const pipe = await load(t)
  const texts = { prompt: ['red cat', 'a much longer prompt about a dog'], negativePrompt: 'bad' }
  const { prompt: _, ...rest } = small
  const call = { ...rest, seed: 3 }
  const expected = (await pipe.generate({ ...call, ...texts })).images
  const kept = JSON.parse(JSON.stringify(await pipe.encodePrompt(texts)))
  const encoded = Object.fromEntries(Object.entries(kept).map(([name, value]) => [name, Tensor.from(value)]))
  assert.deepEqual((await pipe.generate({ ...call, ...encoded })).images, expected)
})

test('steps carry previews, which approach the picture', async (t) => {
  const pipe = await load(t)
  const previews = []
  const options = { ...seeded(), preview: true, onStep: ({ preview }) => void previews.push(preview) }
  await pipe.generate(options)
  assert.deepEqual(
    previews.map(([{ width, height }]) => [width, height]),
    [
      [8, 8],
      [8, 8],
    ],
  )
})

// ---- editing
const picture = (width, height, level = 90) =>
  new RawImage(
    Uint8Array.from({ length: 3 * width * height }, (_, i) => (i * level) % 251),
    width,
    height,
  )
const edit = (more) => ({
  ...seeded(),
  prompt: 'make it red and add a little more light',
  image: picture(64, 64),
  ...more,
})

test('editing: a GGUF file of it gives the same pictures, quantized ones nearly', async (t) => {
  const folder = temporaryFolder(t)
  const expected = (await (await load(t, Kandinsky5I2IPipeline, editing)).generate(edit())).images
  for (const [type, limit] of [
    ['f32', 0],
    ['q8_0', 0.05],
  ]) {
    const file = path.join(folder, `${type}.gguf`)
    await convert(editing, file, { weights: type })
    const pipe = await load(t, AutoPipelineForImage2Image, file, { threads: 1, device: 'cpu' })
    assert.ok(pipe instanceof Kandinsky5I2IPipeline)
    const { max } = difference((await pipe.generate(edit())).images, expected)
    assert.ok(max <= limit, `${type}: ${max}`)
  }
})

test('editing: the picture gives the size, and both what is read and what is seen', async (t) => {
  const pipe = await load(t, Kandinsky5I2IPipeline, editing)
  const { height: _, width: __, ...rest } = edit({ image: picture(50, 100) })
  assert.deepEqual((await pipe.generate(rest)).images.shape, [1, 96, 48, 3])
  const [one, other] = [edit(), edit({ image: picture(64, 64, 91) })]
  assert.notDeepEqual((await pipe.generate(one)).images, (await pipe.generate(other)).images)
  const encoded = await pipe.encodePrompt({ prompt: one.prompt, image: one.image })
  const { prompt: ___, ...kept } = edit(encoded)
  assert.deepEqual((await pipe.generate(kept)).images, (await pipe.generate(edit())).images)
})

test('editing: one picture serves several prompts and results, each as alone', async (t) => {
  const pipe = await load(t, Kandinsky5I2IPipeline, editing)
  const { generator: _, ...rest } = edit({ seed: 7 })
  const prompt = [rest.prompt, 'make it a drawing of a small wooden house']
  const all = (await pipe.generate({ ...rest, prompt, numImagesPerPrompt: 2 })).images
  const third = (await pipe.generate({ ...rest, prompt: prompt[1], seed: 9 })).images
  const size = third.data.length
  assert.deepEqual(all.data.slice(2 * size, 3 * size), third.data)
  const { images } = await pipe.generate({ ...edit(), numImagesPerPrompt: 2 })
  assert.deepEqual(images.shape, [2, 64, 64, 3])
})

test('editing: wrong input is refused before anything is computed', async (t) => {
  const pipe = await load(t, Kandinsky5I2IPipeline, editing)
  for (const [options, code, message] of [
    [{ image: undefined }, 'INVALID_ARGUMENT', /image/],
    [{ image: new Tensor(new Float32Array(3 * 64 * 64), [1, 3, 64, 64]) }, 'INVALID_ARGUMENT', /a picture/],
    [{ image: [picture(64, 64), picture(64, 64)] }, 'SHAPE_MISMATCH', /one image or one per prompt/],
    [{ image: picture(64, 1) }, 'INVALID_ARGUMENT', /2 pixels/],
    [{ strength: 0.5 }, 'INVALID_ARGUMENT', /strength/],
    [{ prompt: 'a <|image_pad|>' }, 'INVALID_ARGUMENT', /image_pad/],
    [{ prompt: 'many words '.repeat(400) }, 'INVALID_ARGUMENT', /room for the picture/],
    [{ latents: new Tensor(new Float32Array(8 * 8 * 16), [1, 1, 8, 8, 16]) }, 'SHAPE_MISMATCH', /latents/],
  ])
    await assert.rejects(pipe.generate(edit(options)), { code, message })
})

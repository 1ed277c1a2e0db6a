// Kandinsky 3 beyond the recorded runs: every way to load it, prompts in and out, batches, sizes, wrong input.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import path from 'node:path'
import test from 'node:test'
import {
  AutoPipeline,
  AutoPipelineForImage2Image,
  AutoPipelineForInpainting,
  AutoPipelineForText2Image,
  convert,
  Generator,
  Kandinsky3Img2ImgPipeline,
  Kandinsky3Pipeline,
  loadImage,
  readRecipe,
  Tensor,
} from '../../dist/index.js'
import { checkpoint, difference, fixtures } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const source = checkpoint('kandinsky-3')
const picture = path.join(fixtures, 'images', 'shapes_64x128.png')
const f32 = { weights: 'f32', threads: 1, device: 'cpu' }
const small = { height: 64, width: 64, numInferenceSteps: 2, outputType: 'float' }

async function load(t, Class = Kandinsky3Pipeline, from = source, options = f32) {
  const pipe = await Class.fromPretrained(from, options)
  t.after(() => pipe.dispose())
  return pipe
}

/** The noise of a call, row by row. */
const rowsOf = ({ data, shape: [rows, ...rest] }) =>
  Array.from({ length: rows }, (_, i) => {
    const size = data.length / rows
    return new Tensor(data.slice(i * size, (i + 1) * size), [1, ...rest])
  })

test('a GGUF file of it gives the same pictures, quantized ones nearly', async (t) => {
  const folder = temporaryFolder(t)
  const call = { prompt: 'a cat', ...small, generator: new Generator(1) }
  const expected = (await (await load(t)).generate(call)).images
  for (const [weights, limit] of [
    ['f32', 1e-6],
    ['q8_0', 0.1],
  ]) {
    const file = path.join(folder, `${weights}.gguf`)
    const { components } = await convert(source, file, { weights })
    assert.deepEqual(components.sort(), ['movq', 'text_encoder', 'unet'])
    const pipe = await load(t, Kandinsky3Pipeline, file, { threads: 1, device: 'cpu' })
    const { images } = await pipe.generate({ ...call, generator: new Generator(1) })
    const { mean } = difference(images, expected)
    assert.ok(mean <= limit, `${weights}: mean difference ${mean}`)
  }
})

test('the text encoder is in memory only while it reads', async (t) => {
  const pipe = await load(t)
  const { textEncoder, unet } = pipe.components
  assert.equal(textEncoder.memory().weights, 0)
  let during
  await pipe.generate({
    ...{ prompt: 'a cat', ...small },
    onStep: () => {
      during = textEncoder.memory().weights
    },
  })
  assert.equal(during, 0)
  assert.ok(unet.memory().weights > 0)
})

test('with offload the networks take turns and give the same picture', async (t) => {
  const call = () => ({ prompt: 'a cat', negativePrompt: 'a dog', ...small, generator: new Generator(3) })
  const expected = (await (await load(t)).generate(call())).images
  const pipe = await load(t, Kandinsky3Pipeline, source, { ...f32, offload: 'model' })
  assert.deepEqual((await pipe.generate(call())).images.data, expected.data)
  assert.equal(pipe.components.unet.memory().weights, 0)
})

test('prompts can be encoded, kept as JSON and used without the text encoder', async (t) => {
  const pipe = await load(t)
  const texts = { prompt: ['a cat', 'a red house by the sea'], negativePrompt: ['', 'blurry'] }
  const expected = (await pipe.generate({ ...texts, ...small, generator: new Generator(1) })).images
  const kept = JSON.parse(JSON.stringify(await pipe.encodePrompt(texts)))
  const encoded = Object.fromEntries(Object.entries(kept).map(([name, value]) => [name, Tensor.from(value)]))
  pipe.components.textEncoder.run = () => assert.fail('the text encoder ran')
  const { images } = await pipe.generate({ ...encoded, ...small, generator: new Generator(1) })
  assert.deepEqual(images.data, expected.data)
})

test('each picture of a batch is the one that its prompt makes alone', async (t) => {
  const pipe = await load(t)
  const prompts = ['a cat', 'a very small red house by the sea with a boat']
  const noise = new Generator(5).randn([4, 4, 8, 8])
  const batch = { prompt: prompts, numImagesPerPrompt: 2, latents: noise, ...small, guidanceScale: 2 }
  pipe.scheduler = (await import('../../dist/index.js')).DDIMScheduler.fromConfig(pipe.scheduler.config)
  const rows = rowsOf((await pipe.generate(batch)).images)
  for (const [i, latents] of rowsOf(noise).entries()) {
    // Alone, a shorter prompt is cut earlier, which changes the mean of all tokens that the reference pools.
    const both = await pipe.encodePrompt({ prompt: prompts })
    const one = (tensor) => rowsOf(tensor)[Math.floor(i / 2)]
    const { images } = await pipe.generate({
      ...{ promptEmbeds: one(both.promptEmbeds), attentionMask: one(both.attentionMask) },
      ...{ latents, ...small, guidanceScale: 2 },
    })
    const { max } = difference(images, rows[i])
    assert.ok(max < 1e-4, `picture ${i} differs by ${max}`)
  }
})

test('a picture of any size starts image-to-image, and any size can be asked for', async (t) => {
  const pipe = await load(t, Kandinsky3Img2ImgPipeline)
  const image = (await loadImage(picture)).resize(70, 90)
  const call = { prompt: 'a cat', image, strength: 0.5, numInferenceSteps: 2, outputType: 'float' }
  assert.deepEqual((await pipe.generate(call)).images.shape, [1, 128, 128, 3])
  assert.deepEqual((await pipe.generate({ ...call, height: 64, width: 64 })).images.shape, [1, 64, 64, 3])
  const latents = new Generator(1).randn([1, 4, 16, 8])
  assert.deepEqual((await pipe.generate({ ...call, image: latents })).images.shape, [1, 128, 64, 3])
})

test('the AutoPipelines know it, and refuse what it does not do', async (t) => {
  for (const [Auto, Class] of [
    [AutoPipelineForText2Image, Kandinsky3Pipeline],
    [AutoPipelineForImage2Image, Kandinsky3Img2ImgPipeline],
    [AutoPipeline, Kandinsky3Pipeline],
  ])
    assert.ok((await load(t, Auto)) instanceof Class)
  await assert.rejects(AutoPipelineForInpainting.fromPretrained(source, f32), {
    code: 'UNSUPPORTED_MODEL',
    message: /inpainting with Kandinsky 3 \(9 input channels\)/,
  })
  await assert.rejects(AutoPipelineForText2Image.fromPretrained(source, { ...f32, prior: source }), {
    code: 'INVALID_ARGUMENT',
    message: /prior/,
  })
})

test('wrong prompts are refused before anything runs', async (t) => {
  const pipe = await load(t)
  for (const network of Object.values(pipe.components)) if (network?.run) network.run = () => assert.fail('it ran')
  const embeds = new Tensor(new Float32Array(3 * 64), [1, 3, 64])
  const mask = new Tensor(new Float32Array([1, 1, 0]), [1, 3])
  for (const [options, code, message] of [
    [{}, 'INVALID_ARGUMENT', /prompt/],
    [{ prompt: 5 }, 'INVALID_ARGUMENT', /prompt/],
    [{ prompt: 'a', promptEmbeds: embeds, attentionMask: mask }, 'INVALID_ARGUMENT', /nothing beside promptEmbeds/],
    [{ promptEmbeds: embeds }, 'INVALID_ARGUMENT', /attentionMask/],
    [{ prompt: 'a', attentionMask: mask }, 'INVALID_ARGUMENT', /nothing without promptEmbeds/],
    [{ promptEmbeds: new Tensor(new Float32Array(12), [1, 3, 4]), attentionMask: mask }, 'SHAPE_MISMATCH', /n, n, 64/],
    [
      { promptEmbeds: embeds, attentionMask: new Tensor(new Float32Array(3).fill(0.5), [1, 3]) },
      'INVALID_ARGUMENT',
      /zeros/,
    ],
    [{ prompt: ['a', 'b'], negativePrompt: 'c' }, 'INVALID_ARGUMENT', /as many negative prompts as prompts \(2\)/],
    [{ prompt: 'a', mix: {} }, 'INVALID_ARGUMENT', /Unknown option mix/],
    [{ prompt: 'a', image: picture }, 'INVALID_ARGUMENT', /Unknown option image/],
  ])
    await assert.rejects(pipe.generate({ ...small, ...options }), { code, message })
})

test('kandinsky generate makes pictures with it', async (t) => {
  const output = path.join(temporaryFolder(t), 'out.png')
  const main = path.resolve(import.meta.dirname, '../../dist/cli/main.js')
  const args = ['generate', 'a cat', '-m', source, '-o', output, '--steps=2', '--seed=3', '--threads=1', '--device=cpu']
  execFileSync(process.execPath, [main, ...args, '--width=64', '--height=64'])
  const { prompt, model, seed } = await readRecipe(output)
  assert.deepEqual({ prompt, model, seed }, { prompt: 'a cat', model: 'kandinsky-3', seed: 3 })
  execFileSync(process.execPath, [main, ...args, '--image', picture, '--strength=0.5'])
  const { width, height } = await loadImage(output)
  assert.deepEqual([width, height], [64, 128])
})

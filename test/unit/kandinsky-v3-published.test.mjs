// Inpainting, Flash and text to image from the files of Kandinsky 3's authors, against their own code.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import {
  AutoPipelineForInpainting,
  AutoPipelineForText2Image,
  convert,
  Kandinsky3InpaintPipeline,
  Kandinsky3Pipeline,
  loadImage,
  recipeOptions,
  recipeScheduler,
  Tensor,
} from '../../dist/index.js'
import { fixtures } from '../helpers/cases.mjs'
import { assertClose } from '../helpers/compare.mjs'
import { temporaryFolder } from '../helpers/files.mjs'
import { startHub } from '../helpers/hub-server.mjs'
import { cases, tensors, torchSave, weights, writePublished } from '../helpers/published-kandinsky3.mjs'

const folder = temporaryFolder(test)
const published = writePublished(path.join(folder, 'Kandinsky3.1'))
const f32 = { weights: 'f32', threads: 1, device: 'cpu' }

async function load(t, Class, source, options) {
  const pipe = await Class.fromPretrained(source, { ...f32, ...options })
  t.after(() => pipe.dispose())
  return pipe
}

/** The options of a recorded call. */
async function optionsOf({ call, seed, image, mask, size }) {
  const { text, steps, guidance_scale, width, height } = call
  const options = { prompt: text, seed, numInferenceSteps: steps, guidanceScale: guidance_scale, width, height }
  if (!image) return options
  let picture = await loadImage(path.join(fixtures, 'images', image))
  if (size) picture = picture.resize(size[0], size[1], 'bicubic')
  const [top, bottom, left, right] = mask
  const white = new Uint8Array(picture.width * picture.height)
  for (let y = top; y < bottom; y++) white.fill(255, y * picture.width + left, y * picture.width + right)
  return { ...options, image: picture, maskImage: new picture.constructor(white, picture.width, picture.height, 1) }
}

const variants = {
  t2i: undefined,
  't2i-uneven': undefined,
  flash: 'flash',
  inpaint: 'inpainting',
  'inpaint-resized': 'inpainting',
}

for (const [name, recorded] of Object.entries(cases))
  test(`${name}: every step and the picture are those of the published code`, async (t) => {
    const Class = name.startsWith('inpaint') ? Kandinsky3InpaintPipeline : Kandinsky3Pipeline
    const pipe = await load(t, Class, published, { variant: variants[name] })
    const steps = []
    const { images } = await pipe.generate({
      ...(await optionsOf(recorded)),
      outputType: 'float',
      onStep: ({ latents }) => steps.push(latents),
    })
    assert.equal(steps.length, recorded.steps)
    // Flash's steps are clean samples in the record, noised ones here.
    if (name !== 'flash')
      for (const [i, latents] of steps.entries())
        assertClose(`step ${i}`, latents, tensors.get(`${name}.step.${i}`), 5e-4)
    else assertClose('last step', steps.at(-1), tensors.get('flash.step.3'), 5e-4)
    assertClose('picture', images, tensors.get(`${name}.image`), 1 / 255)
  })

test('the variant chooses the UNet, its scheduler and its defaults; a file of ours keeps them', async (t) => {
  const expected = {
    flash: ['Kandinsky3FlashScheduler', 4, 4],
    inpainting: ['Kandinsky3Scheduler', 9, 50],
  }
  for (const [variant, [scheduler, channels, steps]] of Object.entries(expected)) {
    const file = path.join(folder, `${variant}.gguf`)
    await convert(published, file, { variant, weights: 'f32' })
    const Auto = variant === 'flash' ? AutoPipelineForText2Image : AutoPipelineForInpainting
    const [direct, converted] = [await load(t, Auto, published, { variant }), await load(t, Auto, file)]
    const options = { ...(await optionsOf(cases[variant === 'flash' ? 'flash' : 'inpaint'])), outputType: 'float' }
    const pictures = []
    for (const pipe of [direct, converted]) {
      assert.equal(pipe.scheduler.constructor.name, scheduler)
      assert.equal(pipe.components.unet.config.in_channels, channels)
      assert.equal(pipe.components.defaults.numInferenceSteps, steps)
      pictures.push((await pipe.generate({ ...options, numInferenceSteps: 2 })).images)
    }
    assert.deepEqual(pictures[1], pictures[0])
  }
})

test('a checkpoint of another task, and a variant that is not there, are refused', async () => {
  const inpainting = { ...f32, variant: 'inpainting' }
  await assert.rejects(Kandinsky3Pipeline.fromPretrained(published, inpainting), {
    code: 'UNSUPPORTED_MODEL',
    message: /4 input channels/,
  })
  await assert.rejects(Kandinsky3InpaintPipeline.fromPretrained(published, f32), {
    code: 'UNSUPPORTED_MODEL',
    message: /9 input channels/,
  })
  await assert.rejects(Kandinsky3Pipeline.fromPretrained(published, { ...f32, variant: 'fp16' }), {
    code: 'FILE_NOT_FOUND',
    message: /variant '' or 'flash' or 'inpainting'/,
  })
})

test('a folder of the weights alone is opened, too; what is missing is named', async (t) => {
  const only = path.join(writePublished(path.join(folder, 'flash-only'), ['_flash']), 'weights')
  const pipe = await load(t, Kandinsky3Pipeline, only)
  assert.equal(pipe.scheduler.constructor.name, 'Kandinsky3FlashScheduler')
  rmSync(path.join(only, 'flan_ul2_encoder', 'projection_flash.pt'))
  await assert.rejects(Kandinsky3Pipeline.fromPretrained(only, f32), { message: /projection_flash\.pt/ })
  renameSync(path.join(only, 'flan_ul2_encoder'), path.join(only, 'elsewhere'))
  await assert.rejects(Kandinsky3Pipeline.fromPretrained(only, f32), { message: /flan_ul2_encoder/ })
})

test('a UNet without its null embedding is a bad file, named when it loads', async () => {
  const only = path.join(writePublished(path.join(folder, 'no-null'), ['_flash']), 'weights')
  writeFileSync(path.join(only, 'kandinsky3_flash.pt'), torchSave([['unet', weights('kandinsky3_flash.pt')]]))
  await assert.rejects(Kandinsky3Pipeline.fromPretrained(only, f32), { code: 'BAD_FILE', message: /null_embedding/ })
})

test('matrices that were kernels of 1 x 1 keep their strides', async (t) => {
  const only = path.join(writePublished(path.join(folder, 'strided'), ['']), 'weights')
  const columnMajor = ([name, shape, values]) => {
    if (!/\.(q|k|v|proj_out)\.weight$/.test(name)) return [name, shape, values]
    const [rows, columns] = shape
    const turned = values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)])
    return [name, shape, turned, [1, rows, 1, 1]]
  }
  writeFileSync(path.join(only, 'movq.pt'), torchSave(weights('movq.pt').map(columnMajor)))
  const picture = async (folder) => {
    const pipe = await load(t, Kandinsky3Pipeline, folder)
    return (await pipe.generate({ prompt: 'a house', width: 64, height: 64, numInferenceSteps: 1, seed: 3 })).images[0]
  }
  assert.deepEqual((await picture(only)).data, (await picture(published)).data)
})

test('black stays, white changes; several prompts and pictures share a picture and its mask', async (t) => {
  const pipe = await load(t, Kandinsky3InpaintPipeline, published, { variant: 'inpainting' })
  const { prompt, ...options } = { ...(await optionsOf(cases.inpaint)), numInferenceSteps: 2, outputType: 'float' }
  const many = (await pipe.generate({ ...options, prompt: ['a dog', prompt], numImagesPerPrompt: 2 })).images
  assert.deepEqual(many.shape, [4, 128, 64, 3])
  const size = many.data.length / 4
  // Seeds of rows go on: the third picture is the first of the second prompt.
  const alone = (await pipe.generate({ ...options, prompt, seed: options.seed + 2 })).images
  assertClose(
    'the third picture',
    { shape: [size], data: many.data.subarray(2 * size, 3 * size) },
    { shape: [size], data: alone.data },
    0.02,
  )
  const negative = (await pipe.generate({ ...options, prompt, negativePrompt: 'a cat' })).images
  assert.notDeepEqual(negative, (await pipe.generate({ ...options, prompt })).images)
})

test('picture and mask as tensors give the same; wrong ones are named', async (t) => {
  const pipe = await load(t, Kandinsky3InpaintPipeline, published, { variant: 'inpainting' })
  const options = { ...(await optionsOf(cases.inpaint)), numInferenceSteps: 2, outputType: 'latent' }
  const { image, maskImage } = options
  const pixels = new Float32Array(3 * 128 * 64)
  for (let i = 0; i < 128 * 64; i++)
    for (let c = 0; c < 3; c++) pixels[c * 128 * 64 + i] = Math.fround(Math.fround(image.data[3 * i + c] / 255) * 2) - 1
  const asTensors = {
    image: new Tensor(pixels, [3, 128, 64]),
    maskImage: new Tensor(
      Float32Array.from(maskImage.data, (value) => value / 255),
      [128, 64],
    ),
  }
  const expected = (await pipe.generate(options)).images
  assert.deepEqual((await pipe.generate({ ...options, ...asTensors })).images, expected)
  const small = new Tensor(new Float32Array(32 * 32), [32, 32])
  await assert.rejects(pipe.generate({ ...options, maskImage: small }), {
    code: 'SHAPE_MISMATCH',
    message: /maskImage/,
  })
  await assert.rejects(pipe.generate({ ...options, maskImage: undefined }), { code: 'INVALID_ARGUMENT' })
  await assert.rejects(pipe.generate({ ...options, strength: 0.5 }), { message: /strength/ })
})

test('recipes of both make the picture again', async (t) => {
  for (const [variant, name, Class] of [
    ['flash', 'flash', Kandinsky3Pipeline],
    ['inpainting', 'inpaint', Kandinsky3InpaintPipeline],
  ]) {
    const pipe = await load(t, Class, published, { variant })
    const options = { ...(await optionsOf(cases[name])), ...(variant === 'inpainting' && { numInferenceSteps: 2 }) }
    const [picture] = (await pipe.generate(options)).images
    pipe.scheduler = await recipeScheduler(picture.recipe)
    const { image, maskImage } = options
    const given = image ? { image, maskImage } : {}
    const [again] = (await pipe.generate(await recipeOptions(picture.recipe, given))).images
    assert.deepEqual(again.data, picture.data)
  }
})

test('of the repository only what the variant needs is downloaded', async (t) => {
  const names = readdirSync(published, { recursive: true }).filter((name) => /\.\w+$/.test(name))
  const files = Object.fromEntries(names.map((name) => [name, readFileSync(path.join(published, name))]))
  const hub = await startHub({ 'ai-forever/Kandinsky3.1': { 'README.md': 'weights', ...files } })
  t.after(() => hub.close())
  const { HF_ENDPOINT } = process.env
  process.env.HF_ENDPOINT = hub.endpoint
  t.after(() => {
    if (HF_ENDPOINT === undefined) delete process.env.HF_ENDPOINT
    else process.env.HF_ENDPOINT = HF_ENDPOINT
  })
  const cacheDir = path.join(folder, 'cache')
  const pipe = await load(t, Kandinsky3Pipeline, 'ai-forever/Kandinsky3.1', { variant: 'flash', cacheDir })
  assert.equal(pipe.scheduler.constructor.name, 'Kandinsky3FlashScheduler')
  const got = new Set(hub.requests.map(({ path }) => path.split('/').at(-1)))
  for (const name of ['kandinsky3_flash.pt', 'projection_flash.pt', 'movq.pt', 'spiece.model'])
    assert.ok(got.has(name), name)
  for (const name of ['kandinsky3.pt', 'kandinsky3_inpainting.pt', 'projection.pt']) assert.ok(!got.has(name), name)
})

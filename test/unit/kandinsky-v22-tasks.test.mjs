// What the 2.2 pipelines promise beyond the recorded cases: inputs that the reference fails at, access to the latents of
// every step, previews, embeddings that can be stored, networks that take turns.
import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import {
  AutoPipelineForImage2Image,
  AutoPipelineForInpainting,
  Generator,
  KandinskyV22ControlnetPipeline,
  KandinskyV22Img2ImgPipeline,
  KandinskyV22InpaintCombinedPipeline,
  KandinskyV22InpaintPipeline,
  KandinskyV22Pipeline,
  KandinskyV22PriorEmb2EmbPipeline,
  KandinskyV22PriorPipeline,
  loadImage,
  RawImage,
  Tensor,
} from '../../dist/index.js'
import { checkpoint, difference, fixtures } from '../helpers/cases.mjs'
import { assertClose } from '../helpers/compare.mjs'

const decoder = checkpoint('kandinsky-2-2-decoder')
const inpaint = checkpoint('kandinsky-2-2-decoder-inpaint')
const controlnet = checkpoint('kandinsky-2-2-controlnet-depth')
const prior = checkpoint('kandinsky-2-2-prior')
const picture = (name) => path.join(fixtures, 'images', name)
const f32 = { weights: 'f32', threads: 1 }

/** Options of a short call for `rows` embeddings, each its own. */
const call = (rows = 1, seed = 7) => {
  const random = new Generator(1)
  return {
    imageEmbeds: random.randn([rows, 128]),
    negativeImageEmbeds: random.randn([rows, 128]),
    height: 64,
    width: 64,
    numInferenceSteps: 3,
    generator: new Generator(seed),
    outputType: 'latent',
  }
}

async function load(t, Pipeline, source, options = {}) {
  const pipe = await Pipeline.fromPretrained(source, { ...f32, ...options })
  t.after(() => pipe.dispose())
  return pipe
}

const row = (tensor, index) => {
  const size = tensor.data.length / tensor.shape[0]
  return new Tensor(tensor.data.slice(index * size, (index + 1) * size), [1, ...tensor.shape.slice(1)])
}

test('image-to-image takes gray, palette and transparent pictures as their RGB form', async (t) => {
  const pipe = await load(t, KandinskyV22Img2ImgPipeline, decoder)
  for (const name of ['gray_80x80.png', 'palette_90x70.png', 'alpha_100x100.png']) {
    const { images } = await pipe.generate({ ...call(), image: picture(name), strength: 0.7 })
    const rgb = await loadImage(picture(name))
    const { images: expected } = await pipe.generate({ ...call(), image: rgb, strength: 0.7 })
    assertClose(name, images, expected, 0)
  }
  const gray = await loadImage(picture('gray_80x80.png'), { mode: 'L' })
  const { images } = await pipe.generate({ ...call(), image: gray, strength: 0.7 })
  assert.deepEqual([...images.shape], [1, 4, 8, 8])
})

test('image-to-image takes latents for the picture they were encoded from', async (t) => {
  const pipe = await load(t, KandinskyV22Img2ImgPipeline, decoder)
  const sample = new Tensor(new Float32Array(3 * 64 * 64).fill(-0.25), [1, 3, 64, 64])
  const { latents } = await pipe.components.movq.run('encode', { sample })
  const fromLatents = await pipe.generate({ ...call(), image: latents, strength: 0.7 })
  const fromPixels = await pipe.generate({ ...call(), image: sample, strength: 0.7 })
  assertClose('latents', fromLatents.images, fromPixels.images, 0)
})

test('image-to-image sizes are rounded up to multiples of 64', async (t) => {
  const pipe = await load(t, KandinskyV22Img2ImgPipeline, decoder)
  const options = { ...call(), height: 65, width: 50, image: picture('gradient_64x64.png'), strength: 0.4 }
  const { images } = await pipe.generate({ ...options, outputType: 'float' })
  assert.deepEqual([...images.shape], [1, 128, 64, 3])
})

test('one image serves several embeddings with several pictures each, all from the same noise', async (t) => {
  const pipe = await load(t, KandinskyV22Img2ImgPipeline, decoder)
  const image = picture('gradient_64x64.png')
  const shared = { ...call(2), image, numImagesPerPrompt: 2, strength: 0.4 }
  const { images } = await pipe.generate(shared)
  assert.deepEqual([...images.shape], [4, 4, 8, 8])
  const twin = (tensor) => new Tensor(new Float32Array([...tensor.data, ...tensor.data]), [2, ...tensor.shape.slice(1)])
  const same = twin(row(shared.imageEmbeds, 0))
  const twins = await pipe.generate({
    ...shared,
    generator: new Generator(7),
    imageEmbeds: same,
    negativeImageEmbeds: same,
  })
  // One step runs, and its noise is drawn for every row, so only what precedes it is compared: equal embeddings differ
  // by that noise alone, which the last step of the schedule scales to nearly nothing.
  for (const i of [0, 1]) assertClose(`picture ${i}`, row(twins.images, i), row(twins.images, i + 2), 1e-3)
})

test('several pictures per embedding work without guidance', async (t) => {
  for (const [Pipeline, source, extra] of [
    [KandinskyV22Pipeline, decoder, {}],
    [KandinskyV22Img2ImgPipeline, decoder, { image: picture('gradient_64x64.png'), strength: 0.5 }],
    [KandinskyV22ControlnetPipeline, controlnet, { hint: picture('depth_a_64x64.png') }],
  ]) {
    const pipe = await load(t, Pipeline, source)
    const { images } = await pipe.generate({ ...call(2), ...extra, numImagesPerPrompt: 2, guidanceScale: 1 })
    assert.deepEqual([...images.shape], [4, 4, 8, 8], Pipeline.name)
  }
})

test('a hint is the same as picture and as tensor, and one serves all embeddings', async (t) => {
  const pipe = await load(t, KandinskyV22ControlnetPipeline, controlnet)
  const { data } = await loadImage(picture('depth_a_64x64.png'), { mode: 'L' })
  const plane = Float32Array.from(data, (value) => value / 255)
  const hint = new Tensor(new Float32Array([...plane, ...plane, ...plane]), [3, 64, 64])
  const asPicture = await pipe.generate({ ...call(2), hint: picture('depth_a_64x64.png') })
  const asTensor = await pipe.generate({ ...call(2), hint })
  assertClose('latents', asPicture.images, asTensor.images, 0)
})

test('inpainting keeps the latents outside the mask bit by bit, whatever a callback paints', async (t) => {
  const pipe = await load(t, KandinskyV22InpaintPipeline, inpaint)
  const sample = new Tensor(new Generator(3).randn([1, 3, 64, 64]).data.map(Math.tanh), [1, 3, 64, 64])
  const { latents: known } = await pipe.components.movq.run('encode', { sample })
  // The right half is white: repainted. Growing the mask takes one more column of latents.
  const maskImage = new Tensor(
    Float32Array.from({ length: 4096 }, (_, i) => (i % 64 < 32 ? 0 : 1)),
    [64, 64],
  )
  const paint = ({ latents }) => ({
    latents: new Tensor(
      latents.data.map((value) => value + 1),
      latents.shape,
    ),
  })
  for (const callbackOnStepEnd of [undefined, paint]) {
    const { images } = await pipe.generate({ ...call(), image: sample, maskImage, callbackOnStepEnd })
    let repainted = 0
    for (const [i, value] of images.data.entries()) {
      if (i % 8 < 3) assert.equal(value, known.data[i], `latent ${i} is kept`)
      else if (value !== known.data[i]) repainted++
    }
    assert.equal(repainted, 4 * 8 * 5, 'all others are repainted')
  }
})

test('a white picture as mask repaints all, a black one nothing', async (t) => {
  const pipe = await load(t, KandinskyV22InpaintPipeline, inpaint)
  const image = picture('gradient_64x64.png')
  const flat = (value) => new RawImage(new Uint8Array(100).fill(value), 10, 10, 1)
  const { images: black } = await pipe.generate({ ...call(), image, maskImage: flat(0) })
  const { images: other } = await pipe.generate({ ...call(1, 99), image, maskImage: flat(0) })
  assertClose('black', black, other, 0)
  const { images: white } = await pipe.generate({ ...call(), image, maskImage: flat(255) })
  assert.ok(difference(white, black).mean > 0.05, 'white gives another picture')
})

test('the callback sees every step and may put other latents in their place', async (t) => {
  const pipe = await load(t, KandinskyV22Pipeline, decoder)
  const seen = []
  const plain = await pipe.generate({
    ...call(),
    callbackOnStepEnd: ({ step, timestep, latents }) => {
      seen.push({ step, timestep, shape: [...latents.shape] })
    },
  })
  assert.deepEqual(
    seen.map(({ step }) => step),
    [1, 2, 3],
  )
  assert.ok(seen.every(({ timestep }, i) => i === 0 || timestep < seen[i - 1].timestep))
  assert.deepEqual(seen[0].shape, [1, 4, 8, 8])

  const zeros = new Tensor(new Float32Array(256), [1, 4, 8, 8])
  const last = await pipe.generate({
    ...call(),
    callbackOnStepEnd: async ({ step }) => (step === 3 ? { latents: zeros } : {}),
  })
  assertClose('latents', last.images, zeros, 0)
  const first = await pipe.generate({
    ...call(),
    callbackOnStepEnd: ({ step }) => (step === 1 ? { latents: zeros } : undefined),
  })
  assert.ok(difference(first.images, plain.images).max > 0.01, 'the loop goes on from the new latents')

  const wrong = (value) => pipe.generate({ ...call(), callbackOnStepEnd: () => value })
  await assert.rejects(wrong({ latents: new Tensor(new Float32Array(4), [4]) }), { code: 'SHAPE_MISMATCH' })
  await assert.rejects(wrong({ latent: zeros }), { code: 'INVALID_ARGUMENT', message: /did you|Unknown option latent/ })
  await assert.rejects(
    pipe.generate({
      ...call(),
      callbackOnStepEnd: () => {
        throw new Error('mine')
      },
    }),
    /mine/,
  )
  const again = await pipe.generate(call())
  assertClose('latents after a failed call', again.images, plain.images, 0)
})

test('previews are small pictures, one per result, and change nothing', async (t) => {
  const pipe = await load(t, KandinskyV22Pipeline, decoder)
  const { images: plain } = await pipe.generate({ ...call(2), height: 128 })
  const events = []
  for await (const event of pipe.stream({ ...call(2), height: 128, preview: true })) events.push(event)
  const result = events.pop()
  assertClose('latents', result.images, plain, 0)
  for (const { preview } of events) {
    assert.equal(preview.length, 2)
    for (const image of preview) assert.deepEqual([image.width, image.height, image.channels], [8, 16, 3])
  }
  for await (const event of pipe.stream(call())) assert.equal(event.preview, undefined)
})

test('Emb2Emb mixes strings and images as the plain prior does, with real negative embeddings on demand', async (t) => {
  const options = () => ({ numInferenceSteps: 2, generator: new Generator(4), negativePrompt: '' })
  const results = []
  for (const Pipeline of [KandinskyV22PriorPipeline, KandinskyV22PriorEmb2EmbPipeline]) {
    const pipe = await load(t, Pipeline, prior)
    const image = await loadImage(picture('plasma_320x240.png'))
    results.push(await pipe.interpolate(['a cat', image], [0.3, 0.7], options()))
  }
  const [plain, emb2emb] = results
  assertClose('imageEmbeds', emb2emb.imageEmbeds, plain.imageEmbeds, 0)
  assertClose('negativeImageEmbeds', emb2emb.negativeImageEmbeds, plain.negativeImageEmbeds, 0)
})

test('embeddings survive JSON and structuredClone', () => {
  const embeds = new Generator(1).randn([2, 128])
  for (const copy of [
    JSON.parse(JSON.stringify(embeds)),
    structuredClone(embeds),
    { shape: [2, 128], data: [...embeds.data] },
  ])
    assertClose('embeds', Tensor.from(copy), embeds, 0)
  assert.throws(() => Tensor.from({ shape: [2], data: 'AAAA' }), { code: 'INVALID_ARGUMENT' })
  assert.throws(() => Tensor.from({ shape: [3], data: [1, 2] }), { code: 'SHAPE_MISMATCH' })
  assert.throws(() => Tensor.from(undefined), { code: 'INVALID_ARGUMENT' })
})

test('the auto pipelines give the combined ones, whose pictures carry their recipe', async (t) => {
  const options = { numInferenceSteps: 2, priorNumInferenceSteps: 2, height: 64, width: 64 }
  const image = picture('plasma_320x240.png')
  const img2img = await load(t, AutoPipelineForImage2Image, decoder, { prior })
  const call = { prompt: ['a cat', 'a dog'], image, strength: 0.5, seed: 5, ...options }
  const { images } = await img2img.generate(call)
  assert.deepEqual(
    images.map(({ recipe: { prompt, strength, seed } }) => ({ prompt, strength, seed })),
    [
      { prompt: 'a cat', strength: 0.5, seed: 5 },
      { prompt: 'a dog', strength: 0.5, seed: 6 },
    ],
  )
  const inpainting = await load(t, AutoPipelineForInpainting, inpaint, { prior })
  assert.ok(inpainting instanceof KandinskyV22InpaintCombinedPipeline)
})

test('with offload, networks take turns on the device and give the same picture', async (t) => {
  const options = () => ({
    prompt: 'a hat',
    image: picture('plasma_320x240.png'),
    maskImage: picture('mask_circle_64x64.png'),
    ...{ height: 64, width: 64, numInferenceSteps: 2, priorNumInferenceSteps: 2, outputType: 'float' },
    generator: new Generator(6),
  })
  const whole = await load(t, KandinskyV22InpaintCombinedPipeline, inpaint, { prior })
  const turns = await load(t, KandinskyV22InpaintCombinedPipeline, inpaint, { prior, offload: 'model' })
  const networks = [turns.priorPipe, turns.decoderPipe].flatMap(({ components }) =>
    Object.values(components).filter((part) => typeof part?.memory === 'function'),
  )
  const resident = () => networks.filter((network) => network.memory().weights > 0).map(({ name }) => name)
  const { images } = await turns.generate({ ...options(), onStep: () => assert.equal(resident().length, 1) })
  assert.deepEqual(resident(), ['movq'])
  assertClose('images', images, (await whole.generate(options())).images, 0)
})

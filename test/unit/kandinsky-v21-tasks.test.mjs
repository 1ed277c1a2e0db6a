// What the 2.1 pipelines promise beyond the recorded cases: prompts and how they pair with embeddings, sizes that the
// reference fails at, the checkpoint's second scheduler, one file for everything.
import assert from 'node:assert/strict'
import { cpSync, rmSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import {
  AutoPipelineForImage2Image,
  AutoPipelineForInpainting,
  AutoPipelineForText2Image,
  convert,
  DDPMScheduler,
  Generator,
  KandinskyCombinedPipeline,
  KandinskyImg2ImgCombinedPipeline,
  KandinskyImg2ImgPipeline,
  KandinskyInpaintCombinedPipeline,
  KandinskyInpaintPipeline,
  KandinskyPipeline,
  KandinskyPriorPipeline,
  KandinskyV22Pipeline,
  Tensor,
} from '../../dist/index.js'
import { checkpoint, fixtures } from '../helpers/cases.mjs'
import { assertClose } from '../helpers/compare.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const decoder = checkpoint('kandinsky-2-1')
const inpaint = checkpoint('kandinsky-2-1-inpaint')
const prior = checkpoint('kandinsky-2-1-prior')
const picture = (name) => path.join(fixtures, 'images', name)
const f32 = { weights: 'f32', threads: 1 }

/** Options of a short call for `rows` embeddings, each its own. */
const call = (rows = 1, seed = 7) => {
  const random = new Generator(1)
  return {
    prompt: 'a cat',
    imageEmbeds: random.randn([rows, 64]),
    negativeImageEmbeds: random.randn([rows, 64]),
    height: 64,
    width: 64,
    numInferenceSteps: 3,
    generator: new Generator(seed),
    outputType: 'latent',
  }
}
const { imageEmbeds: _, negativeImageEmbeds: __, ...textCall } = call()

async function load(t, Pipeline, source, options = {}) {
  const pipe = await Pipeline.fromPretrained(source, { ...f32, ...options })
  t.after(() => pipe.dispose())
  return pipe
}

test('one prompt serves all embeddings; several go with one each', async (t) => {
  const pipe = await load(t, KandinskyPipeline, decoder)
  const run = async (options) => (await pipe.generate({ ...call(2), ...options })).images
  const shared = await run({ prompt: 'a cat', negativePrompt: 'bad' })
  assertClose('latents', await run({ prompt: ['a cat', 'a cat'], negativePrompt: ['bad', 'bad'] }), shared, 0)
  const own = await run({ prompt: ['a cat', 'the sea'], negativePrompt: ['bad', 'bad'] })
  const half = shared.data.length / 2
  assert.deepEqual(own.data.subarray(0, half), shared.data.subarray(0, half))
  assert.notDeepEqual(own.data.subarray(half), shared.data.subarray(half))
})

test('the negative prompt is the empty one by default, and is not read without guidance', async (t) => {
  const pipe = await load(t, KandinskyPipeline, decoder)
  const run = async (options) => (await pipe.generate({ ...call(), ...options })).images
  assertClose('latents', await run({ negativePrompt: '' }), await run({}), 0)
  assert.notDeepEqual(await run({ negativePrompt: 'low quality' }), await run({}))
  const unguided = { guidanceScale: 1, negativeImageEmbeds: undefined }
  assertClose('latents', await run({ ...unguided, negativePrompt: 'low quality' }), await run(unguided), 0)
})

test('image-to-image starts from the picture at any size, with the noise of its own schedule', async (t) => {
  const pipe = await load(t, KandinskyImg2ImgPipeline, decoder)
  const sample = new Generator(2).randn([1, 3, 128, 64])
  for (const [i, value] of sample.data.entries()) sample.data[i] = Math.tanh(value)
  const { latents } = await pipe.components.movq.run('encode', { sample })
  const noise = new Generator(7).randn([1, 4, 16, 8])

  const seen = []
  const { unet } = pipe.components
  const forward = unet.run.bind(unet)
  unet.run = (method, inputs, options) => {
    seen.push(inputs.sample)
    return forward(method, inputs, options)
  }
  const sides = { height: 128, width: 64, numInferenceSteps: 10, guidanceScale: 1 }
  const { images } = await pipe.generate({ ...call(), ...sides, image: sample, strength: 0.3 })
  assert.deepEqual([...images.shape], [1, 4, 16, 8])
  assert.equal(seen.length, 3)
  // cumprod(1 - linspace(1e-4, 0.02, 1000))[298]
  const signal = 0.39883503
  const mixed = latents.data.map((value, i) => Math.sqrt(signal) * value + Math.sqrt(1 - signal) * noise.data[i])
  assertClose('first sample', seen[0], new Tensor(mixed, [1, 4, 16, 8]), 1e-5)
})

test('guidance is 7 in image-to-image, and 4 in everything else', async (t) => {
  const images = { image: picture('plasma_320x240.png'), maskImage: picture('mask_circle_64x64.png') }
  const { image } = images
  for (const [Pipeline, source, inputs, expected] of [
    [KandinskyPipeline, decoder, {}, 4],
    [KandinskyImg2ImgPipeline, decoder, { image, strength: 0.4 }, 7],
    [KandinskyInpaintPipeline, inpaint, images, 4],
    [KandinskyCombinedPipeline, decoder, {}, 4],
    [KandinskyImg2ImgCombinedPipeline, decoder, { image, strength: 0.4 }, 4],
    [KandinskyInpaintCombinedPipeline, inpaint, images, 4],
  ]) {
    const combined = Pipeline.name.includes('Combined')
    const pipe = await load(t, Pipeline, source)
    const options = combined ? { ...textCall, priorNumInferenceSteps: 2 } : call()
    const result = await pipe.generate({ ...options, ...inputs, outputType: 'image' })
    const { guidanceScale, prompt } = result.images[0].recipe
    assert.deepEqual({ guidanceScale, prompt }, { guidanceScale: expected, prompt: 'a cat' }, Pipeline.name)
  }
})

test('several pictures of several prompts are each made with their own prompt', async (t) => {
  const pipe = await load(t, KandinskyCombinedPipeline, decoder)
  const options = { ...textCall, prompt: ['a cat', 'the sea'], numImagesPerPrompt: 2, priorNumInferenceSteps: 2 }
  const { images } = await pipe.generate({ ...options, generator: new Generator(3) })

  const generator = new Generator(3)
  const { prompt, numImagesPerPrompt } = options
  const embeds = await pipe.priorPipe.generate({ prompt, numImagesPerPrompt, numInferenceSteps: 2, generator })
  const prompts = ['a cat', 'a cat', 'the sea', 'the sea']
  const expected = await pipe.decoderPipe.generate({ ...textCall, ...embeds, prompt: prompts, generator })
  assertClose('latents', images, expected.images, 0)
})

test('interpolation makes several embeddings of each mix', async (t) => {
  const pipe = await load(t, KandinskyPriorPipeline, prior)
  const options = { numInferenceSteps: 2, numImagesPerPrompt: 2, generator: new Generator(5) }
  const { imageEmbeds, negativeImageEmbeds } = await pipe.interpolate(['a cat', 'the sea'], [0.4, 0.6], options)
  assert.deepEqual([...imageEmbeds.shape], [2, 64])
  assert.deepEqual([...negativeImageEmbeds.shape], [2, 64])
})

test("the checkpoint's second scheduler uses the variance that the UNet learned", async (t) => {
  const scheduler = await DDPMScheduler.fromPretrained(decoder, { subfolder: 'ddpm_scheduler' })
  const { variance_type, thresholding, sample_max_value } = scheduler.config
  assert.deepEqual(
    { variance_type, thresholding, sample_max_value },
    { variance_type: 'learned_range', thresholding: true, sample_max_value: 2 },
  )
  const pipe = await load(t, KandinskyPipeline, decoder, { scheduler })
  const draws = []
  const generator = {
    randn: (shape) => {
      draws.push(shape)
      return new Generator(draws.length).randn(shape)
    },
  }
  await pipe.generate({ ...call(), generator })
  assert.equal(draws.length, 3, 'the initial noise, and one draw for each step but that to timestep 0')
})

test('networks that take turns give the same picture', async (t) => {
  const resident = await load(t, KandinskyCombinedPipeline, decoder)
  const offloaded = await load(t, KandinskyCombinedPipeline, decoder, { offload: 'model' })
  const run = async (pipe) =>
    (await pipe.generate({ ...textCall, priorNumInferenceSteps: 2, generator: new Generator(1) })).images
  assertClose('latents', await run(offloaded), await run(resident), 0)
})

test('one file holds prior and decoder, and all auto pipelines take it', async (t) => {
  const folder = temporaryFolder(t)
  const file = path.join(folder, 'model.gguf')
  // A repository that has only SentencePiece's form of the tokenizer.
  const source = path.join(folder, 'kandinsky-2-1')
  cpSync(decoder, source, { recursive: true })
  rmSync(path.join(source, 'tokenizer', 'tokenizer.json'))
  cpSync(
    path.join(fixtures, 'tokenizers/xlm-roberta/sentencepiece.bpe.model'),
    path.join(source, 'tokenizer/sentencepiece.bpe.model'),
  )
  const { components } = await convert(source, file, { prior, threads: 1, skipZeroImage: true })
  assert.deepEqual(components.sort(), [
    ...['image_encoder', 'movq', 'prior', 'prior_text_encoder', 'text_encoder', 'unet'],
  ])
  const run = async (Pipeline, source, inputs = {}) => {
    const pipe = await load(t, Pipeline, source)
    const options = { ...textCall, priorNumInferenceSteps: 2, prompt: 'Портрет 😺', generator: new Generator(1) }
    return (await pipe.generate({ ...options, ...inputs })).images
  }
  assertClose('text', await run(AutoPipelineForText2Image, file), await run(KandinskyCombinedPipeline, decoder), 0)
  const image = { image: picture('plasma_320x240.png'), strength: 0.7 }
  const expected = await run(KandinskyImg2ImgCombinedPipeline, decoder, image)
  assertClose('image', await run(AutoPipelineForImage2Image, file, image), expected, 0)
  const scheduler = await DDPMScheduler.fromPretrained(file, { subfolder: 'ddpm_scheduler' })
  assert.equal(scheduler.config.variance_type, 'learned_range')
})

test('a checkpoint of another task or family is refused by name', async () => {
  const refused = (Pipeline, source, message) =>
    assert.rejects(Pipeline.fromPretrained(source, f32), { code: 'UNSUPPORTED_MODEL', message })
  await refused(KandinskyV22Pipeline, decoder, /Kandinsky 2.2 .*addition_embed_type image, .* has text_image/)
  await refused(KandinskyPipeline, checkpoint('kandinsky-2-2-decoder'), /Kandinsky 2.1 .*text_image, .* has image /)
  await refused(KandinskyInpaintPipeline, decoder, /inpainting with Kandinsky 2.1 .*9 input channels/)
  await refused(AutoPipelineForInpainting, decoder, /inpainting with Kandinsky 2.1/)
})

test('wrong prompts are refused before anything runs', async (t) => {
  const pipe = await load(t, KandinskyPipeline, decoder)
  for (const model of Object.values(pipe.components)) if (model?.run) model.run = () => assert.fail('a network ran')
  for (const [change, code, message] of [
    [{ prompt: undefined }, 'INVALID_ARGUMENT', /for prompt/],
    [{ prompt: 5 }, 'INVALID_ARGUMENT', /for prompt/],
    [{ prompt: ['a', 'b', 'c'] }, 'SHAPE_MISMATCH', /one prompt or one per embedding \(2\) but received 3/],
    [{ prompt: ['a', 'b'], negativePrompt: 'bad' }, 'INVALID_ARGUMENT', /as many negative prompts as prompts \(2\)/],
    [{ negative_prompt: 'bad' }, 'INVALID_ARGUMENT', /did you mean negativePrompt/],
    [{ imageEmbeds: new Tensor(new Float32Array(32), [1, 32]) }, 'SHAPE_MISMATCH', /\[n, 64\] for imageEmbeds/],
  ])
    await assert.rejects(pipe.generate({ ...call(2), ...change }), { code, message })
})

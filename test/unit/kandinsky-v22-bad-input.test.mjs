// Bad input of the 2.2 pipelines ends in an error that names it, before any network has run.
import assert from 'node:assert/strict'
import path from 'node:path'
import test, { after } from 'node:test'
import {
  AutoPipelineForImage2Image,
  AutoPipelineForInpainting,
  AutoPipelineForText2Image,
  KandinskyV22ControlnetImg2ImgPipeline,
  KandinskyV22ControlnetPipeline,
  KandinskyV22Img2ImgCombinedPipeline,
  KandinskyV22Img2ImgPipeline,
  KandinskyV22InpaintCombinedPipeline,
  KandinskyV22InpaintPipeline,
  KandinskyV22Pipeline,
  KandinskyV22PriorEmb2EmbPipeline,
  KandinskyV22PriorPipeline,
  RawImage,
  Tensor,
} from '../../dist/index.js'
import { checkpoint, fixtures } from '../helpers/cases.mjs'

const decoder = checkpoint('kandinsky-2-2-decoder')
const inpaint = checkpoint('kandinsky-2-2-decoder-inpaint')
const controlnet = checkpoint('kandinsky-2-2-controlnet-depth')
const prior = checkpoint('kandinsky-2-2-prior')

const tensor = (...shape) => new Tensor(new Float32Array(shape.reduce((a, b) => a * b)), shape)
const picture = new RawImage(new Uint8Array(64 * 64 * 3).fill(90), 64, 64)
const mask = new RawImage(new Uint8Array(64 * 64).fill(255), 64, 64, 1)
const sides = { height: 64, width: 64 }
const embeds = (rows) => ({ imageEmbeds: tensor(rows, 128), negativeImageEmbeds: tensor(rows, 128) })
const t2i = { ...embeds(1), ...sides }
const i2i = { ...t2i, image: picture }
const painting = { ...i2i, maskImage: mask }
const hinted = { ...t2i, hint: picture }

/** [pipeline, source, options that are right, { what is wrong: [changed options, code, message] }] */
const calls = [
  [
    KandinskyV22Pipeline,
    decoder,
    t2i,
    {
      'a misspelled option': [{ image_embeds: tensor(1, 128) }, 'INVALID_ARGUMENT', /did you mean imageEmbeds/],
      'an option of another task': [{ image: picture }, 'INVALID_ARGUMENT', /Unknown option image/],
      'embeddings of another model': [{ imageEmbeds: tensor(1, 64) }, 'SHAPE_MISMATCH', /\[n, 128\] for imageEmbeds/],
      'no embeddings': [{ imageEmbeds: [] }, 'INVALID_ARGUMENT', /imageEmbeds/],
      'fewer negative embeddings': [{ imageEmbeds: tensor(2, 128) }, 'SHAPE_MISMATCH', /negativeImageEmbeds/],
      'guidance that is no number': [{ guidanceScale: Number.NaN }, 'INVALID_ARGUMENT', /guidanceScale/],
      'no steps': [{ numInferenceSteps: 0 }, 'INVALID_ARGUMENT', /numInferenceSteps/],
      'more steps than the model was trained for': [{ numInferenceSteps: 1001 }, 'INVALID_ARGUMENT', /1000/],
      'a negative side': [{ height: -64 }, 'INVALID_ARGUMENT', /height/],
      'latents of another size': [{ latents: tensor(1, 4, 8, 16) }, 'SHAPE_MISMATCH', /\[1, 4, 8, 8\] for latents/],
      'a list of generators of another length': [{ generator: [] }, 'INVALID_ARGUMENT', /generator/],
      'an unknown output': [{ outputType: 'pil' }, 'INVALID_ARGUMENT', /'image', 'float', 'latent'/],
      'a callback that is no function': [{ callbackOnStepEnd: 5 }, 'INVALID_ARGUMENT', /callbackOnStepEnd/],
      'a preview that is no boolean': [{ preview: 'yes' }, 'INVALID_ARGUMENT', /preview/],
    },
  ],
  [
    KandinskyV22Img2ImgPipeline,
    decoder,
    i2i,
    {
      'no image': [{ image: undefined }, 'INVALID_ARGUMENT', /image/],
      'an image that is a number': [{ image: 7 }, 'INVALID_ARGUMENT', /for image but received 7/],
      'an empty list of images': [{ image: [] }, 'INVALID_ARGUMENT', /at least one picture for image/],
      'a file that does not exist': [{ image: 'nowhere.png' }, 'FILE_NOT_FOUND', /nowhere\.png/],
      'a file that is no picture': [{ image: path.join(fixtures, 'README.md') }, 'BAD_FILE', /README\.md/],
      'a tensor with 2 channels': [{ image: tensor(1, 2, 64, 64) }, 'INVALID_ARGUMENT', /\[1, 2, 64, 64\]/],
      'more images than embeddings': [{ image: [picture, picture] }, 'SHAPE_MISMATCH', /one per embedding \(1\)/],
      'latents of another size': [{ image: tensor(1, 4, 16, 8) }, 'SHAPE_MISMATCH', /latents of shape \[n, 4, 8, 8\]/],
      'a strength above 1': [{ strength: 1.5 }, 'INVALID_ARGUMENT', /strength/],
      'a strength that leaves no step': [
        { strength: 0.09, numInferenceSteps: 10 },
        'INVALID_ARGUMENT',
        /at least 0\.1, .* for strength but received 0\.09/,
      ],
    },
  ],
  [
    KandinskyV22InpaintPipeline,
    inpaint,
    painting,
    {
      'no mask': [{ maskImage: undefined }, 'INVALID_ARGUMENT', /maskImage/],
      'an array mask of another size': [
        { image: tensor(1, 3, 64, 64), maskImage: tensor(32, 64) },
        'SHAPE_MISMATCH',
        /\[1, 1, 64, 64\]/,
      ],
      'a mask out of range': [
        { maskImage: new Tensor(new Float32Array(4096).fill(255), [64, 64]) },
        'INVALID_ARGUMENT',
        /\[0, 1\] for maskImage/,
      ],
      'a mask with 3 channels': [{ maskImage: tensor(1, 3, 64, 64) }, 'INVALID_ARGUMENT', /maskImage/],
      'a tensor image of another size': [
        { image: tensor(3, 128, 64), maskImage: tensor(128, 64) },
        'SHAPE_MISMATCH',
        /\[n, 3, 64, 64\] for image/,
      ],
      'fewer masks than images': [{ ...embeds(2), image: [picture, picture] }, 'SHAPE_MISMATCH', /mask/],
      'more images than embeddings': [
        { image: [picture, picture], maskImage: [mask, mask] },
        'SHAPE_MISMATCH',
        /one per embedding \(1\)/,
      ],
    },
  ],
  [
    KandinskyV22ControlnetPipeline,
    controlnet,
    hinted,
    {
      'no hint': [{ hint: undefined }, 'INVALID_ARGUMENT', /hint/],
      'a hint of another size': [{ hint: tensor(1, 3, 128, 64) }, 'SHAPE_MISMATCH', /\[n, 3, 64, 64\] for hint/],
      'a hint with one channel': [{ hint: tensor(1, 1, 64, 64) }, 'SHAPE_MISMATCH', /for hint/],
      'a hint in bytes': [
        { hint: new Tensor(new Float32Array(3 * 4096).fill(255), [3, 64, 64]) },
        'INVALID_ARGUMENT',
        /\[0, 1\] for hint/,
      ],
      'more hints than embeddings': [{ hint: tensor(2, 3, 64, 64) }, 'SHAPE_MISMATCH', /one per embedding \(1\)/],
    },
  ],
  [
    KandinskyV22ControlnetImg2ImgPipeline,
    controlnet,
    { ...hinted, image: picture },
    {
      'no hint': [{ hint: undefined }, 'INVALID_ARGUMENT', /hint/],
      'no image': [{ image: undefined }, 'INVALID_ARGUMENT', /image/],
      'a strength that leaves no step': [{ strength: 0 }, 'INVALID_ARGUMENT', /strength/],
    },
  ],
  [
    KandinskyV22PriorPipeline,
    prior,
    { prompt: 'a cat' },
    {
      'a prompt that is no text': [{ prompt: 5 }, 'INVALID_ARGUMENT', /prompt/],
      'no prompt': [{ prompt: [] }, 'INVALID_ARGUMENT', /prompt/],
      'another number of negative prompts': [{ negativePrompt: ['a', 'b'] }, 'INVALID_ARGUMENT', /negativePrompt/],
    },
  ],
  [
    KandinskyV22PriorEmb2EmbPipeline,
    prior,
    { prompt: 'a cat', image: picture },
    {
      'no image': [{ image: undefined }, 'INVALID_ARGUMENT', /image/],
      'embeddings of another model': [{ image: tensor(1, 64) }, 'SHAPE_MISMATCH', /\[n, 128\] for image/],
      'more images than prompts': [{ image: [picture, picture] }, 'SHAPE_MISMATCH', /one per prompt \(1\)/],
      'a strength that leaves no step': [{ strength: 0.03 }, 'INVALID_ARGUMENT', /strength/],
      latents: [{ latents: tensor(1, 128) }, 'INVALID_ARGUMENT', /Unknown option latents/],
    },
  ],
]

for (const [Pipeline, source, right, mistakes] of calls) {
  // With offload, a network that has not run holds no weights.
  const pipe = await Pipeline.fromPretrained(source, { offload: 'model' })
  after(() => pipe.dispose())
  const networks = Object.values(pipe.components).filter((part) => typeof part?.memory === 'function')
  for (const [what, [change, code, message]] of Object.entries(mistakes))
    test(`${Pipeline.name} refuses ${what}`, async () => {
      await assert.rejects(pipe.generate({ ...right, ...change }), { name: 'KandinskyError', code, message })
      for (const network of networks) assert.equal(network.memory().weights, 0, `${network.name} was loaded`)
    })
}

for (const Pipeline of [KandinskyV22PriorPipeline, KandinskyV22PriorEmb2EmbPipeline])
  test(`${Pipeline.name}.interpolate refuses what it cannot mix`, async (t) => {
    const pipe = await Pipeline.fromPretrained(prior, { offload: 'model' })
    t.after(() => pipe.dispose())
    const refuses = async (items, weights, options, code, message) => {
      await assert.rejects(pipe.interpolate(items, weights, options), { code, message })
      assert.equal(pipe.components.textEncoder.memory().weights, 0)
    }
    await refuses([], [], {}, 'INVALID_ARGUMENT', /imagesAndPrompts/)
    await refuses(['a cat'], [], {}, 'INVALID_ARGUMENT', /array of 1 numbers, one per item for weights/)
    await refuses(['a cat'], [Number.NaN], {}, 'INVALID_ARGUMENT', /weights\[0\]/)
    await refuses(['a cat', 5], [1, 1], {}, 'INVALID_ARGUMENT', /received 5/)
    await refuses(['a cat', tensor(1, 128)], [1, 1], {}, 'SHAPE_MISMATCH', /imagesAndPrompts/)
    await refuses(['a cat'], [1], { prompt: 'x' }, 'INVALID_ARGUMENT', /Unknown option prompt/)
    await refuses(['a cat'], [1], { negativePrompt: ['x'] }, 'INVALID_ARGUMENT', /negativePrompt/)
  })

test('combined pipelines check the options of their decoder before the prior runs', async (t) => {
  const options = { prior, offload: 'model' }
  const refuses = async (Pipeline, source, call, code, message) => {
    const pipe = await Pipeline.fromPretrained(source, options)
    t.after(() => pipe.dispose())
    await assert.rejects(pipe.generate({ prompt: ['a', 'b', 'c'], ...sides, ...call }), { code, message })
    assert.equal(pipe.priorPipe.components.textEncoder.memory().weights, 0)
  }
  const image = picture
  const Img2Img = KandinskyV22Img2ImgCombinedPipeline
  const Inpaint = KandinskyV22InpaintCombinedPipeline
  await refuses(Img2Img, decoder, { image, strength: 0 }, 'INVALID_ARGUMENT', /strength/)
  await refuses(Img2Img, decoder, { image: [image, image] }, 'SHAPE_MISMATCH', /one per prompt \(3\)/)
  await refuses(Img2Img, decoder, { image, ...embeds(3) }, 'INVALID_ARGUMENT', /Unknown option imageEmbeds/)
  await refuses(Img2Img, decoder, {}, 'INVALID_ARGUMENT', /image/)
  await refuses(Inpaint, inpaint, { image: tensor(1, 3, 64, 64), maskImage: tensor(32, 32) }, 'SHAPE_MISMATCH', /mask/)
  await refuses(Inpaint, inpaint, { image }, 'INVALID_ARGUMENT', /maskImage/)
})

test('a checkpoint of another task is refused when it is loaded', async () => {
  const refuses = (Pipeline, source, options) =>
    assert.rejects(Pipeline.fromPretrained(source, options), {
      code: 'UNSUPPORTED_MODEL',
      message: /Expected a .*addition_embed_type/,
    })
  await refuses(KandinskyV22Pipeline, inpaint)
  await refuses(KandinskyV22Img2ImgPipeline, controlnet)
  await refuses(KandinskyV22InpaintPipeline, decoder)
  await refuses(KandinskyV22ControlnetPipeline, decoder)
  await refuses(KandinskyV22ControlnetImg2ImgPipeline, inpaint)
  await refuses(AutoPipelineForText2Image, controlnet, { prior })
  await refuses(AutoPipelineForImage2Image, inpaint, { prior })
  await refuses(AutoPipelineForInpainting, decoder, { prior })
})

// Another task with the networks of a loaded pipeline.
import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import {
  AutoPipelineForText2Image,
  Kandinsky3Img2ImgPipeline,
  Kandinsky3Pipeline,
  KandinskyV22CombinedPipeline,
  KandinskyV22Img2ImgCombinedPipeline,
  KandinskyV22Img2ImgPipeline,
  KandinskyV22InpaintCombinedPipeline,
  KandinskyV22InpaintPipeline,
} from '../../dist/index.js'
import { schedulerByName } from '../../dist/schedulers/registry.js'
import { checkpoint, fixtures } from '../helpers/cases.mjs'

const decoder = checkpoint('kandinsky-2-2-decoder')
const prior = checkpoint('kandinsky-2-2-prior')
const image = path.join(fixtures, 'images', 'plasma_320x240.png')
const call = { prompt: 'a cat', image, strength: 0.7, height: 64, width: 64, numInferenceSteps: 3, seed: 1 }

test('gives the pictures of a pipeline of its own, with the scheduler that was set, and loads nothing', async (t) => {
  const pipe = await AutoPipelineForText2Image.fromPretrained(decoder, { prior, threads: 1 })
  const own = await KandinskyV22Img2ImgCombinedPipeline.fromPretrained(decoder, { prior, threads: 1 })
  t.after(() => Promise.all([pipe.dispose(), own.dispose()]))
  pipe.scheduler = own.scheduler = schedulerByName('ddim', pipe.scheduler.config)
  const shared = KandinskyV22Img2ImgCombinedPipeline.fromPipe(pipe)
  assert.equal(shared.decoderPipe.components.unet, pipe.decoderPipe.components.unet)
  assert.notEqual(shared.scheduler, pipe.scheduler)
  const options = { ...call, priorNumInferenceSteps: 2 }
  assert.deepEqual((await shared.generate(options)).images, (await own.generate(options)).images)
  const alone = KandinskyV22Img2ImgPipeline.fromPipe(pipe.decoderPipe)
  assert.equal(alone.components.movq, pipe.decoderPipe.components.movq)
})

test('Kandinsky 3', async (t) => {
  const pipe = await Kandinsky3Pipeline.fromPretrained(checkpoint('kandinsky-3'), { threads: 1 })
  const own = await Kandinsky3Img2ImgPipeline.fromPretrained(checkpoint('kandinsky-3'), { threads: 1 })
  t.after(() => Promise.all([pipe.dispose(), own.dispose()]))
  const shared = Kandinsky3Img2ImgPipeline.fromPipe(pipe)
  assert.deepEqual((await shared.generate(call)).images, (await own.generate(call)).images)
})

test('networks of another task, and what is no pipeline, are refused', async (t) => {
  const pipe = await KandinskyV22CombinedPipeline.fromPretrained(decoder, { prior, threads: 1 })
  t.after(() => pipe.dispose())
  const forInpainting = { code: 'UNSUPPORTED_MODEL', message: /unet for inpainting.*9 input channels/ }
  assert.throws(() => KandinskyV22InpaintCombinedPipeline.fromPipe(pipe), forInpainting)
  assert.throws(() => KandinskyV22InpaintPipeline.fromPipe(pipe.decoderPipe), forInpainting)
  assert.throws(() => Kandinsky3Pipeline.fromPipe(pipe.decoderPipe), {
    code: 'UNSUPPORTED_MODEL',
    message: /Kandinsky3UNet/,
  })
  for (const wrong of [undefined, {}, 'demo', pipe.decoderPipe])
    assert.throws(() => KandinskyV22CombinedPipeline.fromPipe(wrong), { code: 'INVALID_ARGUMENT', message: /pipe/ })
  for (const wrong of [undefined, {}, pipe])
    assert.throws(() => KandinskyV22Img2ImgPipeline.fromPipe(wrong), { code: 'INVALID_ARGUMENT', message: /pipe/ })
})

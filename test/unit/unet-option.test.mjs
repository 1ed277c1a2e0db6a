// `unet`: a fine-tune in the place of a checkpoint's own UNet.
import assert from 'node:assert/strict'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { AutoPipeline, Generator, KandinskyV22Pipeline, KandinskyV22PriorPipeline } from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const decoder = checkpoint('kandinsky-2-2-decoder')
const inpaint = checkpoint('kandinsky-2-2-decoder-inpaint')

async function picture(t, options) {
  const pipe = await KandinskyV22Pipeline.fromPretrained(decoder, { threads: 1, ...options })
  t.after(() => pipe.dispose())
  const random = new Generator(1)
  const embeds = { imageEmbeds: random.randn([1, 128]), negativeImageEmbeds: random.randn([1, 128]) }
  const { images } = await pipe.generate({ ...embeds, height: 64, width: 64, numInferenceSteps: 2, seed: 1 })
  return images[0]
}

test("a network's folder and a whole checkpoint give their UNet, and the recipe knows it", async (t) => {
  const own = await picture(t, {})
  for (const unet of [path.join(decoder, 'unet'), decoder]) {
    const same = await picture(t, { unet })
    assert.deepEqual(same.data, own.data)
    assert.equal(same.recipe.modelHash, own.recipe.modelHash)
  }
  const tuned = path.join(temporaryFolder(t), 'tuned')
  cpSync(path.join(decoder, 'unet'), tuned, { recursive: true })
  const file = path.join(tuned, 'diffusion_pytorch_model.safetensors')
  const bytes = readFileSync(file)
  writeFileSync(file, bytes.fill(0, 8 + Number(bytes.readBigUInt64LE(0))))
  const other = await picture(t, { unet: tuned })
  assert.notDeepEqual(other.data, own.data)
  assert.notEqual(other.recipe.modelHash, own.recipe.modelHash)
  const pipe = await AutoPipeline.fromPretrained(decoder, { prior: checkpoint('kandinsky-2-2-prior'), unet: tuned })
  t.after(() => pipe.dispose())
  const options = { prompt: 'a', height: 64, width: 64, numInferenceSteps: 2, priorNumInferenceSteps: 1 }
  assert.equal((await pipe.generate(options)).images[0].recipe.modelHash, other.recipe.modelHash)
})

test('a UNet of another architecture, a place without one and a pipeline without one are refused', async () => {
  await assert.rejects(KandinskyV22Pipeline.fromPretrained(decoder, { unet: inpaint }), {
    code: 'UNSUPPORTED_MODEL',
    message: /input channels/,
  })
  await assert.rejects(KandinskyV22Pipeline.fromPretrained(decoder, { unet: checkpoint('kandinsky-2-2-prior') }), {
    code: 'INVALID_ARGUMENT',
    message: /a place that holds a UNet/,
  })
  await assert.rejects(KandinskyV22Pipeline.fromPretrained(decoder, { unet: 'no/such/folder/here' }), {
    code: 'FILE_NOT_FOUND',
  })
  await assert.rejects(KandinskyV22Pipeline.fromPretrained(decoder, { unet: 5 }), { code: 'INVALID_ARGUMENT' })
  await assert.rejects(KandinskyV22PriorPipeline.fromPretrained(checkpoint('kandinsky-2-2-prior'), { unet: decoder }), {
    message: /Unknown option unet/,
  })
})

// What model_index.json names and the folder lacks is an error that names all of it; only `skip` leaves a part out.
import assert from 'node:assert/strict'
import { cpSync, existsSync, rmSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { chooseFiles } from '../../dist/hub/files.js'
import {
  convert,
  Kandinsky3Pipeline,
  KandinskyV22CombinedPipeline,
  KandinskyV22Pipeline,
  KandinskyV22PriorPipeline,
} from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

/** A copy of a checkpoint without some of its files. */
function without(t, name, ...files) {
  const folder = path.join(temporaryFolder(t), name)
  cpSync(checkpoint(name), folder, { recursive: true })
  for (const file of files) {
    assert.ok(existsSync(path.join(folder, file)), file)
    rmSync(path.join(folder, file), { recursive: true })
  }
  return folder
}

const cases = {
  'a folder': ['kandinsky-2-2-decoder', ['unet'], ['unet']],
  'several folders': ['kandinsky-2-2-decoder', ['unet', 'movq', 'scheduler'], ['movq', 'scheduler', 'unet']],
  weights: ['kandinsky-2-2-decoder', ['unet/diffusion_pytorch_model.safetensors'], ['unet']],
  'a config': ['kandinsky-2-2-decoder', ['movq/config.json'], ['movq']],
  'a scheduler config': ['kandinsky-2-2-prior', ['scheduler/scheduler_config.json'], ['scheduler']],
  'a vocabulary': [
    'kandinsky-2-2-prior',
    ['tokenizer/vocab.json', 'image_processor'],
    ['image_processor', 'tokenizer'],
  ],
  'an image encoder': ['kandinsky-2-2-prior', ['image_encoder'], ['image_encoder']],
}

for (const [what, [name, files, parts]] of Object.entries(cases))
  test(`${what} missing in ${name} stops converting and loading`, async (t) => {
    const folder = without(t, name, ...files)
    const output = path.join(folder, 'out.gguf')
    const error = { code: 'FILE_NOT_FOUND', message: new RegExp(`lacks the files of ${parts.join(', ')}, which`) }
    const Pipeline = name.endsWith('prior') ? KandinskyV22PriorPipeline : KandinskyV22Pipeline
    await assert.rejects(convert(folder, output), error)
    await assert.rejects(Pipeline.fromPretrained(folder, { device: 'cpu' }), error)
    assert.ok(!existsSync(output))
  })

test('a part that is missing can be skipped by name, others cannot', async (t) => {
  const prior = without(t, 'kandinsky-2-2-prior', 'image_encoder', 'scheduler')
  const output = path.join(prior, 'out.gguf')
  const options = { prior, skipZeroImage: true }
  const decoder = checkpoint('kandinsky-2-2-decoder')
  await assert.rejects(convert(decoder, output, { ...options, skip: ['image_encoder'] }), {
    message: /of prior_scheduler, /,
  })
  await assert.rejects(convert(decoder, output, { ...options, skip: ['nonsense'] }), { message: /received "nonsense"/ })
  const { components } = await convert(decoder, output, { ...options, skip: ['image_encoder', 'prior_scheduler'] })
  assert.deepEqual(components, ['movq', 'unet', 'prior', 'text_encoder'])
  const again = await convert(output, path.join(prior, 'again.gguf'))
  assert.deepEqual(again.components, components, 'what a file of ours lacks was skipped on purpose')
})

test('a decoder without its UNet says so when a pipeline with a prior is wanted', async (t) => {
  const folder = without(t, 'kandinsky-2-2-decoder', 'unet')
  const options = { prior: checkpoint('kandinsky-2-2-prior'), device: 'cpu' }
  await assert.rejects(KandinskyV22CombinedPipeline.fromPretrained(folder, options), {
    message: /lacks the files of unet/,
  })
})

test('a hub repository that lacks parts names them all before anything large is downloaded', async () => {
  const index = path.join(checkpoint('kandinsky-2-2-decoder'), 'model_index.json')
  const wanted = { id: 'a/b', file: undefined, subfolder: undefined, variant: undefined }
  await assert.rejects(
    chooseFiles(['model_index.json', 'movq/config.json'], wanted, async () => index),
    { code: 'FILE_NOT_FOUND', message: /a\/b has no files in scheduler, unet/ },
  )
})

test('a checkpoint of another family is told by its networks, not by what else it lacks', async () => {
  const k3 = checkpoint('kandinsky-3')
  const k22 = checkpoint('kandinsky-2-2-decoder')
  for (const [Class, source, message] of [
    [KandinskyV22CombinedPipeline, k3, /Expected a UNet2DConditionModel as unet of .* but found Kandinsky3UNet/],
    [Kandinsky3Pipeline, k22, /Expected a T5EncoderModel as text_encoder|Expected a Kandinsky3UNet as unet/],
  ])
    await assert.rejects(Class.fromPretrained(source), { code: 'UNSUPPORTED_MODEL', message })
})

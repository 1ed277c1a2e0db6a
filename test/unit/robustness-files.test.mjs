// Whatever the files of a checkpoint hold, fromPretrained gives a pipeline or a KandinskyError that names what is wrong.
import assert from 'node:assert/strict'
import { cpSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import fc from 'fast-check'
import { convert, KandinskyError, KandinskyV22Pipeline, KandinskyV22PriorPipeline } from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const decoder = checkpoint('kandinsky-2-2-decoder')
const prior = checkpoint('kandinsky-2-2-prior')
const unetWeights = 'unet/diffusion_pytorch_model.safetensors'

/** A copy of a checkpoint that a test may damage. */
function copyOf(t, source) {
  const folder = path.join(temporaryFolder(t), path.basename(source))
  cpSync(source, folder, { recursive: true })
  return folder
}
function changeJson(file, change) {
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...change }))
}
const config = (part, change) => (folder) => changeJson(path.join(folder, part, 'config.json'), change)
const write = (file, text) => (folder) => writeFileSync(path.join(folder, file), text)

/** { what is wrong: [pipeline, checkpoint, how it is made, code, message] } */
const damages = {
  'wider blocks than the weights have': [
    ...[KandinskyV22Pipeline, decoder, config('unet', { block_out_channels: [64, 64, 64, 64] })],
    ...['SHAPE_MISMATCH', /Expected shape .* for unet\.\S+ by its config but .*safetensors has/],
  ],
  'a layer more than the weights have': [
    ...[KandinskyV22PriorPipeline, prior, config('prior', { num_layers: 9 })],
    ...['BAD_FILE', /lacks prior\.transformer_blocks\.\d\.\S+, which its config asks for/],
  ],
  'an unknown kind of block': [
    ...[KandinskyV22Pipeline, decoder, config('movq', { up_block_types: Array(4).fill('UpBlock2D') })],
    ...[
      'UNSUPPORTED_MODEL',
      /movq config: expected UpDecoderBlock2D or \S+ for up_block_types but received "UpBlock2D"/,
    ],
  ],
  'groups that do not divide the channels': [
    ...[KandinskyV22Pipeline, decoder, config('unet', { norm_num_groups: 7 })],
    ...['UNSUPPORTED_MODEL', /norm_num_groups but received 7/],
  ],
  'a config that is no JSON': [
    ...[KandinskyV22Pipeline, decoder, write('unet/config.json', '{"in_channels": 4'), 'BAD_FILE'],
    /unet\/config\.json/,
  ],
  'a scheduler of an unknown kind': [
    ...[KandinskyV22Pipeline, decoder, write('scheduler/scheduler_config.json', '{"_class_name":"XScheduler"}')],
    ...['UNSUPPORTED_MODEL', /_class_name.*XScheduler/],
  ],
  'a vocabulary that is a list': [
    ...[KandinskyV22PriorPipeline, prior, write('tokenizer/vocab.json', '[]'), 'BAD_FILE', /vocab\.json/],
  ],
  'weights that were not downloaded': [
    ...[KandinskyV22Pipeline, decoder, write(unetWeights, 'version https://git-lfs.github.com/spec/v1\n'), 'BAD_FILE'],
    /unet\/diffusion_pytorch_model\.safetensors/,
  ],
  'truncated weights': [
    ...[KandinskyV22Pipeline, decoder, (folder) => truncateSync(path.join(folder, unetWeights), 100_000), 'BAD_FILE'],
    /unet\/diffusion_pytorch_model\.safetensors/,
  ],
}
for (const [what, [Pipeline, source, damage, code, message]] of Object.entries(damages))
  test(`a checkpoint with ${what} is refused`, async (t) => {
    const folder = copyOf(t, source)
    damage(folder)
    await assert.rejects(Pipeline.fromPretrained(folder), { name: 'KandinskyError', code, message })
  })

/** One byte of the first `reach` becomes another, or the file ends early. */
const damage = (bytes, reach) =>
  fc.oneof(
    { weight: 4, arbitrary: fc.tuple(fc.nat(Math.min(reach, bytes.length) - 1), fc.nat(255)) },
    { weight: 1, arbitrary: fc.tuple(fc.nat(bytes.length - 1), fc.constant('end')) },
  )
function damaged(bytes, [at, what]) {
  if (what === 'end') return bytes.subarray(0, at)
  const copy = Buffer.from(bytes)
  copy[at] = what
  return copy
}

/** Loads as far as the networks' weights, without reading them: with offload a network waits for its first run. */
async function opens(Pipeline, source) {
  try {
    const pipe = await Pipeline.fromPretrained(source, { offload: 'model' })
    await pipe.dispose()
  } catch (error) {
    assert.ok(error instanceof KandinskyError, error?.stack)
    assert.notEqual(error.code, 'INTERNAL', error.message)
  }
}

test('a folder with one damaged text opens or is refused', async (t) => {
  for (const [Pipeline, source] of [
    [KandinskyV22Pipeline, decoder],
    [KandinskyV22PriorPipeline, prior],
  ]) {
    const folder = copyOf(t, source)
    const texts = readdirSync(folder, { recursive: true }).filter((file) => /\.(json|txt)$/.test(file))
    for (const text of texts) {
      const file = path.join(folder, text)
      const whole = readFileSync(file)
      await fc.assert(
        fc.asyncProperty(damage(whole, 400), async (change) => {
          writeFileSync(file, damaged(whole, change))
          await opens(Pipeline, folder)
        }),
        { numRuns: 8, seed: 3 },
      )
      writeFileSync(file, whole)
    }
  }
})

test('a GGUF file with one damaged byte in its header opens or is refused', async (t) => {
  const file = path.join(temporaryFolder(t), 'model.gguf')
  await convert(decoder, file)
  const whole = readFileSync(file)
  await fc.assert(
    fc.asyncProperty(damage(whole, 60_000), async (change) => {
      writeFileSync(file, damaged(whole, change))
      await opens(KandinskyV22Pipeline, file)
    }),
    { numRuns: 60, seed: 3 },
  )
})

// What a conversion or a load does not take as given is said.
import assert from 'node:assert/strict'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { convert, KandinskyV22Pipeline } from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'
import { safetensorsFile, temporaryFolder } from '../helpers/files.mjs'

const decoder = checkpoint('kandinsky-2-2-decoder')

async function warningsOf(work) {
  const warnings = []
  const listen = (warning) => warning.code === 'KANDINSKY_UNUSED_WEIGHTS' && warnings.push(warning.message)
  process.on('warning', listen)
  await work()
  await new Promise((resolve) => setImmediate(resolve))
  process.off('warning', listen)
  return warnings
}

test('LoRA processors beside the weights of a UNet are named, in converting and loading', async (t) => {
  const folder = path.join(temporaryFolder(t), 'decoder')
  cpSync(decoder, folder, { recursive: true })
  const file = path.join(folder, 'unet/diffusion_pytorch_model.safetensors')
  const bytes = readFileSync(file)
  const end = 8 + Number(bytes.readBigUInt64LE(0))
  const [header, data] = [JSON.parse(bytes.subarray(8, end)), bytes.subarray(end)]
  const name = 'mid_block.attentions.0.processor.to_q_lora.down.weight'
  header[name] = { dtype: 'F32', shape: [1, 4], data_offsets: [data.length, data.length + 16] }
  writeFileSync(file, safetensorsFile(header, Buffer.concat([data, Buffer.alloc(16)])))
  const load = async () => (await KandinskyV22Pipeline.fromPretrained(folder, { device: 'cpu' })).dispose()
  for (const work of [() => convert(folder, path.join(folder, 'out.gguf')), load]) {
    const warnings = await warningsOf(work)
    assert.equal(warnings.length, 1)
    assert.ok(warnings[0].startsWith('1 weights of unet in ') && warnings[0].includes(name), warnings[0])
    assert.match(warnings[0], /LoRA weights .* are not applied/)
  }
})

test('what published files carry along is no news', async (t) => {
  const folder = temporaryFolder(t)
  for (const name of ['kandinsky-2-1', 'kandinsky-2-1-prior', 'kandinsky-2-2-decoder', 'kandinsky-3', '../depth/dpt'])
    assert.deepEqual(await warningsOf(() => convert(checkpoint(name), path.join(folder, 'a.gguf'))), [], name)
})

test('a rule that matches no matrix is an error', async (t) => {
  const output = path.join(temporaryFolder(t), 'a.gguf')
  for (const pattern of [/unet\.mid_blok/, /^unet\.conv_in\.bias$/])
    await assert.rejects(convert(decoder, output, { rules: [{ pattern, type: 'f16' }] }), {
      code: 'INVALID_ARGUMENT',
      message: /match the name of a matrix/,
    })
})

test('matrices that a type does not fit are noted', async (t) => {
  const output = path.join(temporaryFolder(t), 'a.gguf')
  const { notes } = await convert(decoder, output, { weights: 'q4_K' })
  assert.ok(
    notes.some((note) => /^q4_K does not fit .* are q4_0 instead: [1-9]\d*$/.test(note)),
    notes.join('\n'),
  )
  assert.deepEqual((await convert(decoder, output, { weights: 'f16' })).notes, [])
})

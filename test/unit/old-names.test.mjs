// Checkpoints that older versions of the reference wrote load as the reference loads them.
import assert from 'node:assert/strict'
import { cpSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { readSafetensors } from '../../dist/checkpoint/formats/safetensors.js'
import { withNewNames } from '../../dist/checkpoint/old-names.js'
import { convert } from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'
import { safetensorsFile, temporaryFolder, writeFileIn } from '../helpers/files.mjs'

const WEIGHTS = 'diffusion_pytorch_model.safetensors'

function decoderCopy(t) {
  const folder = path.join(temporaryFolder(t), 'decoder')
  cpSync(checkpoint('kandinsky-2-2-decoder'), folder, { recursive: true })
  return folder
}

/** Writes a safetensors file again with another header. */
function changeHeader(file, change) {
  const bytes = readFileSync(file)
  const end = 8 + Number(bytes.readBigUInt64LE(0))
  writeFileSync(file, safetensorsFile(change(JSON.parse(bytes.subarray(8, end))), bytes.subarray(end)))
}

async function converted(folder, options) {
  const { path: file } = await convert(folder, path.join(folder, '..', 'decoder.gguf'), options)
  return readFileSync(file)
}

test('attention under the names that it had before diffusers 0.18', async (t) => {
  const folder = decoderCopy(t)
  const expected = await converted(folder)
  const old = { to_q: 'query', to_k: 'key', to_v: 'value', 'to_out.0': 'proj_attn' }
  let renamed = 0
  changeHeader(path.join(folder, 'movq', WEIGHTS), (header) =>
    Object.fromEntries(
      Object.entries(header).map(([name, entry]) => {
        const before = name.replace(/(?<=attentions\.\d+\.)(to_[qkv]|to_out\.0)(?=\.)/, (now) => old[now])
        if (before !== name) renamed++
        return [before, entry]
      }),
    ),
  )
  assert.ok(renamed >= 8)
  assert.ok((await converted(folder)).equals(expected))
})

test('words that mean something else elsewhere, and names that are taken, stay', () => {
  const names = [
    ...['encoder.layer.0.attention.self.query.weight', 'attentions.0.query.weight', 'attentions.0.to_q.weight'],
    'mid_block.attentions.1.proj_attn.bias',
  ].map((name) => ({ name }))
  assert.deepEqual(
    withNewNames(names).map(({ name }) => name),
    [...names.slice(0, 3).map(({ name }) => name), 'mid_block.attentions.1.to_out.0.bias'],
  )
})

for (const index of [`${WEIGHTS}.index.fp16.json`, `${WEIGHTS}.fp16.index.json`])
  test(`shards under an index called ${index}`, async (t) => {
    const folder = decoderCopy(t)
    const expected = await converted(folder)
    const unet = path.join(folder, 'unet')
    const names = (await readSafetensors(path.join(unet, WEIGHTS))).map(({ name }) => name)
    renameSync(path.join(unet, WEIGHTS), path.join(unet, 'shard.safetensors'))
    const weight_map = Object.fromEntries(names.map((name) => [name, 'shard.safetensors']))
    writeFileSync(path.join(unet, index), JSON.stringify({ weight_map }))
    assert.ok((await converted(folder, { variant: 'fp16' })).equals(expected))
  })

test('a header whose metadata is null has none; null is nothing else', async (t) => {
  const folder = temporaryFolder(t)
  const header = '{"__metadata__": null, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
  const file = writeFileIn(folder, 'a.safetensors', safetensorsFile(header, Buffer.alloc(4)))
  assert.deepEqual(
    (await readSafetensors(file)).map(({ name }) => name),
    ['w'],
  )
  const bent = writeFileIn(folder, 'b.safetensors', safetensorsFile('{"w": null}'))
  await assert.rejects(readSafetensors(bent), { code: 'BAD_FILE', message: /header entry for "w"/ })
})

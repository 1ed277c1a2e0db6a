import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import {
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { readSafetensors as readSources } from '../../dist/checkpoint/formats/safetensors.js'
import { openCheckpoint } from '../../dist/checkpoint/open.js'
import { convert } from '../../dist/convert.js'
import { binding } from '../../dist/native.js'
import { temporaryFolder } from '../helpers/files.mjs'
import { readSafetensors } from '../helpers/safetensors.mjs'

const fixtures = path.resolve(import.meta.dirname, '../fixtures')
const decoder = path.join(fixtures, 'checkpoints/kandinsky-2-2-decoder')
const prior = path.join(fixtures, 'checkpoints/kandinsky-2-2-prior')

/** A copy of the decoder, to be damaged. */
function decoderCopy(t) {
  const folder = path.join(temporaryFolder(t), 'decoder')
  cpSync(decoder, folder, { recursive: true })
  return folder
}
const unetFile = (folder) => path.join(folder, 'unet/diffusion_pytorch_model.safetensors')

/** name -> { type, data } of a GGUF file of ours. */
async function tensorsOf(file) {
  const bytes = readFileSync(file)
  const { tensors } = await binding().readGguf(file)
  return new Map(
    tensors.map(({ name, type, shape, offset, bytes: size }) => [
      name,
      { type, shape, data: bytes.subarray(offset, offset + size) },
    ]),
  )
}

test('every weight arrives with its exact value, convolution kernels as rows [kh, kw, in]', async (t) => {
  const file = path.join(temporaryFolder(t), 'decoder.gguf')
  const result = await convert(decoder, file, { weights: 'f32' })
  assert.deepEqual(result, { path: file, bytes: statSync(file).size, components: ['movq', 'unet'], notes: [] })
  const converted = await tensorsOf(file)
  const source = readSafetensors(unetFile(decoder))
  const names = [...converted.keys()].filter((name) => name.startsWith('unet.'))
  assert.equal(names.length, source.size)
  for (const name of names) {
    const { type, shape, data } = converted.get(name)
    const original = source.get(name.slice('unet.'.length))
    assert.equal(type, 'f32', name)
    const values = new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.length))
    const [out, inner = 1, height = 1, width = 1] = original.shape
    if (original.shape.length < 4) {
      assert.deepEqual([shape, values], [original.shape, original.data], name)
      continue
    }
    assert.deepEqual(shape, [out, inner * height * width], name)
    const packed = values.map((_, at) => {
      const [channel, pixel, row] = [
        at % inner,
        Math.floor(at / inner) % (height * width),
        Math.floor(at / (inner * height * width)),
      ]
      return original.data[(row * inner + channel) * height * width + pixel]
    })
    assert.deepEqual(values, packed, name)
  }
})

test('quantized types go where the policy says, and rules where the user says', async (t) => {
  const file = path.join(temporaryFolder(t), 'decoder.gguf')
  const rules = [{ pattern: /^unet\.mid_block.*to_q/, type: 'f16' }]
  await convert(decoder, file, { weights: 'q8_0', rules })
  const tensors = await tensorsOf(file)
  const typeOf = (name) => tensors.get(name).type
  assert.equal(typeOf('unet.down_blocks.1.resnets.0.conv1.weight'), 'q8_0')
  assert.equal(typeOf('unet.mid_block.attentions.0.to_q.weight'), 'f16')
  assert.equal(typeOf('unet.mid_block.attentions.0.to_k.weight'), 'q8_0')
  assert.equal(typeOf('unet.conv_in.weight'), 'f32')
  assert.equal(typeOf('unet.time_embedding.linear_1.weight'), 'f16')
})

test('tensors that no network uses are left out', async (t) => {
  const file = path.join(temporaryFolder(t), 'decoder.gguf')
  await convert(decoder, file)
  const names = [...(await tensorsOf(file)).keys()]
  const stored = await readSources(path.join(decoder, 'movq/diffusion_pytorch_model.safetensors'))
  assert.ok(stored.some(({ name }) => name === 'quantize.embedding.weight'))
  assert.ok(!names.includes('movq.quantize.embedding.weight'), 'the codebook is not looked up')
  assert.ok(names.includes('movq.post_quant_conv.weight'))
})

test('converting a GGUF file again gives the same bytes as converting its source', async (t) => {
  const folder = temporaryFolder(t)
  const [stored, twice, once] = ['stored', 'twice', 'once'].map((name) => path.join(folder, `${name}.gguf`))
  await convert(decoder, stored)
  for (const weights of ['q8_0', 'q4_0']) {
    await convert(stored, twice, { weights })
    await convert(decoder, once, { weights })
    const [a, b] = [await tensorsOf(twice), await tensorsOf(once)]
    assert.deepEqual([...a.keys()].sort(), [...b.keys()].sort())
    for (const [name, { type, data }] of a) {
      assert.equal(type, b.get(name).type, name)
      assert.ok(data.equals(b.get(name).data), `${weights}: ${name} differs`)
    }
  }
  const { metadata } = await binding().readGguf(twice)
  assert.deepEqual(metadata, { ...(await binding().readGguf(once)).metadata, 'general.name': 'stored' })
})

test('the embedding of an all-zero image is stored, and outlives its image encoder', async (t) => {
  const folder = temporaryFolder(t)
  const [first, second, without] = ['first', 'second', 'without'].map((name) => path.join(folder, `${name}.gguf`))
  const { components } = await convert(decoder, first, { prior, skip: ['image_encoder'] })
  assert.ok(!components.includes('image_encoder'))
  const trace = readSafetensors(path.join(fixtures, 'traces/components/clip-vision-k22-zero-image.safetensors'))
  const expected = trace.get('output.image_embeds').data
  const embeds = (await openCheckpoint(first)).side('prior').zeroImageEmbeds
  assert.equal(embeds.length, expected.length)
  const worst = Math.max(...embeds.map((value, i) => Math.abs(value - expected[i])))
  // Weights as stored (f16), so activations are rounded to f16 in matrix products.
  assert.ok(worst < 2e-2, `zero image embedding differs by ${worst}`)
  await convert(first, second, { weights: 'q4_0' })
  assert.deepEqual((await openCheckpoint(second)).side('prior').zeroImageEmbeds, embeds)
  await convert(prior, without, { skipZeroImage: true })
  assert.equal((await openCheckpoint(without)).zeroImageEmbeds, undefined)
})

test('progress counts the bytes of the new file up to the total', async (t) => {
  const events = []
  await convert(decoder, path.join(temporaryFolder(t), 'a.gguf'), { onProgress: (event) => events.push(event) })
  assert.ok(events.length > 0)
  assert.equal(events.at(-1).done, events.at(-1).total)
  assert.ok(events.every(({ done }, i) => i === 0 || done >= events[i - 1].done))
})

const badCalls = {
  'an output in a missing folder': [
    {},
    (folder) => path.join(folder, 'no/a.gguf'),
    'FILE_NOT_FOUND',
    /no does not exist/,
  ],
  'an output without .gguf': [{}, (folder) => path.join(folder, 'a.bin'), 'INVALID_ARGUMENT', /ends in \.gguf/],
  'an output that is a folder': [
    {},
    (folder) => {
      mkdirSync(path.join(folder, 'a.gguf'))
      return path.join(folder, 'a.gguf')
    },
    'INVALID_ARGUMENT',
    /output/,
  ],
  'an unknown type': [{ weights: 'q2_K' }, undefined, 'INVALID_ARGUMENT', /q8_0.*"q2_K"/],
  'an unknown type in a rule': [
    { rules: [{ pattern: /a/, type: 'int4' }] },
    undefined,
    'INVALID_ARGUMENT',
    /rule a.*"int4"/,
  ],
  'a rule whose type does not fit': [
    { rules: [{ pattern: /conv_in/, type: 'q8_0' }] },
    undefined,
    'INVALID_ARGUMENT',
    /(unet|movq\.encoder)\.conv_in\.weight/,
  ],
  'an unknown component to skip': [{ skip: ['vae'] }, undefined, 'INVALID_ARGUMENT', /movq, unet.*"vae"/],
  'nothing left': [{ skip: ['unet', 'movq'] }, undefined, 'INVALID_ARGUMENT', /none is left/],
  'a decoder as prior': [{ prior: decoder }, undefined, 'INVALID_ARGUMENT', /with a prior/],
  'no threads': [{ threads: 0 }, undefined, 'INVALID_ARGUMENT', /threads/],
}
for (const [what, [options, output, code, message]] of Object.entries(badCalls))
  test(`refuses ${what}`, async (t) => {
    const folder = temporaryFolder(t)
    const file = output?.(folder) ?? path.join(folder, 'a.gguf')
    await assert.rejects(convert(decoder, file, options), { code, message })
    if (!output) assert.deepEqual(readdirSync(folder), [], 'nothing is left behind')
  })

test('refuses to overwrite its own source, under whatever name', async (t) => {
  const folder = temporaryFolder(t)
  const file = path.join(folder, 'a.gguf')
  await convert(decoder, file)
  linkSync(file, path.join(folder, 'b.gguf'))
  for (const output of ['a.gguf', './a.gguf', 'b.gguf'])
    await assert.rejects(convert(file, path.join(folder, output)), {
      code: 'INVALID_ARGUMENT',
      message: /being converted/,
    })
})

const damages = {
  'a truncated weights file': [
    (folder) => truncateSync(unetFile(folder), 1e6),
    'BAD_FILE',
    /unet.*safetensors should end at byte/,
  ],
  'a config that asks for more': [
    (folder) => editConfig(folder, { layers_per_block: 3 }),
    'BAD_FILE',
    /lacks unet\..*which its config asks for/,
  ],
  'a config that asks for other sizes': [
    (folder) => editConfig(folder, { cross_attention_dim: 32 }),
    'SHAPE_MISMATCH',
    /Expected shape \[.*\] for unet\./,
  ],
  'a config of an unknown block': [
    (folder) => editConfig(folder, { mid_block_type: 'UNetMidBlock3D' }),
    'UNSUPPORTED_MODEL',
    /UNetMidBlock3D/,
  ],
  'a class of network that the engine lacks': [
    (folder) => editIndex(folder, { unet: ['diffusers', 'FluxTransformer2DModel'] }),
    'UNSUPPORTED_MODEL',
    /FluxTransformer2DModel/,
  ],
}
function editJson(file, changes) {
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...changes }))
}
const editConfig = (folder, changes) => editJson(path.join(folder, 'unet/config.json'), changes)
const editIndex = (folder, changes) => editJson(path.join(folder, 'model_index.json'), changes)

for (const [what, [damage, code, message]] of Object.entries(damages))
  test(`${what} is an error that says so and touches no file`, async (t) => {
    const folder = decoderCopy(t)
    damage(folder)
    const file = path.join(temporaryFolder(t), 'out.gguf')
    writeFileSync(file, 'what was there before')
    await assert.rejects(convert(folder, file), { code, message })
    assert.equal(readFileSync(file, 'utf8'), 'what was there before')
    assert.deepEqual(readdirSync(path.dirname(file)), ['out.gguf'])
  })

test('an abort rejects with its reason and leaves the old file alone', async (t) => {
  const folder = temporaryFolder(t)
  const file = path.join(folder, 'out.gguf')
  writeFileSync(file, 'what was there before')
  const reason = new Error('enough')
  await assert.rejects(convert(decoder, file, { signal: AbortSignal.abort(reason) }), reason)
  const controller = new AbortController()
  const converting = convert(decoder, file, { signal: controller.signal })
  controller.abort(reason)
  await assert.rejects(converting, reason)
  assert.equal(readFileSync(file, 'utf8'), 'what was there before')
  assert.deepEqual(readdirSync(folder), ['out.gguf'])
})

test('an abort while the file is written leaves the old file or, if it comes too late, the whole new one', async (t) => {
  const folder = temporaryFolder(t)
  const file = path.join(folder, 'out.gguf')
  const reason = new Error('enough')
  for (const weights of ['f32', 'q4_K']) {
    const controller = new AbortController()
    const onProgress = () => controller.abort(reason)
    writeFileSync(file, 'what was there before')
    const outcome = await convert(decoder, file, { weights, signal: controller.signal, onProgress }).catch(
      (error) => error,
    )
    if (outcome === reason) assert.equal(readFileSync(file, 'utf8'), 'what was there before')
    else assert.equal((await openCheckpoint(file)).source, outcome.path)
    assert.deepEqual(readdirSync(folder), ['out.gguf'])
  }
})

test('a conversion that is killed leaves nothing, the old file or the whole new one', async (t) => {
  const file = path.join(temporaryFolder(t), 'out.gguf')
  const whole = statSync((await convert(decoder, file, { weights: 'q4_K' })).path).size
  const script = `
    import { convert } from ${JSON.stringify(path.resolve(import.meta.dirname, '../../dist/convert.js'))}
    console.log('ready')
    for (;;) await convert(${JSON.stringify(decoder)}, ${JSON.stringify(file)}, { weights: 'q4_K' })`
  for (let round = 0; round < 6; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const exited = new Promise((resolve) => child.once('exit', resolve))
    await new Promise((resolve) => child.stdout.once('data', resolve))
    await delay(20 + 35 * round)
    child.kill('SIGKILL')
    await exited
    assert.ok(existsSync(file))
    assert.equal(statSync(file).size, whole)
    assert.deepEqual((await (await openCheckpoint(file)).components()).sort(), ['movq', 'unet'])
  }
  await convert(decoder, file, { weights: 'q4_K' })
  assert.deepEqual(readdirSync(path.dirname(file)), ['out.gguf'], 'the next conversion clears what was left')
})

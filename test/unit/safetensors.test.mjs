import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import fc from 'fast-check'
import { readSafetensors } from '../../dist/checkpoint/formats/safetensors.js'
import { readWeights } from '../../dist/checkpoint/weight-files.js'
import { safetensorsFile, temporaryFolder, writeFileIn } from '../helpers/files.mjs'

const fixture = path.resolve(
  import.meta.dirname,
  '../fixtures/checkpoints/kandinsky-2-2-prior/prior/diffusion_pytorch_model.safetensors',
)
const tensor = (begin, end, shape = [(end - begin) / 4], dtype = 'F32') => ({
  dtype,
  shape,
  data_offsets: [begin, end],
})

async function refused(t, bytes, problem) {
  const file = writeFileIn(temporaryFolder(t), 'model.safetensors', bytes)
  await assert.rejects(readSafetensors(file), (error) => {
    assert.equal(error.code, 'BAD_FILE')
    assert.match(error.message, problem)
    assert.ok(error.message.startsWith(file), 'the message names the file')
    return true
  })
}

test('lists the tensors of a diffusers checkpoint with their place in the file', async () => {
  const tensors = await readSafetensors(fixture)
  const bytes = readFileSync(fixture)
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + Number(bytes.readBigUInt64LE(0))))
  const { __metadata__, ...entries } = header
  assert.equal(tensors.length, Object.keys(entries).length)
  for (const { name, type, shape, offset, bytes: size, path: from } of tensors) {
    assert.deepEqual(shape, entries[name].shape, name)
    assert.equal(type, 'f16', name)
    assert.equal(from, fixture)
    assert.equal(size, 2 * shape.reduce((a, b) => a * b, 1), name)
    assert.equal(offset, 8 + Number(bytes.readBigUInt64LE(0)) + entries[name].data_offsets[0], name)
  }
})

test('reads scalars, empty tensors and names that are special to JavaScript', async (t) => {
  const header = `{"__proto__":${JSON.stringify(tensor(0, 4, []))},"constructor":${JSON.stringify(tensor(4, 4, [0]))}}`
  const file = writeFileIn(temporaryFolder(t), 'a.safetensors', safetensorsFile(header, Buffer.alloc(4)))
  const names = (await readSafetensors(file)).map(({ name, bytes }) => [name, bytes])
  assert.deepEqual(names.sort(), [
    ['__proto__', 4],
    ['constructor', 0],
  ])
})

test('8-bit floats are listed; their values are tested with those of torch.save', async (t) => {
  const header = { a: tensor(0, 3, [3], 'F8_E4M3'), b: tensor(3, 5, [2], 'F8_E5M2') }
  const file = writeFileIn(temporaryFolder(t), 'a.safetensors', safetensorsFile(header, Buffer.alloc(5)))
  const types = (await readSafetensors(file)).map(({ name, type, bytes }) => [name, type, bytes])
  assert.deepEqual(types, [
    ['a', 'f8_e4m3', 3],
    ['b', 'f8_e5m2', 2],
  ])
})

const bad = {
  'a header longer than the file': [
    Buffer.concat([Buffer.from([255, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{}')]),
    /unknown format/,
  ],
  'a header of 2^63 bytes': [
    Buffer.concat([Buffer.from([0, 0, 0, 0, 0, 0, 0, 128]), Buffer.from('{}')]),
    /unknown format/,
  ],
  'an empty file': [Buffer.alloc(0), /unknown format/],
  'a header that starts with a space': [safetensorsFile(' {}'), /unknown format/],
  'a truncated header': [safetensorsFile('{"a":'), /malformed/],
  'text after the header object': [safetensorsFile('{}{}'), /malformed/],
  'invalid UTF-8': [safetensorsFile(Buffer.from([0x7b, 0x22, 0xff, 0x22])).fill(0xff, 9, 10), /UTF-8|malformed/],
  'duplicate keys': [
    safetensorsFile(`{"a":${JSON.stringify(tensor(0, 4))},"a":${JSON.stringify(tensor(4, 8))}}`, Buffer.alloc(8)),
    /key "a" twice/,
  ],
  'duplicate keys that are spelled differently': [
    safetensorsFile(`{"a":${JSON.stringify(tensor(0, 4))},"\\u0061":${JSON.stringify(tensor(4, 8))}}`, Buffer.alloc(8)),
    /key "a" twice/,
  ],
  'duplicate fields of a tensor': [
    safetensorsFile('{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', Buffer.alloc(4)),
    /key "dtype" twice/,
  ],
  'a hole between tensors': [
    safetensorsFile({ a: tensor(0, 4), b: tensor(8, 12) }, Buffer.alloc(12)),
    /hole before "b"/,
  ],
  'overlapping tensors': [safetensorsFile({ a: tensor(0, 8), b: tensor(4, 12) }, Buffer.alloc(12)), /overlapping.*"b"/],
  'a first tensor that does not start at 0': [safetensorsFile({ a: tensor(4, 8) }, Buffer.alloc(8)), /hole before "a"/],
  'bytes after the last tensor': [safetensorsFile({ a: tensor(0, 4) }, Buffer.alloc(5)), /should end at byte/],
  'a truncated data section': [safetensorsFile({ a: tensor(0, 4) }, Buffer.alloc(3)), /should end at byte/],
  'a shape that disagrees with the offsets': [
    safetensorsFile({ a: tensor(0, 8, [3]) }, Buffer.alloc(8)),
    /takes 12 bytes, not 8/,
  ],
  'an overflowing shape': [safetensorsFile({ a: tensor(0, 8, [2 ** 40, 2 ** 40]) }, Buffer.alloc(8)), /overflows/],
  'reversed offsets': [safetensorsFile({ a: tensor(8, 0, [2]) }, Buffer.alloc(8)), /takes 8 bytes, not -8/],
  'an unknown dtype': [safetensorsFile({ a: tensor(0, 4, [1], 'F24') }, Buffer.alloc(4)), /dtype but received F24/],
  'a negative size': [safetensorsFile({ a: tensor(0, 4, [-1]) }, Buffer.alloc(4)), /malformed/],
  'a fractional size': [safetensorsFile({ a: tensor(0, 4, [1.5]) }, Buffer.alloc(4)), /malformed/],
  'an integer above 2^53': [
    safetensorsFile('{"a":{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,1]}}'),
    /malformed/,
  ],
  'a shape that is no list': [
    safetensorsFile('{"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}}'),
    /shape is not a list/,
  ],
  'a missing field': [safetensorsFile('{"a":{"dtype":"U8","shape":[]}}'), /expected exactly/],
  'deep nesting': [safetensorsFile(`{"a":${'['.repeat(100000)}${']'.repeat(100000)}}`), /nested too deeply/],
  'metadata that is not text': [safetensorsFile('{"__metadata__":{"a":1}}'), /__metadata__/],
  'a tensor in place of metadata': [safetensorsFile('{"__metadata__":3}'), /__metadata__/],
  'a pickle under the name of a safetensors file': [Buffer.from('\x80\x02}q\x00.', 'latin1'), /bare Python pickle/],
  'a PyTorch zip under the name of a safetensors file': [
    Buffer.from('PK\x03\x04 and so on'),
    /zip archive as torch.save/,
  ],
  'a Git LFS pointer': [Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\n'), /git lfs pull/],
}
for (const [what, [bytes, problem]] of Object.entries(bad)) test(`refuses ${what}`, (t) => refused(t, bytes, problem))

test('a header cap applies before anything is read', async (t) => {
  const folder = temporaryFolder(t)
  const file = writeFileIn(folder, 'model.safetensors', Buffer.alloc(0))
  const { open } = await import('node:fs/promises')
  const handle = await open(file, 'w')
  const start = Buffer.alloc(9, '{')
  start.writeBigUInt64LE(100_000_001n)
  await handle.write(start)
  await handle.truncate(100_000_100)
  await handle.close()
  await assert.rejects(readSafetensors(file), /header of 100000001 bytes/)
})

test('whatever the bytes, the answer is a list or a KandinskyError', async (t) => {
  const folder = temporaryFolder(t)
  const good = safetensorsFile({ a: tensor(0, 8), b: tensor(8, 12, [1]) }, Buffer.alloc(12))
  const change = fc.tuple(fc.nat(good.length - 1), fc.nat(255))
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 4 }), fc.nat(good.length), async (changes, cut) => {
      const bytes = Buffer.from(good.subarray(0, good.length - (cut % 3 === 0 ? cut : 0)))
      for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
      const file = writeFileIn(folder, 'fuzzed.safetensors', bytes)
      const outcome = await readSafetensors(file).catch((error) => error)
      if (outcome instanceof Error) assert.equal(outcome.code, 'BAD_FILE', outcome.stack)
      else for (const { offset, bytes: size } of outcome) assert.ok(offset + size <= bytes.length)
    }),
    { numRuns: 300 },
  )
})

const oneTensor = safetensorsFile({ a: tensor(0, 4) }, Buffer.alloc(4))
const otherTensor = safetensorsFile({ b: tensor(0, 4) }, Buffer.alloc(4))

test('a component is read from its shards by the index', async (t) => {
  const folder = temporaryFolder(t)
  writeFileIn(folder, 'model.fp16-00001-of-00002.safetensors', oneTensor)
  writeFileIn(folder, 'model.fp16-00002-of-00002.safetensors', otherTensor)
  const map = { a: 'model.fp16-00001-of-00002.safetensors', b: 'model.fp16-00002-of-00002.safetensors' }
  writeFileIn(folder, 'model.safetensors.index.fp16.json', JSON.stringify({ weight_map: map }))
  const tensors = await readWeights(folder, 'fp16')
  assert.deepEqual(
    tensors.map(({ name, path: from }) => [name, path.basename(from)]),
    Object.entries(map),
  )
  await assert.rejects(readWeights(folder), { code: 'FILE_NOT_FOUND', message: /variant "fp16"/ })
})

test('a variant is preferred, and plain files serve where it is missing', async (t) => {
  const folder = temporaryFolder(t)
  writeFileIn(folder, 'diffusion_pytorch_model.safetensors', oneTensor)
  assert.equal((await readWeights(folder, 'fp16'))[0].name, 'a')
  writeFileIn(folder, 'diffusion_pytorch_model.fp16.safetensors', otherTensor)
  assert.equal((await readWeights(folder, 'fp16'))[0].name, 'b')
  assert.equal((await readWeights(folder))[0].name, 'a')
})

const badIndexes = {
  'a shard outside the folder': [{ a: '../model.safetensors' }, /same folder/],
  'an absolute shard': [{ a: '/model.safetensors' }, /same folder/],
  'a shard with a backslash': [{ a: '..\\model.safetensors' }, /same folder/],
  'a shard that is no text': [{ a: 1 }, /same folder/],
  'a shard that is missing': [{ a: 'model-2.safetensors' }, /does not exist/],
  'a tensor that its shard lacks': [{ a: 'model-1.safetensors', c: 'model-1.safetensors' }, /"c" is in model-1/],
  'a tensor that the index does not know': [{ c: 'model-1.safetensors' }, /"a" is in model-1/],
  'no weight map': [undefined, /no "weight_map"/],
}
for (const [what, [map, problem]] of Object.entries(badIndexes))
  test(`an index is refused with ${what}`, async (t) => {
    const folder = temporaryFolder(t)
    writeFileIn(folder, 'model-1.safetensors', oneTensor)
    writeFileIn(folder, 'model.safetensors.index.json', JSON.stringify({ weight_map: map }))
    await assert.rejects(readWeights(folder), problem)
  })

// GGUF files through the addon. The format's corner cases are in native/test/test_gguf.cpp.
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import fc from 'fast-check'
import { binding } from '../../dist/native.js'
import { safetensorsFile, temporaryFolder, writeFileIn } from '../helpers/files.mjs'
import { randomSource } from '../helpers/native.mjs'

const native = binding()

const metadata = {
  'general.architecture': 'kandinsky',
  'unet.act_fn': 'silu',
  'unet.block_out_channels': [384, 768],
  'unet.scale': 0.18215,
  'unet.center_input_sample': false,
  'unet.flags': [true, false],
  'unet.reals': [0.5, 1e-5],
  'unet.names': ['Grüße', '🎨', ''],
  'unet.nothing': [],
  'unet.largest': Number.MAX_SAFE_INTEGER,
  ['__proto__']: 'an ordinary key',
}

async function smallFile(folder, name = 'small.gguf') {
  const file = path.join(folder, name)
  const tensors = [
    randomSource('unet.conv_in.weight', [8, 4, 3, 3]),
    randomSource('unet.conv.weight', [2, 32, 3, 3], 'q8_0'),
    randomSource('unet.linear.weight', [4, 256], 'q4_K'),
    randomSource('unet.linear.bias', [4]),
  ]
  await native.writeGguf({ path: file, metadata, tensors, threads: 2 })
  return file
}

const badFile = (message) => ({ name: 'KandinskyError', code: 'BAD_FILE', message })

test('what is written is read back', async (t) => {
  const content = await native.readGguf(await smallFile(temporaryFolder(t)))
  assert.deepEqual(content.metadata, { ...metadata, 'general.alignment': 32 })
  const described = content.tensors.map(({ name, type, shape, bytes }) => [name, type, shape, bytes])
  assert.deepEqual(described, [
    ['unet.conv_in.weight', 'f32', [8, 36], 1152],
    ['unet.conv.weight', 'q8_0', [2, 288], 612],
    ['unet.linear.weight', 'q4_K', [4, 256], 576],
    ['unet.linear.bias', 'f32', [4], 16],
  ])
})

test('any metadata survives', async (t) => {
  const file = path.join(temporaryFolder(t), 'any.gguf')
  const text = fc.string({ unit: 'grapheme' }).filter((value) => !value.includes('\0'))
  const integer = fc.maxSafeInteger()
  // Of a list, whether it holds integers or reals is decided for all items together.
  const real = fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value || 0)
  const value = fc.oneof(
    text,
    integer,
    real,
    fc.boolean(),
    ...[text, integer, real, fc.boolean()].map((v) => fc.array(v)),
  )
  const key = text.filter((name) => name.length > 0)
  await fc.assert(
    fc.asyncProperty(fc.dictionary(key, value), async (entries) => {
      await native.writeGguf({ path: file, metadata: entries, tensors: [], threads: 1 })
      const { 'general.alignment': alignment, ...rest } = (await native.readGguf(file)).metadata
      assert.equal(alignment, 32)
      assert.deepEqual(rest, { ...entries })
    }),
    { numRuns: 200 },
  )
})

test('the same job writes the same bytes with any number of threads', async (t) => {
  const folder = temporaryFolder(t)
  const written = []
  for (const threads of [1, 2, 5]) {
    const file = path.join(folder, `${threads}.gguf`)
    const tensors = [randomSource('a.weight', [100, 256, 3, 3], 'q6_K'), randomSource('b.weight', [333, 64], 'q4_0')]
    await native.writeGguf({ path: file, metadata, tensors, threads })
    written.push(readFileSync(file))
  }
  assert.ok(written[0].equals(written[1]) && written[0].equals(written[2]))
})

test('files of other kinds are named for what they seem to be', async (t) => {
  const folder = temporaryFolder(t)
  const refuses = (name, bytes, message) =>
    assert.rejects(native.readGguf(writeFileIn(folder, name, bytes)), badFile(message))
  await refuses('empty.gguf', '', /empty\.gguf is empty/)
  await refuses('weights.gguf', safetensorsFile({}, Buffer.alloc(8)), /safetensors/)
  await refuses('model.gguf', 'PK\x03\x04', /zip/)
  await refuses('page.gguf', '<!DOCTYPE html>', /web page/)
  await refuses('pointer.gguf', 'version https://git-lfs.github.com/spec/v1', /Git LFS/)
  await refuses('text.gguf', 'GGU', /not a GGUF file/)
  await assert.rejects(native.readGguf(folder), badFile(/folder/))
  await assert.rejects(native.readGguf(path.join(folder, 'no.gguf')), { code: 'FILE_NOT_FOUND', message: /no\.gguf/ })
})

test('truncated and damaged files are refused, and others can be read afterwards', async (t) => {
  const folder = temporaryFolder(t)
  const file = await smallFile(folder)
  const bytes = readFileSync(file)
  const damaged = path.join(folder, 'damaged.gguf')
  const outcome = async (content) => {
    writeFileSync(damaged, content)
    return native.readGguf(damaged).then(
      () => 'read',
      (error) => error.code,
    )
  }
  for (let size = 0; size < bytes.length - 32; size += 13)
    assert.equal(await outcome(bytes.subarray(0, size)), 'BAD_FILE', `cut to ${size} bytes`)
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(255), async (position, byte) => {
      const content = Buffer.from(bytes)
      content[position] = byte
      assert.ok(['read', 'BAD_FILE'].includes(await outcome(content)))
    }),
    { numRuns: 500 },
  )
  assert.equal((await native.readGguf(file)).tensors.length, 4)
})

test('a file that changed since it was described is refused', async (t) => {
  const folder = temporaryFolder(t)
  const file = await smallFile(folder)
  const { tensors } = await native.readGguf(file)
  writeFileSync(file, readFileSync(file).subarray(0, 1000))
  const sources = tensors.map((tensor) => ({ ...tensor, path: file, target: 'f32' }))
  const job = { path: path.join(folder, 'out.gguf'), metadata: {}, tensors: sources, threads: 1 }
  await assert.rejects(native.writeGguf(job), badFile(/too short/))
  assert.deepEqual(readdirSync(folder), ['small.gguf'])
})

test('a write that fails or is cancelled leaves nothing, and the old file as it was', async (t) => {
  const folder = temporaryFolder(t)
  const file = await smallFile(folder)
  const before = readFileSync(file)
  const job = { path: file, metadata: {}, threads: 1 }
  const cancel = new native.CancelFlag()
  // Minutes of work, so that the first event arrives long before the end. Events that were on their way when it
  // cancelled may come after the file is gone.
  const large = Array.from({ length: 50 }, (_, i) => randomSource(`large${i}`, [32768, 4096], 'q4_K'))
  const events = []
  const writing = native.writeGguf({ ...job, tensors: large, cancel }, (done, total) => {
    if (events.length === 0)
      assert.ok(readdirSync(folder).some((name) => /^\.small\.gguf\.[0-9a-f]{16}\.partial$/.test(name)))
    events.push([done, total])
    cancel.cancel()
  })
  await assert.rejects(writing, { name: 'AbortError' })
  assert.ok(events.length > 0 && events[0][0] < events[0][1])
  const small = randomSource('a', [2, 32])
  const missing = { ...small, name: 'b', path: path.join(folder, 'gone'), bytes: 256 }
  await assert.rejects(native.writeGguf({ ...job, tensors: [small, missing] }), { code: 'FILE_NOT_FOUND' })
  assert.deepEqual(readdirSync(folder), ['small.gguf'])
  assert.ok(readFileSync(file).equals(before))
})

test('two writers of one file do not mix', async (t) => {
  const folder = temporaryFolder(t)
  const file = path.join(folder, 'out.gguf')
  const job = { path: file, metadata: {}, tensors: [randomSource('large', [2048, 2048], 'q8_0')], threads: 1 }
  const outcomes = await Promise.allSettled([native.writeGguf(job), native.writeGguf(job)])
  const failed = outcomes.filter(({ status }) => status === 'rejected')
  for (const { reason } of failed) assert.match(reason.message, /it is being written already/)
  assert.ok(failed.length < 2)
  assert.equal((await native.readGguf(file)).tensors.length, 1)
  assert.deepEqual(readdirSync(folder), ['out.gguf'])
})

test('a place that cannot be written to is an error before any work', async (t) => {
  const folder = temporaryFolder(t)
  const write = (target) => native.writeGguf({ path: target, metadata: {}, tensors: [], threads: 1 })
  await assert.rejects(write(path.join(folder, 'no', 'out.gguf')), { code: 'FILE_NOT_FOUND', message: /folder/ })
  await assert.rejects(write(folder), badFile(/is a folder/))
  const locked = path.join(folder, 'locked')
  mkdirSync(locked)
  chmodSync(locked, 0o500)
  if (process.getuid?.() === 0 || process.platform === 'win32') return t.diagnostic('permissions do not bind this user')
  await assert.rejects(write(path.join(locked, 'out.gguf')), badFile(/denied/))
})

test('weights that a type cannot hold are refused by name', async (t) => {
  const folder = temporaryFolder(t)
  const values = new Float32Array(64).fill(1)
  values[40] = NaN
  const file = writeFileIn(folder, 'values.bin', Buffer.from(values.buffer))
  const source = { name: 'unet.bad.weight', path: file, offset: 0, bytes: 256, type: 'f32', shape: [2, 32] }
  const write = (target) =>
    native.writeGguf({
      path: path.join(folder, 'out.gguf'),
      metadata: {},
      tensors: [{ ...source, target }],
      threads: 1,
    })
  for (const target of ['f16', 'q8_0', 'q5_0', 'q4_0'])
    await assert.rejects(write(target), badFile(/unet\.bad\.weight.*nan/))
  await assert.rejects(write('q4_K'), { code: 'INVALID_ARGUMENT', message: /multiple of 256/ })
})

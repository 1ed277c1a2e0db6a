import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import fc from 'fast-check'
import { readTorch } from '../../dist/checkpoint/formats/torch.js'
import { binding } from '../../dist/native.js'
import { safetensorsFile, temporaryFolder, writeFileIn } from '../helpers/files.mjs'
import { op, pickle, torchFile, zip } from '../helpers/torch-zip.mjs'

const extra = path.resolve(import.meta.dirname, '../fixtures/extra')
const { cases } = JSON.parse(readFileSync(path.join(extra, 'torch-cases.json'), 'utf8'))

const half = (bits) => {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023]
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15))
}
const readers = {
  f64: (b, at) => b.readDoubleLE(at * 8),
  f32: (b, at) => b.readFloatLE(at * 4),
  f16: (b, at) => half(b.readUInt16LE(at * 2)),
  bf16: (b, at) => new Float32Array(new Uint32Array([b.readUInt16LE(at * 2) << 16]).buffer)[0],
  i64: (b, at) => Number(b.readBigInt64LE(at * 8)),
  i32: (b, at) => b.readInt32LE(at * 4),
  i16: (b, at) => b.readInt16LE(at * 2),
  i8: (b, at) => b.readInt8(at),
  u8: (b, at) => b.readUInt8(at),
  bool: (b, at) => b.readUInt8(at),
  f8_e5m2: (b, at) => half(b.readUInt8(at) << 8),
  f8_e4m3: (b, at) => e4m3(b.readUInt8(at)),
}
const e4m3 = (bits) => {
  const [sign, exponent, fraction] = [bits >> 7 ? -1 : 1, (bits >> 3) & 15, bits & 7]
  return sign * (exponent === 0 ? fraction * 2 ** -9 : (1 + fraction / 8) * 2 ** (exponent - 7))
}
/** Where value `i` in row-major order lies, in elements. */
const position = (i, shape, stride) => {
  if (!stride) return i
  let [at, rest] = [0, i]
  for (let d = shape.length - 1; d >= 0; rest = Math.floor(rest / shape[d--])) at += (rest % shape[d]) * stride[d]
  return at
}

for (const [file, expected] of Object.entries(cases))
  if (expected)
    test(`finds every value of ${file}, which torch.save wrote`, async () => {
      const bytes = readFileSync(path.join(extra, file))
      const tensors = await readTorch(path.join(extra, file))
      assert.deepEqual(
        tensors.map(({ name }) => name),
        Object.keys(expected),
      )
      for (const { name, type, shape, stride, offset, bytes: size } of tensors) {
        assert.equal(type, expected[name].type, name)
        assert.deepEqual(shape, expected[name].shape, name)
        const data = bytes.subarray(offset, offset + size)
        assert.deepEqual(
          expected[name].values.map((_, i) => readers[type](data, position(i, shape, stride))),
          expected[name].values,
          name,
        )
      }
    })

for (const [file, expected] of Object.entries(cases))
  if (expected)
    test(`the engine reads the values of ${file}`, async (t) => {
      const gguf = path.join(temporaryFolder(t), 'values.gguf')
      const tensors = (await readTorch(path.join(extra, file))).map((tensor) => ({ ...tensor, target: 'f32' }))
      // Kernels become matrices on the way in: gguf.test.mjs has those.
      const plain = tensors.filter(({ shape }) => shape.length !== 4)
      await binding().writeGguf({ path: gguf, metadata: {}, tensors: plain, threads: 1 })
      const bytes = readFileSync(gguf)
      for (const { name, offset, bytes: size } of (await binding().readGguf(gguf)).tensors)
        assert.deepEqual(
          Array.from({ length: size / 4 }, (_, i) => bytes.readFloatLE(offset + 4 * i)),
          expected[name].values.map(Math.fround),
          name,
        )
    })

const refusedFixtures = {
  'torch-expanded.bin': /repeats values.*contiguous/,
  'torch-training.bin': /entry "step" is not a tensor/,
  'torch-module.bin': /asks for "torch.nn.modules.linear Linear"/,
}
for (const [file, problem] of Object.entries(refusedFixtures))
  test(`refuses ${file}, which torch.save wrote`, () =>
    assert.rejects(readTorch(path.join(extra, file)), { code: 'BAD_FILE', message: problem }))

test('every file of the reference cases is tested', () => {
  const refused = Object.keys(cases).filter((file) => cases[file] === null)
  assert.deepEqual(refused.sort(), Object.keys(refusedFixtures).sort())
})

const stateDict = (...tensors) => pickle(op.dict(...tensors))
const good = stateDict(op.text('a'), op.tensor())

test('64-bit archives are read', async (t) => {
  const bytes = torchFile(good, { options: { zip64: true } })
  const file = writeFileIn(temporaryFolder(t), 'model.bin', bytes)
  const [tensor] = await readTorch(file)
  assert.deepEqual([tensor.name, tensor.shape, tensor.bytes], ['a', [4], 16])
})

/** The file of torch.save before 1.6 that holds "a", with some of its parts replaced. */
function legacyFile({ protocol = 1001, little = '\x88', tensor = op.tensor(), keys = ['0'], count = 4 } = {}) {
  const size = Buffer.alloc(8)
  size.writeBigInt64LE(BigInt(count))
  return Buffer.concat([
    Buffer.from('80028a0a6cfc9c46f9206aa850192e', 'hex'),
    pickle(op.int(protocol)),
    pickle(op.dict(op.text('little_endian'), little)),
    stateDict(op.text('a'), tensor),
    pickle(']', ...keys.map((key) => [op.text(key), 'a'])),
    size,
    Buffer.alloc(16),
  ])
}

test('files of torch.save before 1.6 are read', async (t) => {
  const [tensor] = await readTorch(writeFileIn(temporaryFolder(t), 'model.bin', legacyFile()))
  assert.deepEqual([tensor.name, tensor.shape, tensor.bytes], ['a', [4], 16])
})

const archive = (...extraEntries) => [
  { name: 'archive/data.pkl', data: good },
  { name: 'archive/data/0', data: Buffer.alloc(16) },
  ...extraEntries,
]
const call = (module, name) => pickle(op.call(op.global(module, name), op.text('echo broken >> /tmp/x')))
const hostile = {
  'os.system': [torchFile(call('os', 'system')), /asks for "os system", which is not part of a tensor/],
  'builtins.eval': [torchFile(call('builtins', 'eval')), /asks for "builtins eval"/],
  'a dotted way to another module': [torchFile(call('torch._utils', 'sys.exit')), /asks for "torch._utils sys.exit"/],
  'a call of a storage class': [torchFile(call('torch', 'FloatStorage')), /calls "torch FloatStorage"/],
  'a call of a text': [
    torchFile(pickle(op.text('os.system'), op.tuple(op.text('ls')), 'R')),
    /calls what is no function/,
  ],
  'arguments for an OrderedDict': [torchFile(call('collections', 'OrderedDict')), /arguments that torch.save does not/],
  'INST, which imports and calls at once': [torchFile(pickle('(', op.text('ls'), 'ios\nsystem\n')), /instruction 0x69/],
  'OBJ, another way to call': [torchFile(pickle('(', op.global('torch', 'FloatStorage'), 'o')), /instruction 0x6f/],
  'STACK_GLOBAL of protocol 4': [torchFile(pickle(op.text('os'), op.text('system'), '\x93')), /instruction 0x93/],
  'the extension registry': [torchFile(pickle('\x82\x01')), /instruction 0x82/],
  'protocol 4': [torchFile(Buffer.from('\x80\x04}.', 'latin1')), /protocol 4/],
  'BUILD on a global': [torchFile(pickle(op.global('torch', 'FloatStorage'), '}b')), /sets attributes/],
  'a list': [torchFile(pickle(']')), /no state dict/],
  'a list in a state dict': [torchFile(stateDict(op.text('a'), [']', op.tensor(), 'a'])), /entry "a" is not a tensor/],
  'no dict at all': [torchFile(pickle(op.int(1))), /no state dict/],
  'a key that is no text': [torchFile(stateDict(op.int(1), op.tensor())), /entry of type number/],
  'a key twice': [torchFile(stateDict(op.text('a'), op.tensor(), op.text('a'), op.tensor())), /key "a" twice/],
  'an empty stack': [torchFile(pickle('R')), /takes more values/],
  'a missing mark': [torchFile(pickle('t')), /mark it never set/],
  'a memo entry that is not there': [torchFile(pickle('h\x07')), /recalls value 7/],
  'no end': [torchFile(good.subarray(0, -1)), /ends in the middle/],
  'a text longer than the file': [torchFile(pickle('X\xff\xff\xff\xff')), /ends in the middle/],
  'an integer of 255 bytes': [torchFile(pickle('\x8a\xff', Buffer.alloc(255))), /more than 64 bits/],
  'ninety thousand nested tuples': [torchFile(pickle(')', '\x85'.repeat(9e4))), /no state dict/],
  'ninety thousand nested tuples as a key': [
    torchFile(pickle('}', ')', '\x85'.repeat(9e4), 'Ns')),
    /entry of type tuple/,
  ],
  'three million values': [torchFile(pickle(')'.repeat(3e6))), /larger than any state dict/],
  'a dict that holds itself': [torchFile(pickle('}q\x00', op.text('a'), 'h\x00s')), /one dict stands in it twice/],
  'a storage that is missing': [torchFile(stateDict(op.text('a'), op.tensor({ key: '1' }))), /storage "1" is missing/],
  'a storage key that climbs': [torchFile(stateDict(op.text('a'), op.tensor({ key: '../data.pkl' }))), /is missing/],
  'a storage size that differs': [
    torchFile(stateDict(op.text('a'), op.tensor({ count: 5 }))),
    /5 values of 4 bytes but has 16/,
  ],
  'a storage of another type': [torchFile(stateDict(op.text('a'), op.tensor({ type: 'DoubleStorage' }))), /of 8 bytes/],
  'a storage class of its own': [
    torchFile(stateDict(op.text('a'), op.tensor({ type: 'QInt8Storage' }))),
    /asks for "torch QInt8Storage"/,
  ],
  'a tensor beyond its storage': [
    torchFile(stateDict(op.text('a'), op.tensor({ offset: 1 }))),
    /does not fit its storage/,
  ],
  'a negative offset': [torchFile(stateDict(op.text('a'), op.tensor({ offset: -1 }))), /way that torch.save does not/],
  'huge sizes': [
    torchFile(stateDict(op.text('a'), op.tensor({ shape: [2 ** 50, 2 ** 50], stride: [1, 1] }))),
    /does not fit its storage/,
  ],
  'huge counts': [torchFile(stateDict(op.text('a'), op.tensor({ count: 2 ** 52 }))), /way that|values of 4 bytes/],
  'strides of zero': [
    torchFile(stateDict(op.text('a'), op.tensor({ shape: [2, 2], stride: [0, 0] }))),
    /repeats values/,
  ],
  'fewer strides than sizes': [torchFile(stateDict(op.text('a'), op.tensor({ shape: [4, 1] }))), /sizes than strides/],
  'an old file of another protocol': [legacyFile({ protocol: 1000 }), /protocol 1001/],
  'an old big-endian file': [legacyFile({ little: '\x89' }), /little-endian/],
  'an old file without its storage': [legacyFile({ keys: [] }), /storage "0" is missing/],
  'an old file with a storage twice': [legacyFile({ keys: ['0', '0'] }), /lists the storage "0" wrongly/],
  'an old file with a storage of nobody': [legacyFile({ keys: ['1'] }), /lists the storage "1" wrongly/],
  'an old file that is cut off': [legacyFile().subarray(0, -1), /cut off in the storage "0"/],
  'an old file whose storage has another size': [legacyFile({ count: 3 }), /4 values of 4 bytes but has 12/],
  'an old file whose storage has a negative size': [legacyFile({ count: -1 }), /cut off in the storage/],
  'an old file of its head alone': [legacyFile().subarray(0, 15), /ends in the middle/],
  'big-endian data': [torchFile(good, { byteorder: 'big' }), /byte order "big"/],
  'two descriptions': [zip(archive({ name: 'other/data.pkl', data: good })), /2 data\.pkl/],
  'no description': [zip([{ name: 'word/document.xml', data: Buffer.alloc(4) }]), /0 data\.pkl/],
  'two entries of one name': [zip(archive({ name: 'archive/data/0', data: Buffer.alloc(16) })), /two entries called/],
  'entries that share their bytes': [
    zip(archive({ name: 'archive/data/0', data: Buffer.alloc(16), at: 1 })),
    /overlapping entries/,
  ],
  'an entry that reaches into the next': [
    zip([
      { name: 'archive/data.pkl', data: good, bytes: good.length + 40 },
      { name: 'archive/data/0', data: Buffer.alloc(16) },
    ]),
    /overlapping entries/,
  ],
  'an entry that reaches past the end': [zip([{ name: 'archive/data.pkl', data: good, bytes: 1e6 }]), /cut off/],
  'a compressed entry': [zip(archive({ name: 'archive/version', data: Buffer.alloc(2), method: 8 })), /compressed zip/],
  'an encrypted entry': [zip(archive({ name: 'archive/version', data: Buffer.alloc(2), flags: 1 })), /encrypted zip/],
  'a truncated archive': [torchFile(good).subarray(0, -40), /without a directory/],
  'an archive cut in the front': [
    Buffer.concat([Buffer.from('PK\x03\x04'), torchFile(good).subarray(300)]),
    /zip archive/,
  ],
  'a safetensors file under the name .bin': [safetensorsFile('{}'), /but a safetensors file/],
  'a bare pickle, as joblib writes it': [Buffer.from('\x80\x04\x95\x00', 'latin1'), /bare Python pickle/],
  'an empty file': [Buffer.alloc(0), /unknown format/],
}
for (const [what, [bytes, problem]] of Object.entries(hostile))
  test(`refuses ${what}`, async (t) => {
    const file = writeFileIn(temporaryFolder(t), 'model.bin', bytes)
    await assert.rejects(readTorch(file), (error) => {
      assert.equal(error.code, 'BAD_FILE', error.stack)
      assert.match(error.message, problem)
      assert.ok(error.message.length < 600, 'the message stays short')
      return true
    })
  })

test('whatever the bytes, the answer is a list inside the file or a KandinskyError', async (t) => {
  const folder = temporaryFolder(t)
  const files = ['torch-state-dict.bin', 'torch-strided.bin', 'torch-legacy.bin']
  const wholes = files.map((file) => readFileSync(path.join(extra, file)))
  const change = fc.tuple(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), fc.nat(255))
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...wholes),
      fc.array(change, { minLength: 1, maxLength: 6 }),
      async (whole, changes) => {
        const bytes = Buffer.from(whole)
        for (const [at, value] of changes) bytes[Math.floor(at * bytes.length)] = value
        const file = writeFileIn(folder, 'fuzzed.bin', bytes)
        const outcome = await readTorch(file).catch((error) => error)
        if (outcome instanceof Error) assert.equal(outcome.code, 'BAD_FILE', outcome.stack)
        else for (const { offset, bytes: size } of outcome) assert.ok(offset + size <= bytes.length)
      },
    ),
    { numRuns: 1000 },
  )
})

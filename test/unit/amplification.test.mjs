// A file costs a small multiple of its size, whatever it says: counts, nesting and sizes are checked before they are used.
import assert from 'node:assert/strict'
import test from 'node:test'
import { crc32, deflateSync } from 'node:zlib'
import { unpickleTensors } from '../../dist/checkpoint/formats/pickle.js'
import { parseHeader } from '../../dist/checkpoint/formats/safetensors-json.js'
import { parseConfig } from '../../dist/checkpoint/repository.js'
import { DDPMScheduler, loadImage, UnCLIPScheduler } from '../../dist/index.js'
import { Charsmap } from '../../dist/tokenizers/charsmap.js'

const refused = (message) => ({ name: 'KandinskyError', code: 'BAD_FILE', message })

test('a pickle of a million empty dicts, or of a million instructions', () => {
  const protocol = Buffer.from([0x80, 2])
  for (const filler of ['}', ')', ']', '(', 'N'])
    assert.throws(
      () => unpickleTensors(Buffer.concat([protocol, Buffer.alloc(2 << 20, filler)]), 'x.bin'),
      refused(/larger than any state dict/),
    )
})

/** Pickles of dicts: a text, a dict's entries, or the number of something stored before. */
const protocol = Buffer.from([0x80, 2])
const counted = (code, number) => {
  const bytes = Buffer.alloc(5, code)
  bytes.writeUInt32LE(number, 1)
  return bytes
}
const text = (value) => Buffer.concat([counted('X', value.length), Buffer.from(value)])
const dict = (...items) => Buffer.concat([Buffer.from('}('), ...items.flat(), Buffer.from('u')])
const tensor = Buffer.concat([
  Buffer.from('ctorch._utils\n_rebuild_tensor_v2\n(('),
  ...[text('storage'), Buffer.from('ctorch\nFloatStorage\n'), text('0'), text('cpu'), Buffer.from('K\x01tQ')],
  Buffer.from('K\x00K\x01\x85K\x01\x85\x89}tR', 'latin1'),
])
const pickle = (root) => unpickleTensors(Buffer.concat([protocol, root, Buffer.from('.')]), 'x.bin')

test('a pickle with one dict under many keys', () => {
  const once = dict([text('a'), dict([text('b'), tensor])])
  assert.deepEqual([...pickle(once).keys()], ['a.b'])
  const again = Array.from({ length: 1000 }, (_, i) => [text(String(i)), counted('j', 1)])
  const shared = dict([text('a'), dict([text('b'), tensor]), counted('r', 1)], ...again)
  assert.throws(() => pickle(shared), refused(/one dict stands in it twice/))
})

test('a pickle with a dict in itself', () => {
  const loop = Buffer.concat([Buffer.from('}'), counted('r', 1), text('a'), counted('j', 1), Buffer.from('s')])
  assert.throws(() => pickle(loop), refused(/one dict stands in it twice/))
})

test('a pickle whose tensors repeat the long name of their dict', () => {
  const named = (name) => dict([text(name), dict([text('b'), tensor])])
  assert.equal(pickle(named('a'.repeat(200))).size, 1)
  assert.throws(() => pickle(named('a'.repeat(10_000))), refused(/longer name than 256 characters/))
})

test('a safetensors header of a million numbers', () => {
  const header = Buffer.from(`{"a":[${'0,'.repeat(1_000_000)}0]}`)
  assert.throws(() => parseHeader(header, 'x.safetensors'), refused(/more than \d+ values/))
})

test('a config of a million numbers', () => {
  assert.throws(() => parseConfig(`{"a":[${'0,'.repeat(1_000_000)}0]}`, 'config.json'), refused(/characters/))
})

test('names of megabytes and terminal escapes do not reach messages', () => {
  const name = `\u001b[2J${'x'.repeat(1 << 20)}`
  const header = Buffer.from(`{${JSON.stringify(name)}:1,${JSON.stringify(name)}:1}`)
  assert.throws(
    () => parseHeader(header, 'x.safetensors'),
    ({ message }) => message.length < 1000 && !message.includes('\u001b'),
  )
})

test('a charsmap that turns a letter into a megabyte', () => {
  const bytes = Buffer.concat([Buffer.from([4, 0, 0, 0, 0, 0, 0, 0]), Buffer.alloc(1 << 20, 'a'), Buffer.alloc(1)])
  assert.throws(() => new Charsmap(bytes, 'x.model'), refused(/replacements of at most/))
})

test('schedulers of a billion training timesteps', () => {
  for (const Scheduler of [DDPMScheduler, UnCLIPScheduler])
    assert.throws(() => Scheduler.fromConfig({ num_train_timesteps: 1e9 }), {
      code: 'INVALID_ARGUMENT',
      message: /num_train_timesteps/,
    })
})

test('a picture of one line of 64 million pixels', async () => {
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data])
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)]
    length.writeUInt32BE(data.length)
    sum.writeUInt32BE(crc32(body))
    return Buffer.concat([length, body, sum])
  }
  const header = Buffer.alloc(13)
  header.writeUInt32BE(2 ** 26)
  header.writeUInt32BE(1, 4)
  header[8] = 16
  const signature = Buffer.from('89504e470d0a1a0a', 'hex')
  const image = chunk('IDAT', deflateSync(Buffer.alloc(9)))
  const png = Buffer.concat([signature, chunk('IHDR', header), image, chunk('IEND', Buffer.alloc(0))])
  for (const maxPixels of [undefined, Infinity])
    await assert.rejects(loadImage(png, { maxPixels }), refused(/sides of at most 65535/))
})

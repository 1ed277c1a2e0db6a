// Pictures that are not read are refused by name, in one short line.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import sharp from 'sharp'
import { loadImage } from '../../dist/index.js'
import { temporaryFolder } from '../helpers/files.mjs'

function bmp() {
  const bytes = Buffer.alloc(54 + 12)
  bytes.write('BM')
  for (const [at, value] of Object.entries({ 2: 66, 10: 54, 14: 40, 18: 2, 22: 2 })) bytes.writeUInt32LE(value, +at)
  bytes.writeUInt16LE(24, 28)
  return bytes
}

const heic = Buffer.concat([Buffer.from([0, 0, 0, 24]), Buffer.from('ftypheic\0\0\0\0mif1heic'), Buffer.alloc(64)])

async function cmyk(format) {
  const pixels = { create: { width: 8, height: 8, channels: 3, background: '#a04020' } }
  return sharp(pixels).toColourspace('cmyk').toFormat(format).toBuffer()
}

test('pictures of kinds that are not read', async (t) => {
  const folder = temporaryFolder(t)
  const cases = { BMP: bmp(), HEIC: heic, CMYK: await cmyk('jpeg'), 'CMYK picture': await cmyk('tiff') }
  for (const [kind, bytes] of Object.entries(cases)) {
    const file = path.join(folder, 'picture')
    writeFileSync(file, bytes)
    for (const source of [bytes, file]) {
      const error = await loadImage(source).then(
        () => assert.fail(`${kind} was read`),
        (reason) => reason,
      )
      assert.equal(error.code, 'BAD_FILE')
      assert.match(error.message, new RegExp(`received a ${kind}.*not supported; save it as`))
      assert.ok(error.message.length < 250 && !error.message.includes('\n'))
    }
  }
  await assert.rejects(loadImage(sharp(await cmyk('jpeg'))), { code: 'BAD_FILE', message: /CMYK/ })
})

test('an AVIF picture stays one that is read', async () => {
  const pixels = { create: { width: 16, height: 16, channels: 3, background: '#a04020' } }
  assert.equal((await loadImage(await sharp(pixels).avif().toBuffer())).width, 16)
})

test('bare base64 is refused with what it needs, as a data URL it is read', async () => {
  const noise = Buffer.from(Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7919) % 251))
  const png = await sharp(noise, { raw: { width: 64, height: 64, channels: 3 } })
    .png()
    .toBuffer()
  const base64 = png.toString('base64')
  for (const text of [base64, 'x'.repeat(31_000)]) {
    const error = await loadImage(text).catch((reason) => reason)
    assert.equal(error.code, 'INVALID_ARGUMENT')
    assert.match(error.message, /base64 needs "data:image/)
    assert.ok(error.message.length < 300)
  }
  assert.equal((await loadImage(`data:image/png;base64,${base64}`)).width, 64)
})

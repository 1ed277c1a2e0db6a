// Loading, saving and combining pictures.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import os from 'node:os'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { crc32 } from 'node:zlib'
import sharp from 'sharp'
import { loadImage, makeImageGrid, RawImage, readRecipe } from '../../dist/images/image.js'

const images = new URL('../fixtures/images/', import.meta.url)
const pathOf = (name) => fileURLToPath(new URL(name, images))
const bytesOf = (name) => readFileSync(new URL(name, images))
const raw = async (name) =>
  new Uint8Array(await sharp(pathOf(name)).removeAlpha().toColourspace('srgb').raw().toBuffer())
const rejectsWith = (promise, code, pattern = /./) =>
  assert.rejects(
    promise,
    (error) => error.name === 'KandinskyError' && error.code === code && pattern.test(error.message),
  )

const folder = mkdtempSync(path.join(os.tmpdir(), 'kandinsky-images-'))
after(() => rmSync(folder, { recursive: true }))

describe('loadImage', () => {
  it('scales gray of 16 bits, which Pillow clips (docs/differences.md)', async () => {
    const gray = Uint16Array.of(0, 257, 128 * 257, 65535)
    const file = await sharp(gray, { raw: { width: 4, height: 1, channels: 1 } })
      .toColourspace('grey16')
      .png()
      .toBuffer()
    assert.equal(file[24], 16, 'bits per channel')
    assert.deepEqual([...(await loadImage(file, { mode: 'L' })).data], [0, 1, 128, 255])
  })

  it('takes paths, URLs, bytes, sharp objects and RawImage', async () => {
    const file = bytesOf('tiny_40x30.png')
    const expected = await raw('tiny_40x30.png')
    const sources = {
      path: pathOf('tiny_40x30.png'),
      'file URL': new URL('tiny_40x30.png', images),
      'file URL as string': new URL('tiny_40x30.png', images).href,
      'data URL': `data:image/png;base64,${file.toString('base64')}`,
      Buffer: file,
      Uint8Array: new Uint8Array(file),
      ArrayBuffer: new Uint8Array(file).buffer,
      sharp: sharp(file),
      RawImage: new RawImage(expected, 40, 30),
    }
    for (const [name, source] of Object.entries(sources)) {
      const image = await loadImage(source)
      assert.ok(image instanceof RawImage, name)
      assert.deepEqual([image.width, image.height, image.channels], [40, 30, 3], name)
      assert.deepEqual(image.data, expected, name)
    }
  })

  it('reads the bytes it was given, whatever happens to them later', async () => {
    const file = new Uint8Array(bytesOf('tiny_40x30.png'))
    const loading = loadImage(file)
    file.fill(0)
    assert.deepEqual((await loading).data, await raw('tiny_40x30.png'))
  })

  it('gives RGB as Pillow does: gray repeated, palette looked up, alpha dropped', async () => {
    for (const name of ['gray_80x80.png', 'palette_90x70.png', 'alpha_100x100.png']) {
      const image = await loadImage(pathOf(name))
      assert.equal(image.channels, 3, name)
      assert.deepEqual(image.data, await raw(name), name)
    }
    const pair = await sharp(Uint8Array.of(10, 20, 200, 0), { raw: { width: 2, height: 1, channels: 2 } })
      .png()
      .toBuffer()
    assert.deepEqual([...(await loadImage(pair)).data], [10, 10, 10, 200, 200, 200])
    assert.deepEqual([...(await loadImage(pair, { mode: 'RGBA' })).data], [10, 10, 10, 20, 200, 200, 200, 0])
  })

  it('gives gray as Pillow does', async () => {
    const { gray } = JSON.parse(readFileSync(new URL('../fixtures/extra/image-cases.json', import.meta.url), 'utf8'))
    const [input, output] = [gray.input, gray.output].map(({ data }) => new Uint8Array(Buffer.from(data, 'base64')))
    assert.deepEqual(new RawImage(input, 32, 16).convert('L').data, output)
    assert.equal((await loadImage(pathOf('gray_80x80.png'), { mode: 'L' })).channels, 1)
  })

  it('turns pictures upright by their EXIF orientation', async () => {
    const pixels = Uint8Array.of(255, 0, 0, 0, 0, 255)
    const side = sharp(pixels, { raw: { width: 2, height: 1, channels: 3 } })
    const turned = await side.png().withMetadata({ orientation: 6 }).toBuffer()
    const image = await loadImage(turned)
    assert.deepEqual([image.width, image.height], [1, 2])
    assert.deepEqual(image.data, pixels)
  })

  it('says what it got instead of a picture', async () => {
    const file = (name, content) => {
      writeFileSync(path.join(folder, name), content)
      return path.join(folder, name)
    }
    await rejectsWith(loadImage(path.join(folder, 'absent.png')), 'FILE_NOT_FOUND', /absent\.png/)
    await rejectsWith(loadImage(folder), 'BAD_FILE', /regular file/)
    await rejectsWith(loadImage(file('empty.png', '')), 'BAD_FILE', /empty\.png but received no bytes/)
    await rejectsWith(loadImage(file('page.png', '<!DOCTYPE html>')), 'BAD_FILE', /received 15 bytes of text$/)
    await rejectsWith(
      loadImage(Buffer.from('1f8b080000', 'hex')),
      'BAD_FILE',
      /given bytes.*received 5 bytes of an unknown format$/,
    )
    const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    await rejectsWith(loadImage(Buffer.from(svg)), 'BAD_FILE', /type svg/)
    await rejectsWith(loadImage('data:image/png;base64,AAAA'), 'BAD_FILE', /3 bytes/)
  })

  it('refuses cut off files', async () => {
    const jpeg = await sharp(pathOf('plasma_320x240.png')).jpeg().toBuffer()
    for (const file of [bytesOf('plasma_320x240.png'), jpeg])
      await rejectsWith(loadImage(file.subarray(0, file.length / 2)), 'BAD_FILE')
  })

  it('refuses pictures above the pixel limit before it decodes them', async () => {
    await rejectsWith(loadImage(pathOf('tiny_40x30.png'), { maxPixels: 1199 }), 'BAD_FILE', /1199 pixels.*40x30/)
    assert.equal((await loadImage(pathOf('tiny_40x30.png'), { maxPixels: 1200 })).width, 40)
    const huge = Buffer.from(bytesOf('tiny_40x30.png'))
    huge.writeUInt32BE(9000, 16)
    huge.writeUInt32BE(9000, 20)
    huge.writeUInt32BE(crc32(huge.subarray(12, 29)), 29)
    await rejectsWith(loadImage(huge), 'BAD_FILE', /9000x9000/)
  })

  it('refuses other sources and options', async () => {
    for (const source of [undefined, null, 7, {}, [], '', 'a\0b', 'data:', 'http://', () => {}])
      await rejectsWith(loadImage(source), 'INVALID_ARGUMENT', /source/)
    await rejectsWith(loadImage(new URL('ftp://example.com/a.png')), 'INVALID_ARGUMENT', /http/)
    await rejectsWith(loadImage(pathOf('tiny_40x30.png'), { mode: 'CMYK' }), 'INVALID_ARGUMENT', /mode/)
    await rejectsWith(loadImage(pathOf('tiny_40x30.png'), { maxPixels: Number.NaN }), 'INVALID_ARGUMENT', /maxPixels/)
  })
})

describe('loadImage over http', () => {
  let origin
  const server = createServer((request, response) => {
    const send = (status, headers, body) => response.writeHead(status, headers).end(body)
    const picture = bytesOf('tiny_40x30.png')
    const routes = {
      '/a.png': () => send(200, {}, picture),
      '/moved': () => send(302, { location: '/a.png' }),
      '/loop': () => send(302, { location: '/loop' }),
      '/inside': () => send(302, { location: 'file:///etc/hostname' }),
      '/page': () => send(200, {}, '<html>'),
      '/endless': () => response.writeHead(200, { 'content-length': 2 ** 40 }).write(picture),
      '/broken': () => {
        response.writeHead(200, { 'content-length': picture.length }).write(picture.subarray(0, 100))
        setTimeout(() => response.destroy(), 20)
      },
      '/slow': () => response.writeHead(200).write(picture.subarray(0, 100)),
    }
    const route = routes[request.url] ?? (() => send(404, {}, 'no'))
    route()
  })
  before(async () => {
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    origin = `http://127.0.0.1:${server.address().port}`
  })
  after(() => {
    server.closeAllConnections()
    server.close()
  })

  it('follows redirects', async () => {
    const expected = await raw('tiny_40x30.png')
    for (const route of ['/a.png', '/moved']) assert.deepEqual((await loadImage(origin + route)).data, expected, route)
    assert.deepEqual((await loadImage(new URL(`${origin}/a.png`))).data, expected)
  })

  it('says what went wrong', async () => {
    await rejectsWith(loadImage(`${origin}/none`), 'FILE_NOT_FOUND', /answered 404/)
    await rejectsWith(loadImage(`${origin}/loop`), 'FILE_NOT_FOUND', /more than 5 times/)
    await rejectsWith(loadImage(`${origin}/inside`), 'FILE_NOT_FOUND', /redirects to a file: URL/)
    await rejectsWith(loadImage(`${origin}/page`), 'BAD_FILE', /received 6 bytes of text$/)
    await rejectsWith(loadImage(`${origin}/endless`), 'BAD_FILE', /at most 268435456 bytes/)
    await rejectsWith(loadImage(`${origin}/broken`), 'FILE_NOT_FOUND', /could not be fetched/)
    await rejectsWith(loadImage('http://127.0.0.1:1/a.png'), 'FILE_NOT_FOUND', /could not be fetched/)
  })

  it('reads only what KANDINSKY_INPUTS allows', async (t) => {
    t.after(() => delete process.env.KANDINSKY_INPUTS)
    const bytes = await new RawImage(new Uint8Array(3), 1, 1).toBuffer()
    const data = `data:image/png;base64,${bytes.toString('base64')}`
    const file = path.join(import.meta.dirname, '../fixtures/images/gradient_64x64.png')
    const url = `${origin}/none?key=hunter2`
    for (const [allowed, sources] of Object.entries({
      bytes: [file, pathToFileURL(file), url],
      files: [url, new URL(url)],
    })) {
      process.env.KANDINSKY_INPUTS = allowed
      for (const source of sources)
        await rejectsWith(loadImage(source), 'INVALID_ARGUMENT', new RegExp(`KANDINSKY_INPUTS is ${allowed}`))
      for (const source of [bytes, data]) assert.equal((await loadImage(source)).width, 1)
    }
    assert.equal((await loadImage(file)).width, 64)
    process.env.KANDINSKY_INPUTS = 'none'
    await rejectsWith(loadImage(file), 'INVALID_ARGUMENT', /any, files or bytes/)
  })

  it('keeps user, password and query of a URL to itself', async () => {
    const secret = origin.replace('//', '//anna:hunter2@')
    for (const page of ['none', 'page', 'loop'])
      await assert.rejects(loadImage(`${origin}/${page}?key=hunter2`), ({ message }) => !message.includes('hunter2'))
    for (const url of [`${secret}/none`, `ftp://anna:hunter2@host/a`, 'http://anna:hunter2@host:99999/'])
      await assert.rejects(loadImage(url), ({ message }) => !message.includes('hunter2'))
  })

  it('stops on abort with the reason of the signal', async () => {
    const reason = new Error('enough')
    const controller = new AbortController()
    const loading = loadImage(`${origin}/slow`, { signal: controller.signal })
    setTimeout(() => controller.abort(reason), 50)
    await assert.rejects(loading, reason)
    await assert.rejects(loadImage(pathOf('tiny_40x30.png'), { signal: controller.signal }), reason)
  })
})

describe('RawImage', () => {
  const pixels = Uint8Array.from({ length: 4 * 3 * 3 }, (_, i) => i * 7)
  const recipe = { prompt: 'кот', seed: 5, width: 4, height: 3 }

  it('checks its bytes', () => {
    assert.throws(() => new RawImage(pixels, 4, 4), { code: 'SHAPE_MISMATCH' })
    assert.throws(() => new RawImage([...pixels], 4, 3), { code: 'INVALID_ARGUMENT' })
    assert.throws(() => new RawImage(pixels, 4, 3, 2), { code: 'INVALID_ARGUMENT' })
    assert.throws(() => new RawImage(pixels, 4.5, 3), { code: 'INVALID_ARGUMENT' })
  })

  it('goes through PNG without loss, with 1, 3 and 4 channels', async () => {
    for (const mode of ['L', 'RGB', 'RGBA']) {
      const image = new RawImage(pixels, 4, 3).convert(mode)
      const file = await image.toBuffer()
      assert.equal((await sharp(file).metadata()).channels, image.channels)
      assert.deepEqual((await loadImage(file, { mode })).data, image.data)
    }
  })

  it('becomes a sharp object', async () => {
    const { width, height } = (
      await new RawImage(pixels, 4, 3).toSharp().resize(8).raw().toBuffer({ resolveWithObject: true })
    ).info
    assert.deepEqual([width, height], [8, 6])
  })

  it('is saved in the format of the name', async () => {
    const image = new RawImage(pixels, 4, 3)
    const formats = { png: 'png', jpg: 'jpeg', JPEG: 'jpeg', webp: 'webp', tiff: 'tiff', gif: 'gif', avif: 'heif' }
    for (const [extension, format] of Object.entries(formats)) {
      const file = path.join(folder, `saved.${extension}`)
      await image.save(file)
      assert.equal((await sharp(file).metadata()).format, format, extension)
    }
  })

  it('replaces a file and leaves nothing else behind', async () => {
    const inside = mkdtempSync(path.join(folder, 'save-'))
    const file = path.join(inside, 'a.png')
    writeFileSync(file, 'old')
    await new RawImage(pixels, 4, 3).save(file)
    assert.deepEqual((await loadImage(file)).data, pixels)
    await rejectsWith(new RawImage(pixels, 4, 3).save(path.join(inside, 'none', 'a.png')), 'FILE_NOT_FOUND', /none/)
    await rejectsWith(new RawImage(pixels, 4, 3).save(path.join(inside, 'a.bmp')), 'INVALID_ARGUMENT', /\.png/)
    await rejectsWith(new RawImage(pixels, 4, 3).save(undefined), 'INVALID_ARGUMENT')
    await rejectsWith(new RawImage(pixels, 4, 3).toBuffer('bmp'), 'INVALID_ARGUMENT', /format/)
    assert.deepEqual(readdirSync(inside), ['a.png'])
  })

  it('carries its recipe in PNG files', async () => {
    const file = path.join(folder, 'recipe.png')
    await new RawImage(pixels, 4, 3, 3, recipe).save(file)
    assert.deepEqual(await readRecipe(file), recipe)
    assert.deepEqual(await readRecipe(readFileSync(file)), recipe)
    assert.deepEqual((await loadImage(file)).data, pixels)
    const { comments } = await sharp(file).metadata()
    assert.deepEqual(
      comments.find(({ keyword }) => keyword === 'parameters'),
      { keyword: 'parameters', text: 'кот\nSeed: 5, Size: 4x3' },
    )
    assert.equal(await readRecipe(pathOf('tiny_40x30.png')), undefined)
    await rejectsWith(readRecipe(path.join(folder, 'absent.png')), 'FILE_NOT_FOUND')
    await rejectsWith(readRecipe(Buffer.from('no picture')), 'BAD_FILE', /signature/)
  })
})

describe('makeImageGrid', () => {
  const tile = (level, width = 2, height = 1, channels = 3) =>
    new RawImage(new Uint8Array(width * height * channels).fill(level), width, height, channels)

  it('lays pictures row by row', () => {
    const grid = makeImageGrid([tile(1), tile(2), tile(3), tile(4), tile(5), tile(6, 2, 1, 1)], 3, 2)
    assert.deepEqual([grid.width, grid.height, grid.channels], [4, 3, 3])
    const columns = [...grid.data].filter((_, i) => i % 6 === 0)
    assert.deepEqual(columns, [1, 2, 3, 4, 5, 6])
  })

  it('resizes to squares', () => {
    const grid = makeImageGrid([tile(1), tile(2, 5, 9)], 1, 2, 4)
    assert.deepEqual([grid.width, grid.height], [8, 4])
    assert.deepEqual([...grid.data.subarray(9, 15)], [1, 1, 1, 2, 2, 2])
  })

  it('refuses what does not fit', () => {
    const invalid = { code: 'INVALID_ARGUMENT' }
    assert.throws(() => makeImageGrid([tile(1)], 1, 2), invalid)
    assert.throws(() => makeImageGrid([], 0, 0), invalid)
    assert.throws(() => makeImageGrid([tile(1), tile(1, 3)], 1, 2), invalid)
    assert.throws(() => makeImageGrid([{ width: 1 }], 1, 1), invalid)
    assert.throws(() => makeImageGrid([tile(1)], 1, 1, 0.5), invalid)
  })
})

describe('RawImage.thumbnail', () => {
  // Pillow 12.3: Image.open(name).thumbnail((width, height)), its size, and the start of the SHA-256 of its bytes.
  const recorded = [
    ['glyphs_200x150.png', 131, 184, 131, 98, 'dfa91b96779c02f6'],
    ['glyphs_200x150.png', 15, 239, 15, 11, 'f8258ae9bd5a78d3'],
    ['portrait_150x260.png', 333, 27, 16, 27, '09a24686298aade9'],
    ['portrait_150x260.png', 58, 191, 58, 101, '3fc9fd3e44400774'],
    ['alpha_100x100.png', 127, 195, 100, 100, '98537aa6e59e387e'],
    ['alpha_100x100.png', 144, 94, 94, 94, 'e4863780ac58e868'],
    ['plasma_320x240.png', 108, 111, 108, 81, '89fb35f074c5c0fb'],
    ['plasma_320x240.png', 132, 12, 16, 12, '16746646623c44db'],
    ['gray_80x80.png', 102, 277, 80, 80, '414d8f8b8af2078a'],
    ['gray_80x80.png', 213, 85, 80, 80, '414d8f8b8af2078a'],
  ]
  for (const [name, width, height, fitWidth, fitHeight, hash] of recorded)
    it(`fits ${name} into ${width}x${height} as Pillow does`, async () => {
      const mode = name.startsWith('gray') ? 'L' : name.startsWith('alpha') ? 'RGBA' : 'RGB'
      const small = (await loadImage(pathOf(name), { mode })).thumbnail(width, height)
      assert.deepEqual([small.width, small.height], [fitWidth, fitHeight])
      assert.equal(createHash('sha256').update(small.data).digest('hex').slice(0, 16), hash)
    })

  it('keeps what fits, takes one side for both, and refuses sizes that are none', async () => {
    const image = await loadImage(pathOf('tiny_40x30.png'))
    assert.equal(image.thumbnail(40, 30), image)
    assert.equal(image.thumbnail(4000), image)
    const { width, height } = image.thumbnail(20)
    assert.deepEqual([width, height], [20, 15])
    for (const side of [0, -1, 1.5, Number.NaN, '20'])
      assert.throws(() => image.thumbnail(side), { code: 'INVALID_ARGUMENT', message: /width/ })
  })
})

describe('RawImage.resize', () => {
  it('gives exactly the size asked for and keeps the recipe', async () => {
    const image = await loadImage(pathOf('tiny_40x30.png'))
    image.recipe = { prompt: 'a cat' }
    const { width, height, channels, recipe } = image.resize(64, 128)
    assert.deepEqual({ width, height, channels, recipe }, { width: 64, height: 128, channels: 3, recipe: image.recipe })
    assert.throws(() => image.resize(0, 10), { code: 'INVALID_ARGUMENT' })
  })
})

// Text chunks of PNG files: written as other programs expect them, read without trust.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { crc32, deflateSync } from 'node:zlib'
import fc from 'fast-check'
import { insertTextChunks, readTextChunk } from '../../dist/images/png.js'
import { addRecipe, parseRecipe } from '../../dist/images/recipe.js'

const chunk = (type, data = '') => {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), Buffer.from(data, 'latin1')])
  const [length, checksum] = [Buffer.alloc(4), Buffer.alloc(4)]
  length.writeUInt32BE(body.length - 4)
  checksum.writeUInt32BE(crc32(body))
  return Buffer.concat([length, body, checksum])
}
const signature = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1')
const header = chunk('IHDR', '\0\0\0\x01\0\0\0\x01\x08\0\0\0\0')
const image = chunk('IDAT', deflateSync(Buffer.alloc(2)).toString('latin1'))
const end = chunk('IEND')
const png = (...chunks) => Buffer.concat([signature, header, ...chunks, image, end])
const deflated = (text) => deflateSync(Buffer.from(text)).toString('latin1')
const badFile = { code: 'BAD_FILE' }

describe('text chunks', () => {
  it('any text comes back, except for null characters and lone surrogates, which PNG cannot hold', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const file = insertTextChunks(png(), [
          { keyword: 'other', text: 'before' },
          { keyword: 'parameters', text },
        ])
        assert.equal(readTextChunk(file, 'parameters'), text.replaceAll('\0', '').toWellFormed())
        assert.equal(readTextChunk(file, 'other'), 'before')
        assert.equal(readTextChunk(file, 'param'), undefined)
      }),
    )
  })

  it('stand behind the header; Latin-1 texts as tEXt, others as iTXt', () => {
    const file = Buffer.from(insertTextChunks(png(), [{ keyword: 'parameters', text: 'café' }]))
    assert.ok(file.equals(png(chunk('tEXt', 'parameters\0café'))))
    const wide = insertTextChunks(png(), [{ keyword: 'parameters', text: 'кот' }])
    const utf8 = Buffer.from('кот').toString('latin1')
    assert.ok(Buffer.from(wide).equals(png(chunk('iTXt', `parameters\0\0\0\0\0${utf8}`))))
  })

  it('are read in every form, before and behind the pixels', () => {
    assert.equal(readTextChunk(png(chunk('zTXt', `key\0\0${deflated('zipped')}`)), 'key'), 'zipped')
    assert.equal(readTextChunk(png(chunk('iTXt', `key\0\x01\0en\0Key\0${deflated('кот')}`)), 'key'), 'кот')
    assert.equal(readTextChunk(png(chunk('iTXt', 'key\0\0\0en\0Key\0plain')), 'key'), 'plain')
    const behind = Buffer.concat([signature, header, image, chunk('tEXt', 'key\0late'), end])
    assert.equal(readTextChunk(behind, 'key'), 'late')
    assert.equal(readTextChunk(png(chunk('tEXt', 'key\0one'), chunk('tEXt', 'key\0two')), 'key'), 'one')
  })
})

describe('hostile files', () => {
  const refuse = (file, pattern) =>
    assert.throws(
      () => readTextChunk(file, 'key'),
      (error) => error.code === 'BAD_FILE' && pattern.test(error.message),
    )

  it('no PNG, cut off, wrong length, wrong checksum, wrong order', () => {
    refuse(Buffer.alloc(0), /signature/)
    refuse(Buffer.from('GIF89a'), /signature/)
    refuse(signature, /another chunk/)
    refuse(png().subarray(0, -1), /at most|another chunk/)
    refuse(png().subarray(0, -12), /another chunk/)
    refuse(Buffer.concat([signature, header, Buffer.from('ffffffff', 'hex'), image]), /at most/)
    const flipped = png()
    flipped[20] ^= 1
    refuse(flipped, /checksum/)
    refuse(Buffer.concat([signature, end]), /header first/)
  })

  it('malformed texts', () => {
    refuse(png(chunk('zTXt', `key\0\x01${deflated('x')}`)), /method 1/)
    refuse(png(chunk('zTXt', 'key\0')), /method/)
    refuse(png(chunk('zTXt', 'key\0\0no deflate')), /compressed text/)
    refuse(png(chunk('iTXt', 'key\0\0\0no more nulls')), /null byte/)
    refuse(png(chunk('iTXt', 'key\0\0\0\0\0\xff\xfe')), /UTF-8/)
  })

  it('a text above the limit is refused, also if only inflating shows it', () => {
    const bomb = deflateSync(Buffer.alloc(64 * 2 ** 20)).toString('latin1')
    refuse(png(chunk('zTXt', `key\0\0${bomb}`)), /at most 16777216 bytes/)
    refuse(png(chunk('tEXt', `key\0${'a'.repeat(2 ** 24 + 1)}`)), /at most 16777216 bytes/)
  })

  it('changed bytes give a text, nothing, or BAD_FILE', () => {
    const file = png(
      chunk('tEXt', 'key\0text'),
      chunk('zTXt', `key\0\0${deflated('zipped')}`),
      chunk('iTXt', `key\0\x01\0\0\0${deflated('кот')}`),
    )
    const change = fc.record({ position: fc.nat(file.length - 1), value: fc.nat(255), cut: fc.nat(file.length) })
    fc.assert(
      fc.property(fc.array(change, { maxLength: 4 }), fc.boolean(), (changes, cutOff) => {
        let hostile = Buffer.from(file)
        for (const { position, value } of changes) hostile[position] = value
        if (cutOff && changes.length > 0) hostile = hostile.subarray(0, changes[0].cut)
        try {
          assert.ok(['text', undefined].includes(readTextChunk(hostile, 'key')))
        } catch (error) {
          assert.equal(error.code, 'BAD_FILE')
        }
      }),
      { numRuns: 1000 },
    )
  })
})

describe('recipes', () => {
  const recipe = {
    prompt: 'красный кот, 4k\nsecond line',
    negativePrompt: 'low quality',
    seed: 42,
    scheduler: 'DDPMScheduler',
    numInferenceSteps: 50,
    guidanceScale: 4,
    width: 768,
    height: 512,
    modelHash: 'abc',
    model: 'a, "quoted": name',
    more: { nested: [1, null, true] },
  }

  it('come back as they were', () => {
    assert.deepEqual(parseRecipe(addRecipe(png(), recipe)), recipe)
    assert.equal(parseRecipe(png()), undefined)
    const odd = { prompt: '\ud800 \0 lone' }
    assert.deepEqual(parseRecipe(addRecipe(png(), odd)), odd)
  })

  it('read as the usual parameters text', () => {
    assert.equal(
      readTextChunk(addRecipe(png(), recipe), 'parameters'),
      [
        'красный кот, 4k',
        'second line',
        'Negative prompt: low quality',
        'Steps: 50, Sampler: DDPMScheduler, CFG scale: 4, Seed: 42, Size: 768x512, Model: "a, \\"quoted\\": name", Model hash: abc',
      ].join('\n'),
    )
    assert.equal(readTextChunk(addRecipe(png(), {}), 'parameters'), undefined)
  })

  it('that JSON cannot hold are refused on writing, others on reading', () => {
    const cycle = {}
    cycle.self = cycle
    for (const value of [cycle, { seed: 1n }, 'text', null, undefined, [1]])
      assert.throws(() => addRecipe(png(), value), { code: 'INVALID_ARGUMENT' })
    for (const text of ['{', '[]', 'null', '7', ''])
      assert.throws(() => parseRecipe(insertTextChunks(png(), [{ keyword: 'kandinsky', text }])), badFile)
  })
})

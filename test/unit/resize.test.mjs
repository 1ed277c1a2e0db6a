// Resampling against bytes recorded from Pillow (scripts/reference/image_cases.py).
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { reducePixels, resizePixels } from '../../dist/images/resize.js'

const cases = JSON.parse(readFileSync(new URL('../fixtures/extra/image-cases.json', import.meta.url), 'utf8'))
const unpack = ({ mode, size, data }) => ({
  data: new Uint8Array(Buffer.from(data, 'base64')),
  width: size[0],
  height: size[1],
  channels: { L: 1, RGB: 3, RGBA: 4 }[mode],
})

describe('Pillow', () => {
  for (const { input, resample, reducingGap, output } of cases.resize) {
    const expected = unpack(output)
    const { width, height } = expected
    const gap = reducingGap === null ? '' : `, reducing_gap ${reducingGap}`
    it(`${input} to ${width}x${height}, ${resample}${gap}`, () => {
      const image = unpack(cases.inputs[input])
      assert.deepEqual(resizePixels(image, width, height, resample, reducingGap ?? undefined), expected)
    })
  }
})

describe('resizePixels', () => {
  const image = { data: Uint8Array.from({ length: 24 }, (_, i) => i * 10), width: 4, height: 2, channels: 3 }

  it('gives a copy when the size stays', () => {
    const same = resizePixels(image, 4, 2, 'bicubic', 1)
    assert.deepEqual(same, image)
    assert.notEqual(same.data, image.data)
  })

  it('leaves a flat image flat, whatever the size and the filter', () => {
    const side = fc.integer({ min: 1, max: 40 })
    const filter = fc.constantFrom('nearest', 'box', 'bilinear', 'hamming', 'bicubic', 'lanczos')
    const gap = fc.constantFrom(undefined, 1, 2.5)
    fc.assert(
      fc.property(
        side,
        side,
        side,
        side,
        filter,
        gap,
        fc.nat(255),
        (w, h, width, height, resample, reducingGap, level) => {
          const flat = { data: new Uint8Array(w * h).fill(level), width: w, height: h, channels: 1 }
          const { data } = resizePixels(flat, width, height, resample, reducingGap)
          assert.deepEqual(data, new Uint8Array(width * height).fill(level))
        },
      ),
    )
  })

  it('refuses impossible sizes and unknown filters', () => {
    const invalid = { code: 'INVALID_ARGUMENT' }
    for (const side of [0, -1, 1.5, NaN, Infinity, '2']) {
      assert.throws(() => resizePixels(image, side, 2, 'bicubic'), invalid)
      assert.throws(() => resizePixels(image, 2, side, 'bicubic'), invalid)
    }
    assert.throws(() => resizePixels(image, 2, 2, 'cubic'), invalid)
    assert.throws(() => resizePixels(image, 2, 2, 'toString'), invalid)
    assert.throws(() => resizePixels(image, 2, 2, 'bicubic', 0.5), invalid)
  })
})

it('reducePixels takes means of whole and of cut blocks', () => {
  const image = { data: Uint8Array.of(0, 10, 20, 30, 41, 50), width: 3, height: 2, channels: 1 }
  assert.deepEqual(reducePixels(image, 2, 2), { data: Uint8Array.of(20, 35), width: 2, height: 1, channels: 1 })
})

// Pictures to tensors and back, against arrays recorded from diffusers and transformers.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { gaussianBlur } from '../../dist/images/blur.js'
import { loadImage, RawImage } from '../../dist/images/image.js'
import {
  clipPreprocess,
  interpolateNearest,
  postprocess,
  preprocessImage,
  toRawImages,
} from '../../dist/images/processing.js'
import { prepareMask, prepareMaskAndMaskedImage } from '../../dist/images/processing-inpaint.js'
import { qwenPreprocess } from '../../dist/images/processing-qwen.js'
import { Tensor } from '../../dist/tensor.js'
import { readSafetensors } from '../helpers/safetensors.mjs'

const fixtures = new URL('../fixtures/', import.meta.url)
const traces = new URL('traces/image-processing/', fixtures)
const names = readdirSync(traces)
  .filter((file) => file.endsWith('.json'))
  .map((file) => file.slice(0, -'.json'.length))
const readTrace = (name) => ({
  ...JSON.parse(readFileSync(new URL(`${name}.json`, traces), 'utf8')),
  tensors: readSafetensors(new URL(`${name}.safetensors`, traces)),
})
const picture = (name) => fileURLToPath(new URL(`images/${name}`, fixtures))
const tensorOf = (entry) => new Tensor(Float32Array.from(entry.data), entry.shape)
const clipConfig = JSON.parse(
  readFileSync(new URL('checkpoints/kandinsky-2-2-prior/image_processor/preprocessor_config.json', fixtures), 'utf8'),
)

/** The largest difference is at most `tolerance`; the message names the place. */
function assertClose(actual, expected, tolerance, what) {
  assert.equal(actual.length, expected.length, `${what}: length`)
  let worst = 0
  for (let i = 0; i < expected.length; i++)
    if (!(Math.abs(actual[i] - expected[i]) <= Math.abs(actual[worst] - expected[worst]))) worst = i
  const difference = Math.abs(actual[worst] - expected[worst])
  assert.ok(difference <= tolerance, `${what}[${worst}] is ${actual[worst]} instead of ${expected[worst]}`)
}

/** Bytes [h, w, 3] behind a tensor [1, 3, h, w]. */
function bytesOf({ data, shape: [, channels, height, width] }, toByte) {
  const pixels = height * width
  return Uint8Array.from({ length: pixels * channels }, (_, i) =>
    Math.round(toByte(data[(i % channels) * pixels + Math.floor(i / channels)], i % channels)),
  )
}

/** The upper left corner of a tensor [1, c, h, w], as large as the recorded sample. */
function cornerOf({ data, shape: [, channels, height, width] }, [, , rows, columns]) {
  const out = []
  for (let channel = 0; channel < channels; channel++)
    for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) out.push(data[(channel * height + y) * width + x])
  return out
}

describe('preprocessImage', () => {
  for (const name of names.filter((file) => file.startsWith('vae-')))
    it(`${name}: equal to the byte`, async () => {
      const { image, height, width, tensors } = readTrace(name)
      const result = await preprocessImage(picture(image), { height, width })
      const { data, shape } = tensors.get('resized_uint8')
      assert.deepEqual(result.shape, [1, 3, shape[0], shape[1]])
      assert.deepEqual(
        bytesOf(result, (value) => ((value + 1) / 2) * 255),
        data,
      )
      const sample = tensors.get('value_sample')
      if (sample) assertClose(cornerOf(result, sample.shape), sample.data, 0, 'value_sample')
    })

  it('takes tensors in [0, 1] or, if a value is negative, in [-1, 1]', async () => {
    const [unit, signed] = [new Float32Array(3 * 64).fill(0.75), new Float32Array(3 * 64).fill(0.5)]
    signed[7] = -1
    const result = await preprocessImage([new Tensor(unit, [3, 8, 8]), new Tensor(signed, [1, 3, 8, 8])])
    assert.deepEqual(result.shape, [2, 3, 8, 8])
    assert.deepEqual(result.data, Float32Array.from([...new Float32Array(3 * 64).fill(0.5), ...signed]))
  })

  it('resizes tensors by nearest neighbours and returns latents as they are', async () => {
    const tensor = new Tensor(new Float32Array(3 * 16 * 8).fill(1), [1, 3, 16, 8])
    assert.deepEqual((await preprocessImage(tensor, { height: 24, width: 16 })).shape, [1, 3, 24, 16])
    const latents = new Tensor(new Float32Array(4 * 64).fill(7), [1, 4, 8, 8])
    assert.deepEqual((await preprocessImage(latents)).data, latents.data)
  })

  it('uses the pixels at the time of the call', async () => {
    const image = new RawImage(new Uint8Array(192).fill(255), 8, 8)
    const tensor = new Tensor(new Float32Array(192).fill(1), [3, 8, 8])
    const results = Promise.all([preprocessImage(image), preprocessImage(tensor)])
    image.data.fill(0)
    tensor.data.fill(0)
    for (const { data } of await results) assert.ok(data.every((value) => value === 1))
  })

  it('makes gray and alpha pictures RGB', async () => {
    const gray = new RawImage(new Uint8Array(64).fill(255), 8, 8, 1)
    const alpha = new RawImage(new Uint8Array(256).fill(255), 8, 8, 4)
    const result = await preprocessImage([gray, alpha])
    assert.deepEqual([...result.shape], [2, 3, 8, 8])
    assert.ok(result.data.every((value) => value === 1))
  })

  it('refuses values, shapes and sizes that cannot be meant', async () => {
    const invalid = { code: 'INVALID_ARGUMENT' }
    const tensor = (fill, shape) => new Tensor(new Float32Array(shape.reduce((a, b) => a * b)).fill(fill), shape)
    for (const fill of [255, Number.NaN, -3]) await assert.rejects(preprocessImage(tensor(fill, [3, 8, 8])), invalid)
    for (const shape of [
      [8, 8],
      [2, 8, 8],
      [1, 1, 3, 8, 8],
    ])
      await assert.rejects(preprocessImage(tensor(0, shape)), invalid)
    for (const width of [7, 0, -8, 8.5, Number.NaN])
      await assert.rejects(preprocessImage(tensor(0, [3, 8, 8]), { width }), invalid)
    await assert.rejects(preprocessImage([]), invalid)
    await assert.rejects(preprocessImage(7), invalid)
    const sizes = [tensor(0, [3, 8, 8]), tensor(0, [3, 8, 16])]
    await assert.rejects(preprocessImage(sizes), { code: 'SHAPE_MISMATCH' })
  })
})

describe('clipPreprocess', () => {
  for (const name of names.filter((file) => file.startsWith('clip-')))
    it(`${name}: equal to the byte`, async () => {
      const { image, size, tensors } = readTrace(name)
      const config = { ...clipConfig, size: { shortest_edge: size }, crop_size: { height: size, width: size } }
      const result = await clipPreprocess(picture(image), config)
      const { image_mean: mean, image_std: std } = config
      const bytes = bytesOf(result, (value, channel) => (value * std[channel] + mean[channel]) * 255)
      assert.deepEqual(bytes, tensors.get('cropped_uint8').data)
      const sample = tensors.get('pixel_values_sample')
      assertClose(cornerOf(result, sample.shape), sample.data, 0, 'pixel_values_sample')
    })

  it('leaves out what the config leaves out', async () => {
    const image = new RawImage(
      Uint8Array.from({ length: 18 }, (_, i) => i * 10),
      3,
      2,
    )
    const off = { do_resize: false, do_center_crop: false, do_rescale: false, do_normalize: false }
    const { data, shape } = await clipPreprocess(image, off)
    assert.deepEqual([...shape], [1, 3, 2, 3])
    assert.deepEqual([...data.subarray(0, 6)], [0, 30, 60, 90, 120, 150])
    const rescaled = await clipPreprocess(image, { ...off, do_rescale: true, rescale_factor: 0.5 })
    assert.equal(rescaled.data[5], 75)
    const normalized = await clipPreprocess(image, { ...off, do_normalize: true, image_mean: 10, image_std: 2 })
    assert.equal(normalized.data[1], 10)
  })

  it('pads a picture that is smaller than the crop with black', async () => {
    const image = new RawImage(new Uint8Array(3 * 2 * 3).fill(9), 3, 2)
    const config = { do_resize: false, crop_size: { height: 5, width: 2 }, do_rescale: false, do_normalize: false }
    const { data } = await clipPreprocess(image, config)
    assert.deepEqual([...data.subarray(0, 10)], [0, 0, 0, 0, 9, 9, 9, 9, 0, 0])
  })

  it('takes the older form of the config, with plain numbers', async () => {
    const { size, crop_size: _, ...rest } = clipConfig
    const image = picture('tiny_40x30.png')
    const result = await clipPreprocess(image, { ...rest, size: size.shortest_edge, crop_size: null })
    assert.deepEqual(result.data, (await clipPreprocess(image, clipConfig)).data)
  })

  it('refuses a bad config by name', async () => {
    const image = new RawImage(new Uint8Array(12), 2, 2)
    const refuse = (config, code, pattern) =>
      assert.rejects(clipPreprocess(image, config), (error) => error.code === code && pattern.test(error.message))
    await refuse({ size: 'large' }, 'BAD_FILE', /size/)
    await refuse({ crop_size: -1 }, 'BAD_FILE', /crop_size/)
    await refuse({ resample: 9 }, 'BAD_FILE', /resample/)
    await refuse({ image_mean: [1, 2] }, 'BAD_FILE', /image_mean/)
    await refuse({ do_pad: true }, 'UNSUPPORTED_MODEL', /do_pad/)
    const gray = new RawImage(new Uint8Array(4), 2, 2, 1)
    await assert.rejects(clipPreprocess(gray, { do_convert_rgb: false }), { code: 'INVALID_ARGUMENT' })
    await assert.rejects(clipPreprocess(new Tensor(new Float32Array(12), [3, 2, 2]), {}), { code: 'INVALID_ARGUMENT' })
  })
})

describe('inpainting', () => {
  for (const name of names.filter((file) => file.startsWith('inpaint-')))
    it(`${name}: equal`, async () => {
      const { image, mask_image, height, width, tensors } = readTrace(name)
      // the case with alpha resizes before it drops it
      const loaded = await loadImage(picture(image), { mode: image.startsWith('alpha') ? 'RGBA' : 'RGB' })
      const given = mask_image ? picture(mask_image) : tensorOf(tensors.get('input.mask'))
      const inputs = await prepareMaskAndMaskedImage(loaded, given, { height, width })
      assert.deepEqual(
        bytesOf(inputs.image, (value) => (value + 1) * 127.5),
        tensors.get('image_uint8').data,
      )
      assertClose(inputs.mask.data, tensors.get('mask').data, 0, 'mask')
      const latentMask = interpolateNearest(inputs.mask, height / 8, width / 8)
      assertClose(latentMask.data, tensors.get('latent_mask').data, 0, 'latent_mask')
      assertClose(prepareMask(latentMask).data, tensors.get('latent_mask_prepared').data, 0, 'latent_mask_prepared')
    })

  it('prepareMask grows every mask of a batch as recorded', () => {
    const { tensors } = readTrace('prepare-mask-random')
    const result = prepareMask(tensorOf(tensors.get('input.mask')))
    assertClose(result.data, tensors.get('output.mask').data, 0, 'output.mask')
  })

  it('takes tensors as they are and checks that they fit', async () => {
    const options = { height: 8, width: 8 }
    const image = new Tensor(new Float32Array(3 * 64).fill(-0.5), [3, 8, 8])
    const mask = (fill, shape) => new Tensor(new Float32Array(shape.reduce((a, b) => a * b)).fill(fill), shape)
    for (const shape of [
      [8, 8],
      [1, 8, 8],
      [1, 1, 8, 8],
    ]) {
      const inputs = await prepareMaskAndMaskedImage(image, mask(0.5, shape), options)
      assert.deepEqual([...inputs.mask.shape], [1, 1, 8, 8])
      assert.ok(inputs.mask.data.every((value) => value === 0))
      assert.deepEqual(inputs.image.data, image.data)
    }
    const mismatch = { code: 'SHAPE_MISMATCH' }
    await assert.rejects(prepareMaskAndMaskedImage(image, mask(1, [8, 16]), options), mismatch)
    await assert.rejects(prepareMaskAndMaskedImage(image, mask(1, [2, 8, 8]), options), mismatch)
    const invalid = { code: 'INVALID_ARGUMENT' }
    await assert.rejects(prepareMaskAndMaskedImage(image, mask(2, [8, 8]), options), invalid)
    await assert.rejects(prepareMaskAndMaskedImage(mask(2, [3, 8, 8]), mask(1, [8, 8]), options), invalid)
    await assert.rejects(prepareMaskAndMaskedImage(image, mask(1, [3, 3, 8, 8]), options), invalid)
  })
})

describe('interpolateNearest', () => {
  it('repeats and skips as torch does', () => {
    const row = (...values) => new Tensor(Float32Array.from(values), [1, 1, 1, values.length])
    assert.deepEqual([...interpolateNearest(row(0, 1, 2), 1, 7).data], [0, 0, 0, 1, 1, 2, 2])
    assert.deepEqual([...interpolateNearest(row(0, 1, 2, 3, 4, 5, 6), 1, 3).data], [0, 2, 4])
  })
})

describe('postprocess and toRawImages', () => {
  const { tensors } = readTrace('postprocess')
  const floats = postprocess(tensorOf(tensors.get('input.decoded')))

  it('values equal', () => {
    assert.deepEqual([...floats.shape], tensors.get('output.floats').shape)
    assertClose(floats.data, tensors.get('output.floats').data, 0, 'output.floats')
  })

  it('bytes equal', () => {
    const bytes = toRawImages(floats).flatMap(({ data }) => [...data])
    assertClose(bytes, tensors.get('output.bytes').data, 0, 'output.bytes')
  })

  it('rounds half to even and clamps', () => {
    const values = [0.5 / 255, 1.5 / 255, 2.5 / 255, 1.2, -0.2, Number.NaN]
    const [image] = toRawImages(new Tensor(Float32Array.from(values), [1, 1, 2, 3]))
    assert.deepEqual([...image.data], [0, 2, 2, 255, 0, 0])
    assert.deepEqual([image.width, image.height, image.channels], [2, 1, 3])
  })

  it('undoes preprocessing', async () => {
    const image = await loadImage(picture('gradient_64x64.png'))
    const [back] = toRawImages(postprocess(await preprocessImage(image)))
    assert.deepEqual(back.data, image.data)
  })

  it('refuses other shapes', () => {
    const flat = new Tensor(new Float32Array(3), [3])
    assert.throws(() => postprocess(flat), { code: 'SHAPE_MISMATCH' })
    assert.throws(() => toRawImages(flat), { code: 'SHAPE_MISMATCH' })
    assert.throws(() => toRawImages(new Tensor(new Float32Array(2), [1, 1, 1, 2])), { code: 'INVALID_ARGUMENT' })
  })
})

it('an array mask beside a picture may have another size; beside a tensor it may not', async () => {
  const picture = new RawImage(new Uint8Array(96 * 96 * 3).fill(9), 96, 96)
  const white = new Tensor(new Float32Array(96 * 96).fill(1), [96, 96])
  const { image, mask } = await prepareMaskAndMaskedImage(picture, white, { height: 64, width: 64 })
  assert.deepEqual(
    [image.shape, mask.shape],
    [
      [1, 3, 64, 64],
      [1, 1, 96, 96],
    ],
  )
  const tensor = new Tensor(new Float32Array(3 * 64 * 64), [3, 64, 64])
  const given = prepareMaskAndMaskedImage(tensor, white, { height: 64, width: 64 })
  await assert.rejects(given, { code: 'SHAPE_MISMATCH', message: /\[1, 1, 64, 64\]/ })
})

it('a blurred step is the integral of a Gaussian, and what is even stays', () => {
  // A deviation that running means have exactly: radius 6.
  const [width, height, sigma] = [101, 7, Math.sqrt(42)]
  const blurred = (data, by) => gaussianBlur({ data, width, height, channels: 1 }, by)
  const step = Uint8Array.from({ length: width * height }, (_, i) => (i % width >= 50 ? 255 : 0))
  const integral = (end) => {
    let sum = 0
    for (let x = -6; x < end; x += 0.01) sum += (Math.exp((-x * x) / 2) * 0.01) / Math.sqrt(2 * Math.PI)
    return sum
  }
  for (const [i, value] of blurred(step, sigma).entries()) {
    const expected = 255 * integral(((i % width) - 49.5) / sigma)
    assert.ok(Math.abs(value - expected) < 5, `column ${i % width}: ${value} instead of ${expected}`)
  }
  const even = new Uint8Array(width * height).fill(200)
  assert.deepEqual(blurred(even, sigma), even)
  assert.deepEqual(blurred(step, 0), step)
})

describe('pictures for Kandinsky 5', () => {
  const sizes = { patch: 14, merge: 2, frames: 2 }
  const config = JSON.parse(
    readFileSync(new URL('checkpoints/kandinsky-5-i2i/tokenizer/preprocessor_config.json', fixtures), 'utf8'),
  )
  // Palettes are colours once a picture is decoded: Pillow would halve them by nearest neighbours.
  for (const name of names.filter((one) => one.startsWith('qwen-') && !one.includes('palette')))
    it(`${name}: halved, in patches as Qwen2VLImageProcessor makes them`, async () => {
      const { image, tensors } = readTrace(name)
      const mode = name.includes('gray') ? 'L' : 'RGB'
      const seen = qwenPreprocess(await loadImage(picture(image), { mode }), config, sizes, 16384)
      assert.deepEqual([1, seen.rows, seen.columns], [...tensors.get('image_grid_thw').data].map(Number))
      assert.equal(seen.tokens, (seen.rows * seen.columns) / 4)
      const expected = tensors.get('pixel_values') // the first rows
      assertClose(seen.pixelValues.data.subarray(0, expected.data.length), expected.data, 1e-6, name)
    })

  for (const name of names.filter((one) => one.startsWith('k5-vae-')))
    it(`${name}: stretched by Lanczos as VaeImageProcessor does`, async () => {
      const { image, width, height, tensors } = readTrace(name)
      const resized = (await loadImage(picture(image))).resize(width, height, 'lanczos')
      assert.deepEqual(resized.data, Uint8Array.from(tensors.get('resized_uint8').data))
    })

  it('a picture with more tokens than there is room for is shrunk', () => {
    const large = new RawImage(new Uint8Array(3 * 1800 * 1800), 1800, 1800)
    assert.equal(qwenPreprocess(large, config, sizes, 4096).tokens, 32 * 32)
    assert.ok(qwenPreprocess(large, config, sizes, 1000).tokens <= 1000)
    assert.throws(() => qwenPreprocess(large, config, sizes, 3), /tokens/)
  })

  it('lines are refused', () => {
    assert.throws(() => qwenPreprocess(new RawImage(new Uint8Array(3), 1, 1), config, sizes, 100), /2 pixels/)
    assert.throws(() => qwenPreprocess(new RawImage(new Uint8Array(3 * 2 * 900), 2, 900), config, sizes, 100), /ratio/)
  })
})

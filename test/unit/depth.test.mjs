// Depth estimation against runs of transformers recorded with a tiny DPT (scripts/reference/depth_cases.py).
import assert from 'node:assert/strict'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { openCheckpoint } from '../../dist/checkpoint/open.js'
import { interpolateBicubic } from '../../dist/images/processing.js'
import { depthImage, dptPreprocess } from '../../dist/images/processing-depth.js'
import { convert, DepthEstimator, loadImage, makeHint, RawImage, Tensor } from '../../dist/index.js'
import { fixtures, tensorOf } from '../helpers/cases.mjs'
import { assertClose } from '../helpers/compare.mjs'
import { temporaryFolder } from '../helpers/files.mjs'
import { readSafetensors } from '../helpers/safetensors.mjs'

const folder = path.join(fixtures, 'depth')
const source = path.join(folder, 'dpt')
const recorded = readSafetensors(path.join(folder, 'pipeline.safetensors'))
const pictures = [...new Set([...recorded.keys()].map((key) => key.split('/')[0]))]
const pictureFile = (name) => path.join(fixtures, 'images', `${name}.png`)
const cpu = { device: 'cpu', threads: 1 }

/** A depth estimator that is disposed after the test `t`. */
async function load(t, from, options) {
  const estimator = await DepthEstimator.fromPretrained(from, { ...cpu, ...options })
  t.after(() => estimator.dispose())
  return estimator
}

/** A gray picture that gets brighter from pixel to pixel. */
const ramp = (width, height) =>
  new RawImage(
    Uint8Array.from({ length: width * height }, (_, i) => i),
    width,
    height,
    1,
  )

/** A copy of the tiny checkpoint with other entries in one of its JSON files. */
function changedCopy(t, file, entries) {
  const copy = path.join(temporaryFolder(t), 'dpt')
  cpSync(source, copy, { recursive: true })
  const target = path.join(copy, file)
  writeFileSync(target, JSON.stringify({ ...JSON.parse(readFileSync(target, 'utf8')), ...entries }))
  return copy
}

test('bicubic interpolation of a map is that of torch', () => {
  const cases = readSafetensors(path.join(folder, 'bicubic.safetensors'))
  const names = [...cases.keys()].filter((key) => key.endsWith('/output')).map((key) => key.split('/')[0])
  assert.equal(names.length, 5)
  for (const name of names) {
    const expected = tensorOf(cases.get(`${name}/output`))
    const [, , height, width] = expected.shape
    assertClose(name, interpolateBicubic(tensorOf(cases.get(`${name}/input`)), height, width), expected, 2e-6)
  }
})

test('pictures are resized to what the image processor of transformers chooses', async () => {
  for (const { height, width, config, result } of JSON.parse(readFileSync(path.join(folder, 'sizes.json'), 'utf8'))) {
    const { shape } = await dptPreprocess(ramp(width, height), config)
    assert.deepEqual(shape, [1, 3, ...result], `${width}x${height} with ${JSON.stringify(config)}`)
  }
})

test('pictures are preprocessed as by transformers', async () => {
  const config = JSON.parse(readFileSync(path.join(source, 'preprocessor_config.json'), 'utf8'))
  assert.equal(pictures.length, 3)
  for (const name of pictures) {
    const pixels = await dptPreprocess(await loadImage(pictureFile(name)), config)
    assertClose(name, pixels, recorded.get(`${name}/pixel_values`), 1e-6)
  }
})

test('depth is that of the depth-estimation pipeline of transformers, with the size of the picture', async (t) => {
  const estimator = await load(t, source, { weights: 'f32' })
  for (const name of pictures) {
    const { predictedDepth, depth } = await estimator.estimate(pictureFile(name))
    const expected = recorded.get(`${name}/predicted_depth`)
    assertClose(name, predictedDepth, { data: expected.data, shape: [1, ...expected.shape] }, 1e-5)
    const bytes = recorded.get(`${name}/depth`)
    assert.deepEqual([depth.height, depth.width, depth.channels], [...bytes.shape, 1], name)
    // Bytes are cut off, so that the last digit of a float can move one by a level.
    const differing = depth.data.filter((byte, i) => Math.abs(byte - bytes.data[i]) > 1)
    assert.equal(differing.length, 0, `${name}: bytes that differ by more than 1`)
    assert.deepEqual([Math.min(...depth.data), Math.max(...depth.data)], [0, 255], name)
  }
})

test('a depth estimator becomes a .gguf file and gives the same depth', async (t) => {
  const output = path.join(temporaryFolder(t), 'depth.gguf')
  const { components } = await convert(source, output)
  assert.deepEqual(components, ['depth_estimator'])
  const checkpoint = await openCheckpoint(output)
  assert.deepEqual(await checkpoint.texts(), ['preprocessor_config.json'])
  assert.deepEqual((await checkpoint.component('depth_estimator')).config.reassemble_factors, [4, 2, 1, 0.5])
  const folderEstimator = await load(t, source)
  const fileEstimator = await load(t, output)
  const image = pictureFile(pictures[0])
  const [expected, actual] = [await folderEstimator.estimate(image), await fileEstimator.estimate(image)]
  assertClose('predictedDepth', actual.predictedDepth, expected.predictedDepth, 1e-6)
})

test('every weight type gives about the same depth, from a folder as from a file of that type', async (t) => {
  const image = pictureFile('gray_80x80')
  const { data: exact } = recorded.get('gray_80x80/predicted_depth')
  const norm = Math.hypot(...exact)
  for (const [weights, allowed] of Object.entries({ f32: 1e-5, f16: 1e-2, q8_0: 0.05 })) {
    const output = path.join(temporaryFolder(t), `${weights}.gguf`)
    await convert(source, output, { weights })
    for (const given of [source, output]) {
      const estimator = await load(t, given, { weights })
      const { predictedDepth } = await estimator.estimate(image)
      const error = Math.hypot(...predictedDepth.data.map((value, i) => value - exact[i])) / norm
      assert.ok(error <= allowed, `${weights}: relative error ${error}, allowed is ${allowed}`)
    }
  }
})

test('pictures keep their proportions where the image processor says so', async (t) => {
  const copy = changedCopy(t, 'preprocessor_config.json', { keep_aspect_ratio: true, ensure_multiple_of: 16 })
  const estimator = await load(t, copy)
  const { predictedDepth } = await estimator.estimate(pictureFile('shapes_96x64'))
  assert.deepEqual(predictedDepth.shape, [1, 64, 96])
})

test('loading reports progress and both loading and estimating can be aborted', async (t) => {
  const events = []
  const estimator = await load(t, source, {
    ...cpu,
    onProgress: (event) => events.push(event),
  })
  const { done, total, ...last } = events.at(-1)
  assert.deepEqual(last, { type: 'load', name: 'depth_estimator' })
  assert.equal(done, total)
  const signal = AbortSignal.abort(new Error('enough'))
  await assert.rejects(DepthEstimator.fromPretrained(source, { ...cpu, signal }), /enough/)
  await assert.rejects(estimator.estimate(ramp(8, 8), { signal }), /enough/)
})

test('what is no depth estimator is refused', async (t) => {
  const decoder = path.join(fixtures, 'checkpoints/kandinsky-2-2-decoder')
  const refused = [
    [decoder, { code: 'UNSUPPORTED_MODEL', message: /Expected a DPTForDepthEstimation/ }],
    [path.join(decoder, 'unet'), { code: 'UNSUPPORTED_MODEL', message: /holds a single network/ }],
    [changedCopy(t, 'config.json', { is_hybrid: true }), { code: 'UNSUPPORTED_MODEL', message: /is_hybrid/ }],
    [changedCopy(t, 'config.json', { backbone_out_indices: null }), { code: 'UNSUPPORTED_MODEL', message: /backbone/ }],
    [changedCopy(t, 'config.json', { hidden_size: 64 }), { code: 'SHAPE_MISMATCH', message: /cls_token/ }],
  ]
  for (const [given, error] of refused) await assert.rejects(DepthEstimator.fromPretrained(given, cpu), error)
  for (const option of ['scheduler', 'offload'])
    await assert.rejects(DepthEstimator.fromPretrained(source, { [option]: 'ddim' }), {
      code: 'INVALID_ARGUMENT',
      message: new RegExp(`Unknown option ${option}`),
    })
})

test('an image processor with other steps or sizes that are none is refused', async () => {
  const refuse = (config, code, message) =>
    assert.rejects(dptPreprocess(ramp(40, 30), config), { code, message }, JSON.stringify(config))
  await refuse({ do_pad: true, size_divisor: 32 }, 'UNSUPPORTED_MODEL', /do_pad/)
  await refuse({ size: { shortest_edge: 384 } }, 'BAD_FILE', /size/)
  await refuse({ size: 0 }, 'BAD_FILE', /size/)
  await refuse({ ensure_multiple_of: 0.5 }, 'BAD_FILE', /ensure_multiple_of/)
  await refuse({ resample: 9 }, 'BAD_FILE', /resample/)
})

test('a depth map becomes gray from its smallest to its largest value', () => {
  const { data, width, height, channels } = depthImage(new Tensor(Float32Array.of(-1, 0, 1, 3), [1, 1, 4]))
  assert.deepEqual([...data, width, height, channels], [0, 63, 127, 255, 4, 1, 1])
  const flat = depthImage(new Tensor(Float32Array.of(7, 7), [2, 1]))
  assert.deepEqual([...flat.data], [0, 0])
  const broken = [
    [new Tensor(Float32Array.of(0, Number.NaN), [1, 1, 2]), 'INVALID_ARGUMENT'],
    [new Tensor(new Float32Array(8), [2, 2, 2]), 'SHAPE_MISMATCH'],
    [new Tensor(new Float32Array(8), [8]), 'SHAPE_MISMATCH'],
    [new Tensor(new Float32Array(0), [1, 0, 4]), 'SHAPE_MISMATCH'],
  ]
  for (const [map, code] of broken) assert.throws(() => depthImage(map), { code }, `[${map.shape}]`)
})

test('makeHint: the bytes of a depth map / 255 in three channels', async () => {
  const hint = await makeHint(new RawImage(Uint8Array.of(0, 51, 102, 255), 2, 2, 1))
  assert.deepEqual(hint.shape, [1, 3, 2, 2])
  const plane = [0, 51, 102, 255].map((byte) => Math.fround(byte / 255))
  assert.deepEqual([...hint.data], [...plane, ...plane, ...plane])
})

test('makeHint takes the size of the picture to be made, which pipelines round up to multiples of 64', async () => {
  const depth = ramp(96, 64)
  assert.deepEqual((await makeHint(depth, { height: 100, width: 65 })).shape, [1, 3, 128, 128])
  assert.deepEqual((await makeHint(depth, { width: 64 })).shape, [1, 3, 64, 64])
  const invalid = { code: 'INVALID_ARGUMENT' }
  await assert.rejects(makeHint(depth, { height: 0 }), invalid)
  await assert.rejects(makeHint(depth, { size: 64 }), invalid)
  await assert.rejects(makeHint(undefined), invalid)
})

test('makeHint makes the same of a predicted depth, of its picture and of a file with that', async (t) => {
  const estimator = await load(t, source)
  const { predictedDepth, depth } = await estimator.estimate(pictureFile('gray_80x80'))
  const file = path.join(temporaryFolder(t), 'depth.png')
  await depth.save(file)
  const expected = await makeHint(depth, { height: 128, width: 128 })
  for (const given of [predictedDepth, file])
    assert.deepEqual(await makeHint(given, { height: 128, width: 128 }), expected)
})

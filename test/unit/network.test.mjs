import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import { openCheckpoint } from '../../dist/checkpoint/open.js'
import { listDevices, resolveDevice } from '../../dist/networks/devices.js'
import { NetworkGroup } from '../../dist/networks/group.js'
import { Network } from '../../dist/networks/network.js'

const fixtures = path.resolve(import.meta.dirname, '../fixtures')
const checkpoint = await openCheckpoint(path.join(fixtures, 'checkpoints/kandinsky-2-2-prior'))
const prior = await checkpoint.component('prior')
const textEncoder = await checkpoint.component('text_encoder')
const onCpu = { device: 'cpu', threads: 1 }

const latents = { data: new Float32Array(128).fill(0.5), shape: [1, 128] }
/** A small call: a linear rescaling by clip_mean and clip_std. */
const postProcess = (model, options) => model.run('post_process', { latents }, options)
/** A longer call. */
const encode = (model, { texts = 16, ...options } = {}) => {
  const data = Int32Array.from({ length: 77 * texts }, (_, i) => i % 77)
  return model.run('forward', { input_ids: { data, shape: [texts, 77] } }, options)
}

test('devices are named, and the default is one of them', () => {
  const names = listDevices().map(({ name }) => name)
  assert.ok(names.includes('cpu'))
  assert.ok(names.includes(resolveDevice()))
  assert.equal(resolveDevice('cpu'), 'cpu')
  assert.throws(() => resolveDevice('cuda:99'), { code: 'DEVICE_UNAVAILABLE', message: /cpu.*"cuda:99"/ })
  for (const device of ['gpu', '', 'cuda:', 'CPU', 3, null])
    assert.throws(() => resolveDevice(device), { code: 'INVALID_ARGUMENT', message: /device/ })
})

test('bad options are refused before anything is loaded', () => {
  for (const threads of [0, -1, 1.5, NaN, '2', 1e9])
    assert.throws(() => new Network(prior, { threads }), { code: 'INVALID_ARGUMENT', message: /threads/ })
  for (const packing of ['loose', 1, null])
    assert.throws(() => new Network(prior, { packing }), { code: 'INVALID_ARGUMENT', message: /'compact' or 'fast'/ })
  assert.throws(() => new Network(prior, { weights: 'int8' }), { code: 'INVALID_ARGUMENT', message: /weights/ })
})

test('a network loads when it first runs, or when it is told to', async () => {
  const model = new Network(prior, onCpu)
  assert.deepEqual(model.memory(), { weights: 0, compute: 0 })
  const { image_embeds: result } = await postProcess(model)
  assert.deepEqual(result.shape, [1, 128])
  assert.ok(model.memory().weights > 0)
  await model.unload()
  assert.deepEqual(model.memory(), { weights: 0, compute: 0 })
  const progress = []
  await model.load({ onProgress: (done, total) => progress.push([done, total]) })
  assert.equal(progress.at(-1)[0], progress.at(-1)[1])
  await model.dispose()
})

test('quantized weights take less memory', async () => {
  const sizes = []
  for (const weights of ['f32', 'f16', 'q8_0', 'q4_0']) {
    const model = new Network(prior, { ...onCpu, weights })
    await model.load()
    sizes.push(model.memory().weights)
    await model.dispose()
  }
  assert.deepEqual(
    sizes,
    sizes.toSorted((a, b) => b - a),
  )
  assert.ok(sizes[3] < 0.4 * sizes[1], `q4_0 takes ${sizes[3]} bytes, f16 ${sizes[1]}`)
})

test('weights packed fast are freed at the end of a stage and packed again for the next', async () => {
  const [compact, fast] = ['compact', 'fast'].map((packing) => new Network(prior, { ...onCpu, packing }))
  const inputs = {
    hidden_states: { data: new Float32Array(128).fill(0.1), shape: [1, 128] },
    proj_embedding: { data: new Float32Array(128).fill(0.2), shape: [1, 128] },
    encoder_hidden_states: { data: new Float32Array(77 * 128).fill(0.3), shape: [1, 77, 128] },
    attention_mask: { data: new Int32Array(77).fill(1), shape: [1, 77] },
    timestep: { data: new Float32Array([500]), shape: [1] },
  }
  const run = async (model) => (await model.run('forward', inputs)).predicted_image_embedding.data
  const expected = await run(compact)
  const stored = compact.memory().weights
  for (let stage = 0; stage < 2; stage++) {
    assert.deepEqual(await run(fast), expected)
    assert.ok(fast.memory().weights > 1.5 * stored, `${fast.memory().weights} bytes, stored ${stored}`)
    await fast.releaseWeights()
    assert.equal(fast.memory().weights, stored)
  }
  await Promise.all([compact.dispose(), fast.dispose()])
})

test('calls on one network queue and give each its own result', async () => {
  const model = new Network(textEncoder, onCpu)
  const ids = (first) => ({ data: Int32Array.from({ length: 77 }, (_, i) => first + i), shape: [1, 77] })
  const run = (first) => model.run('forward', { input_ids: ids(first) })
  const alone = []
  for (const first of [1, 2, 3]) alone.push(await run(first))
  assert.deepEqual(await Promise.all([1, 2, 3].map(run)), alone)
  await model.dispose()
})

test('an abort stops a call before, while it waits and while it runs; others go on', async () => {
  const model = new Network(textEncoder, onCpu)
  const reason = new Error('enough')
  await assert.rejects(encode(model, { signal: AbortSignal.abort(reason) }), reason)
  const expected = await encode(model)
  const [running, waiting] = [new AbortController(), new AbortController()]
  const calls = [
    encode(model, { texts: 1000, signal: running.signal }),
    encode(model, { signal: waiting.signal }),
    encode(model, { signal: new AbortController().signal }),
  ]
  waiting.abort(reason)
  await assert.rejects(calls[1], reason)
  running.abort(reason)
  await assert.rejects(calls[0], reason)
  assert.deepEqual(await calls[2], expected)
  await model.dispose()
})

test('an aborted load leaves the network usable', async () => {
  const model = new Network(prior, { ...onCpu, weights: 'q4_0' })
  const controller = new AbortController()
  const reason = new Error('enough')
  const loading = model.load({ signal: controller.signal })
  controller.abort(reason)
  await assert.rejects(loading, reason)
  assert.ok((await postProcess(model)).image_embeds)
  await model.dispose()
})

test('networks of a group take turns: only the one that ran last holds memory', async () => {
  const group = new NetworkGroup()
  const models = [prior, textEncoder].map((component) => new Network(component, { ...onCpu, group }))
  const [first, second] = models
  const results = await Promise.all([postProcess(first), encode(second), postProcess(first), encode(second)])
  assert.deepEqual(results[0], results[2])
  assert.deepEqual(results[1], results[3])
  assert.deepEqual(first.memory(), { weights: 0, compute: 0 })
  assert.ok(second.memory().weights > 0)
  await Promise.all(models.map((model) => model.dispose()))
  assert.deepEqual(second.memory(), { weights: 0, compute: 0 })
})

test('dispose waits for the running call, later calls are refused', async () => {
  const model = new Network(textEncoder, onCpu)
  const running = encode(model)
  await model.load()
  const disposed = model.dispose()
  await assert.rejects(encode(model), { code: 'DISPOSED', message: /text_encoder/ })
  assert.ok((await running).text_embeds)
  await disposed
  await model.dispose()
  assert.deepEqual(model.memory(), { weights: 0, compute: 0 })
})

test('wrong inputs are errors that leave the network usable', async () => {
  const model = new Network(prior, onCpu)
  await assert.rejects(model.run('no_such_method', { latents }), { code: 'INVALID_ARGUMENT' })
  await assert.rejects(model.run('post_process', {}), { code: 'INVALID_ARGUMENT', message: /latents/ })
  const wrong = { data: new Float32Array(3), shape: [1, 3] }
  await assert.rejects(model.run('post_process', { latents: wrong }), { code: 'SHAPE_MISMATCH', message: /latents/ })
  assert.ok((await postProcess(model)).image_embeds)
  await model.dispose()
})

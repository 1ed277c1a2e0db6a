// Weights that a checkpoint may lack: what describes a network and what loads it agree.
import assert from 'node:assert/strict'
import test from 'node:test'
import { openCheckpoint } from '../../dist/checkpoint/open.js'
import { Network } from '../../dist/networks/network.js'
import { checkpoint } from '../helpers/cases.mjs'

const opened = await openCheckpoint(checkpoint('kandinsky-2-2-prior'))

test('a prior without its prd embedding loads and runs with one token less', async () => {
  const component = await opened.component('prior')
  const without = {
    ...component,
    config: { ...component.config, additional_embeddings: 3 },
    tensors: component.tensors
      .filter(({ name }) => name !== 'prd_embedding')
      .map((tensor) =>
        tensor.name === 'positional_embedding'
          ? { ...tensor, shape: [1, 80, tensor.shape[2]], bytes: (tensor.bytes / 81) * 80 }
          : tensor,
      ),
  }
  const network = new Network(without, { device: 'cpu', threads: 1 })
  const text = (...shape) => ({ data: new Float32Array(shape.reduce((a, b) => a * b)).fill(0.1), shape })
  const { predicted_image_embedding: predicted } = await network.run('forward', {
    hidden_states: text(1, 128),
    timestep: text(1),
    proj_embedding: text(1, 128),
    encoder_hidden_states: text(1, 77, 128),
    attention_mask: { data: new Int32Array(77).fill(1), shape: [1, 77] },
  })
  assert.deepEqual(predicted.shape, [1, 128])
  assert.ok(predicted.data.every(Number.isFinite))
  await network.dispose()
})

test('a prior that says it has the token but lacks the weight is refused', async () => {
  const component = await opened.component('prior')
  const without = { ...component, tensors: component.tensors.filter(({ name }) => name !== 'prd_embedding') }
  const network = new Network(without, { device: 'cpu', threads: 1 })
  await assert.rejects(network.load(), { code: 'UNSUPPORTED_MODEL', message: /additional_embeddings/ })
})

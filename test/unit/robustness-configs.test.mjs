// No config ends the process: ggml answers what it did not expect with an abort, so every value is checked before.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { parseConfig } from '../../dist/checkpoint/repository.js'
import { binding } from '../../dist/native.js'
import { checkpoint } from '../helpers/cases.mjs'
import { root } from '../helpers/native.mjs'

const configOf = (folder) => {
  const file = path.join(checkpoint(folder), 'config.json')
  return parseConfig(readFileSync(file, 'utf8'), file)
}
const networks = {
  'kandinsky-2-2-prior/text_encoder': 'CLIPTextModelWithProjection',
  'kandinsky-2-2-prior/image_encoder': 'CLIPVisionModelWithProjection',
  'kandinsky-2-2-prior/prior': 'PriorTransformer',
  'kandinsky-2-2-decoder/unet': 'UNet2DConditionModel',
  'kandinsky-2-2-controlnet-depth/unet': 'UNet2DConditionModel',
  'kandinsky-2-1/unet': 'UNet2DConditionModel',
  'kandinsky-2-2-decoder/movq': 'VQModel',
  'kandinsky-2-1/text_encoder': 'MultilingualCLIP',
}

for (const [folder, className] of Object.entries(networks))
  test(`a wrong value in the config of ${folder} is refused or computes something`, () => {
    const job = { className, config: configOf(folder), runs: 60, seed: 7 }
    const script = path.join(root, 'test/helpers/fuzz-networks.mjs')
    const { status, signal, stdout, stderr } = spawnSync(process.execPath, [script, JSON.stringify(job)], {
      encoding: 'utf8',
    })
    const last = stdout.trimEnd().split('\n').at(-1)
    assert.ok(status === 0, `ended with ${signal ?? status} at ${last}\n${stderr}`)
  })

const unet = 'kandinsky-2-2-decoder/unet'
const movq = 'kandinsky-2-2-decoder/movq'
const prior = 'kandinsky-2-2-prior/prior'
const textEncoder = 'kandinsky-2-2-prior/text_encoder'
/** [network, the change, what the message must name] */
const refused = [
  [unet, { block_out_channels: [32, 64, 0, 128] }, /block_out_channels but received 0/],
  [unet, { block_out_channels: Array(17).fill(32) }, /block_out_channels but received 17/],
  [unet, { down_block_types: ['SimpleCrossAttnDownBlock2D'] }, /4 values for down_block_types but received 1/],
  [unet, { up_block_types: Array(4).fill('UpBlock2D') }, /up_block_types but received "UpBlock2D"/],
  [unet, { norm_num_groups: 7 }, /norm_num_groups but received 7/],
  [unet, { norm_num_groups: 2 ** 31 }, /norm_num_groups/],
  [unet, { norm_eps: -1e-5 }, /norm_eps but received -1e-05/],
  [unet, { attention_head_dim: 7 }, /attention_head_dim but received 7/],
  [unet, { attention_head_dim: 0 }, /attention_head_dim but received 0/],
  [unet, { layers_per_block: 2 ** 20 }, /1024 for layers_per_block/],
  [unet, { act_fn: 'mish' }, /act_fn but received "mish"/],
  [unet, { addition_embed_type: 'text' }, /addition_embed_type but received "text"/],
  [unet, { class_embed_type: 'timestep' }, /class_embed_type/],
  [movq, { norm_type: 'batch' }, /norm_type but received "batch"/],
  [movq, { vq_embed_dim: 8 }, /vq_embed_dim/],
  [prior, { num_attention_heads: 0 }, /num_attention_heads but received 0/],
  [prior, { num_layers: 1e9 }, /1024 for num_layers/],
  [prior, { added_emb_type: null }, /added_emb_type|prd/],
  [
    textEncoder,
    { num_attention_heads: 5 },
    /text_model\.encoder\.layers\.0\.self_attn: .*attention heads but received 5/,
  ],
  [textEncoder, { hidden_act: 'relu' }, /hidden_act but received "relu"/],
  [textEncoder, { hidden_size: 2 ** 40 }, /hidden_size/],
  [textEncoder, { layer_norm_eps: Number.NaN }, /layer_norm_eps but received NaN/],
]
for (const [folder, change, message] of refused)
  test(`${folder} with ${JSON.stringify(change).slice(0, 60)} is refused by that name`, () => {
    const config = { ...configOf(folder), ...change }
    assert.throws(() => binding().describeNetwork(networks[folder], 'part', config), {
      name: 'KandinskyError',
      message,
    })
  })

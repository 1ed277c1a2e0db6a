// What a LoRA costs in a UNet or a prior: beside the matrices and merged into them, in time per step and bytes.
//   node bench/lora.mjs unet.gguf [--size 512] [--ranks 4,64] [--rounds 3]     (scripts/random-checkpoint.mjs makes one)
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { readLoraFile } from '../dist/checkpoint/lora-file.js'
import { openCheckpoint } from '../dist/checkpoint/open.js'
import { matchLora } from '../dist/networks/lora.js'
import { Network } from '../dist/networks/network.js'
import { Generator } from '../dist/random.js'
import { Tensor } from '../dist/tensor.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    size: { type: 'string', default: '512' },
    ranks: { type: 'string', default: '4,64' },
    rounds: { type: 'string', default: '3' },
  },
})
const checkpoint = await openCheckpoint(positionals[0])
const [name] = await checkpoint.components()
const model = new Network(await checkpoint.component(name))
const noise = new Generator(0)
const side = Number(values.size) / 8
const timestep = new Tensor(new Float32Array([500]), [1])
const inputs =
  name === 'prior'
    ? {
        timestep,
        hidden_states: noise.randn([2, 1280]),
        proj_embedding: noise.randn([2, 1280]),
        encoder_hidden_states: noise.randn([2, 77, 1280]),
        attention_mask: { data: new Int32Array(154).fill(1), shape: [2, 77] },
      }
    : { timestep, sample: noise.randn([2, 4, side, side]), image_embeds: noise.randn([2, 1280]) }
const folder = mkdtempSync(path.join(tmpdir(), 'kandinsky-lora-'))

/** Random values for every projection of every attention, as the training scripts of Kandinsky 2.2 save them. */
function writeLora(rank) {
  const header = {}
  const parts = []
  let offset = 0
  const add = (key, shape, scale) => {
    const { data } = noise.randn(shape)
    const bytes = Buffer.from(data.map((value) => value * scale).buffer)
    header[key] = { dtype: 'F32', shape, data_offsets: [offset, offset + bytes.length] }
    parts.push(bytes)
    offset += bytes.length
  }
  for (const { name: weight, shape } of model.specs()) {
    const module = /^(.*\.(?:to_[qkv]|to_out\.0|add_[kv]_proj))\.weight$/.exec(weight)?.[1]
    if (!module) continue
    add(`${module}.lora_A.weight`, [rank, shape[1]], 1 / Math.sqrt(shape[1]))
    add(`${module}.lora_B.weight`, [shape[0], rank], 0.1 / Math.sqrt(rank))
  }
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  const file = path.join(folder, `rank-${rank}.safetensors`)
  writeFileSync(file, Buffer.concat([length, json, ...parts]))
  return file
}

const variants = [['none', undefined, 'off']]
for (const rank of values.ranks.split(',').map(Number)) {
  const lora = await readLoraFile(writeLora(rank))
  const [layers] = matchLora(lora, [{ name, specs: model.specs() }])
  for (const state of ['on', 'fused'])
    variants.push([`rank ${rank}, ${state === 'on' ? 'beside' : 'merged'}`, layers, state, lora.hash])
}
const results = new Map(
  variants.map(([label]) => [label, { ms: Infinity, cpu_ms: Infinity, weights: 0, set_ms: Infinity }]),
)
const outputs = new Map()
for (let round = 0; round < Number(values.rounds); round++)
  for (const [label, layers, state, hash] of variants) {
    const result = results.get(label)
    const begin = performance.now()
    await model.setLoras(layers ? new Map([['lora', { hash, layers, weight: 1, state }]]) : new Map())
    await model.load()
    result.set_ms = Math.min(result.set_ms, performance.now() - begin)
    await model.run('forward', inputs)
    const used = process.cpuUsage()
    const started = performance.now()
    outputs.set(label, Object.values(await model.run('forward', inputs))[0].data)
    result.ms = Math.min(result.ms, performance.now() - started)
    const { user, system } = process.cpuUsage(used)
    result.cpu_ms = Math.min(result.cpu_ms, (user + system) / 1000)
    result.weights = model.memory().weights
  }
for (const [label, { ms, cpu_ms, weights, set_ms }] of results) {
  const beside = outputs.get(label.replace('merged', 'beside'))
  const norm = (values) => Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0))
  const apart = norm(outputs.get(label).map((value, i) => value - beside[i])) / norm(beside)
  console.log(
    JSON.stringify({
      case: label,
      ms: Math.round(ms),
      cpu_ms: Math.round(cpu_ms),
      set_ms: Math.round(set_ms),
      weights_mb: Math.round(weights / 1e6),
      differs_from_beside: Number(apart.toFixed(5)),
    }),
  )
}
await model.dispose()
rmSync(folder, { recursive: true })

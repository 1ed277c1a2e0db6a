// One side of bench.mjs: loads one network and runs one step for every line "step".
import { createInterface } from 'node:readline'
import { openCheckpoint } from '../dist/checkpoint/open.js'
import { Network } from '../dist/networks/network.js'
import { Generator } from '../dist/random.js'
import { Tensor } from '../dist/tensor.js'

const [name, file, device, threads, packing, tiling, pictures] = process.argv.slice(2)
const [network, size] = name.split('-')
const noise = new Generator(0)
const latent = Number(size) / 8

const started = performance.now()
const checkpoint = await openCheckpoint(file)
const [component] = await checkpoint.components()
const model = new Network(await checkpoint.component(component), {
  device,
  threads: Number(threads) || undefined,
  packing,
  tiling,
})
await model.load()
answer({ load_ms: Math.round(performance.now() - started) })

/** The same inputs as torch_worker.py's: a guided step has two rows for every picture. */
const rows = 2 * Number(pictures)
const timestep = new Tensor(new Float32Array([500]), [1])
const ones = (rows) => ({ data: new Int32Array(rows * 77).fill(1), shape: [rows, 77] })
const priorInputs = (width) => ({
  timestep,
  hidden_states: noise.randn([rows, width]),
  proj_embedding: noise.randn([rows, width]),
  encoder_hidden_states: noise.randn([rows, 77, width]),
  attention_mask: ones(rows),
})
const unetInputs = (width) => ({
  timestep,
  sample: noise.randn([rows, 4, latent, latent]),
  image_embeds: noise.randn([rows, width]),
})
const tokens = (batch, length) => ({ data: new Int32Array(batch * length).fill(100), shape: [batch, length] })
/** One row, as pipelines call it: a guided step is two calls. */
const transformer5 = () => ({
  timestep,
  hidden_states: noise.randn([1, 1, latent, latent, 16]),
  encoder_hidden_states: noise.randn([1, 130, 3584]),
  pooled_projections: noise.randn([1, 768]),
})
const latents = () => ({ latents: noise.randn([1, 4, latent, latent]) })
const inputs = {
  prior: () => priorInputs(1280),
  prior21: () => priorInputs(768),
  unet: () => unetInputs(1280),
  unet21: () => ({
    ...unetInputs(768),
    text_embeds: noise.randn([rows, 768]),
    encoder_hidden_states: noise.randn([rows, 77, 1024]),
  }),
  text21: () => ({ input_ids: tokens(2, 77), attention_mask: ones(2) }),
  unet3: () => ({
    timestep,
    sample: noise.randn([rows, 4, latent, latent]),
    encoder_hidden_states: noise.randn([rows, 128, 4096]),
    // The unconditional half has no text.
    encoder_attention_mask: {
      data: Int32Array.from({ length: rows * 128 }, (_, i) => Number(i >= rows * 64)),
      shape: [rows, 128],
    },
  }),
  t5: () => ({
    input_ids: tokens(1, Number(size)),
    attention_mask: { data: new Int32Array(Number(size)).fill(1), shape: [1, Number(size)] },
  }),
  transformer5,
  whole5: transformer5,
  movq: latents,
  movq3: latents,
}[network]()

for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'stop') break
  const begin = performance.now()
  for (let call = 0; call < (/^(transformer|whole)5$/.test(network) ? rows : 1); call++)
    await model.run(network.startsWith('movq') ? 'decode' : 'forward', inputs)
  answer({ ms: performance.now() - begin })
}
answer({
  peak_mb: Math.round(process.resourceUsage().maxRSS / 1024),
  compute_mb: Math.round(model.memory().compute / 1e6),
})
await model.dispose()

function answer(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}

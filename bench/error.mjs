// How far a UNet step of Kandinsky 2.2's size lies from float32, ours and torch's bfloat16, on the same random weights
// (float16) and inputs: relative L2 distance to torch in float32.
//
//   node bench/error.mjs FOLDER [--python python3] [--pixels 256] [--weights q8_0] [--packing fast]
//
// FOLDER is filled by torch_error.py on first use
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { openCheckpoint } from '../dist/checkpoint/open.js'
import { Network } from '../dist/networks/network.js'
import { Tensor } from '../dist/tensor.js'
import { publishedConfigs } from '../scripts/published-configs.mjs'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string', default: 'python3' },
    pixels: { type: 'string', default: '256' },
    weights: { type: 'string', multiple: true, default: ['f16', 'q8_0', 'f32'] },
    packing: { type: 'string', default: 'compact' },
  },
})
const folder = positionals[0]
if (!folder) throw new Error('Expected a folder for the random checkpoint')
if (!existsSync(path.join(folder, 'inputs.json'))) {
  const { class: _, ...config } = publishedConfigs['kandinsky-2-2-decoder'].unet
  mkdirSync(folder, { recursive: true })
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify(config))
  const script = path.join(import.meta.dirname, 'torch_error.py')
  const { status } = spawnSync(values.python, [script, folder, values.pixels], { stdio: 'inherit' })
  if (status !== 0) throw new Error(`${script} failed`)
}

const { latent, timestep } = JSON.parse(readFileSync(path.join(folder, 'inputs.json'), 'utf8'))
const expected = read('float32')
const inputs = {
  sample: new Tensor(read('sample'), [2, 4, latent, latent]),
  timestep: new Tensor(new Float32Array([timestep]), [1]),
  image_embeds: new Tensor(read('image_embeds'), [2, 1280]),
}
report('torch bf16', read('bfloat16'))
const component = await (await openCheckpoint(folder)).component('unet')
for (const weights of values.weights) {
  const model = new Network(component, { device: 'cpu', weights, packing: values.packing })
  report(`ours ${weights}`, (await model.run('forward', inputs)).sample.data)
  await model.dispose()
}

function report(name, data) {
  // The first half of the channels is the noise that the sampler uses, the second its variance.
  const eps = (of) => of.filter((_, i) => Math.floor(i / (latent * latent)) % 8 < 4)
  const guided = (of) => {
    const half = eps(of).length / 2
    const [unconditional, conditional] = [eps(of).slice(0, half), eps(of).slice(half)]
    return unconditional.map((value, i) => value + 4 * (conditional[i] - value))
  }
  const error = (view) => relativeError(view(data), view(expected)).toFixed(5)
  console.log(`${name}: ${error(eps)}, after guidance 4.0: ${error(guided)}`)
}

function relativeError(actual, reference) {
  let difference = 0
  let norm = 0
  for (let i = 0; i < reference.length; i++) {
    difference += (actual[i] - reference[i]) ** 2
    norm += reference[i] ** 2
  }
  return Math.sqrt(difference / norm)
}

function read(name) {
  const bytes = readFileSync(path.join(folder, `${name}.f32`))
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
}

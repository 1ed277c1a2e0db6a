// How far a full-size UNet step lies from float32, ours and torch's bfloat16, on the same random weights (float16) and
// inputs: relative L2 distance to torch in float32.
//
//   node bench/error.mjs FOLDER [--model kandinsky-3] [--python python3] [--pixels 256] [--weights q8_0] [--packing fast]
//
// FOLDER is filled by torch_error.py on first use, with --model's UNet (default kandinsky-2-2-decoder). Kandinsky 3's
// takes 13 GB of memory then.
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
    model: { type: 'string', default: 'kandinsky-2-2-decoder' },
    python: { type: 'string', default: 'python3' },
    pixels: { type: 'string', default: '256' },
    weights: { type: 'string', multiple: true, default: ['f16', 'q8_0', 'f32'] },
    packing: { type: 'string', default: 'compact' },
  },
})
const folder = positionals[0]
if (!folder) throw new Error('Expected a folder for the random checkpoint')
if (!existsSync(path.join(folder, 'inputs.json'))) {
  const { class: _class_name, ...config } = publishedConfigs[values.model].unet
  mkdirSync(folder, { recursive: true })
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify({ _class_name, ...config }))
  const script = path.join(import.meta.dirname, 'torch_error.py')
  const { status } = spawnSync(values.python, [script, folder, values.pixels], { stdio: 'inherit' })
  if (status !== 0) throw new Error(`${script} failed`)
}

/** Shape of every input, by its name. */
const shapes = JSON.parse(readFileSync(path.join(folder, 'inputs.json'), 'utf8'))
const expected = read('float32')
const inputs = {}
for (const [name, shape] of Object.entries(shapes)) {
  const data = read(name)
  const isMask = name === 'encoder_attention_mask'
  inputs[name] = isMask ? { data: Int32Array.from(data), shape } : new Tensor(data, shape)
}
report('torch bf16', read('bfloat16'))
const component = await (await openCheckpoint(folder)).component('unet')
for (const weights of values.weights) {
  const model = new Network(component, { device: 'cpu', weights, packing: values.packing })
  report(`ours ${weights}`, (await model.run('forward', inputs)).sample.data)
  await model.dispose()
}

function report(name, data) {
  // 2.2: the first half of the channels is the noise that the sampler uses, the second its variance.
  const [batch, noise, height, width] = shapes.sample
  const channels = (of) => of.length / (batch * height * width)
  const eps = (of) => of.filter((_, i) => Math.floor(i / (height * width)) % channels(of) < noise)
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

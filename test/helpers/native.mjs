// A small network for tests of the border: the tiny text encoder's config with random weights, so that no file is read.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

export const root = path.resolve(import.meta.dirname, '../..')
export const addonPath = createRequire(import.meta.url)('node-gyp-build').path(root)

const folder = path.join(root, 'test/fixtures/checkpoints/kandinsky-2-2-prior/text_encoder')
const config = Object.fromEntries(
  Object.entries(JSON.parse(readFileSync(path.join(folder, 'config.json'), 'utf8'))).filter(
    ([, value]) => value !== null && (typeof value !== 'object' || Array.isArray(value)),
  ),
)

/** A tensor source of reproducible values. */
export function randomSource(name, shape, target = 'f32') {
  const random = { seed: name.length, scale: 0.05, mean: 0 }
  return { name, path: '', offset: 0, bytes: 0, type: 'f32', shape, target, random }
}

/** What loadNetwork() takes. `changes` to the config make it another network; a larger vocab_size makes it a larger one. */
export function textEncoderJob(binding, changes = {}) {
  const className = 'CLIPTextModelWithProjection'
  const changed = { ...config, ...changes }
  const tensors = binding
    .describeNetwork(className, 'text_encoder', changed)
    .map(({ name, shape }) => randomSource(name, shape))
  return {
    className,
    component: 'text_encoder',
    config: changed,
    tensors,
    device: 'cpu',
    threads: 1,
    packing: 'compact',
  }
}

/** Token ids for `batch` prompts; 500 of them keep the network busy for a while. */
export function textInputs(batch = 1) {
  const data = Int32Array.from({ length: batch * 77 }, (_, i) => i % 99)
  return { input_ids: { data, shape: [batch, 77] } }
}

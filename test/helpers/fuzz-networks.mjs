// A process of its own for what could end one: networks with one wrong value in their config are described, loaded with
// random weights and run. Arguments: JSON of { className, config, runs, seed }. Prints each case before it is tried; ends
// with 0 if every one of them ran or was refused with a KandinskyError that says where.
import assert from 'node:assert/strict'
import { writeSync } from 'node:fs'
import fc from 'fast-check'
import { KandinskyError } from '../../dist/errors.js'
import { binding } from '../../dist/native.js'
import { randomSource } from './native.mjs'

const { className, config: original, runs, seed } = JSON.parse(process.argv[2])
const native = binding()

/** Values beyond are only described: their weights would take a while to draw. */
const MAX_WEIGHTS = 4e6

const number = fc.oneof(
  fc.integer({ min: -2, max: 130 }),
  fc.constantFrom(1e-300, 0.5, -1e-5, 1024, 65536, 2 ** 20, 2 ** 31, 2 ** 32 + 1, 2 ** 53 - 1, -(2 ** 53 - 1), 1e300),
)
const text = fc.constantFrom('', 'x', 'silu', 'gelu', 'relu', 'group', 'spatial', 'image_hint', 'text_image', 'none')
const scalar = fc.oneof({ weight: 3, arbitrary: number }, text, fc.boolean())
const list = fc.oneof(fc.array(number, { maxLength: 18 }), fc.array(text, { maxLength: 5 }))

/** Another value for a field: a longer or shorter list, a list with another item, or anything at all. */
function wrongValue(value) {
  if (!Array.isArray(value)) return fc.oneof({ weight: 4, arbitrary: scalar }, list)
  const item = fc.tuple(fc.nat(value.length - 1), scalar).map(([i, other]) => value.with?.(i, other) ?? value)
  return fc.oneof(item, fc.constant(value.slice(1)), fc.constant([...value, value[0]]), scalar, list)
}

const fields = Object.keys(original).filter((key) => !key.startsWith('_'))
const change = fc
  .constantFrom(...fields)
  .chain((field) => fc.tuple(fc.constant(field), fc.option(wrongValue(original[field]), { nil: undefined, freq: 10 })))
const run = fc.record({ batch: fc.integer({ min: 1, max: 3 }), h: fc.integer({ min: 1, max: 2 }), w: fc.nat(2) })

const tensor = (Type, shape, valueAt) => {
  const length = shape.reduce((product, n) => product * n, 1)
  return { data: Type.from({ length }, (_, i) => valueAt(i)), shape }
}
const reals = (...shape) => tensor(Float32Array, shape, (i) => Math.sin(i))
const ids = (...shape) => tensor(Int32Array, shape, (i) => i % 5)
const ones = (...shape) => tensor(Int32Array, shape, () => 1)

/** Inputs as the config asks for them, as far as its values are sensible. */
const inputsOf = {
  CLIPTextModelWithProjection: (_, { batch, w }) => ({ forward: { input_ids: ids(batch, w + 1) } }),
  MultilingualCLIP: (_, { batch, w }) => ({
    forward: { input_ids: ids(batch, w + 1), attention_mask: ones(batch, w + 1) },
  }),
  CLIPVisionModelWithProjection: (size, { batch }) => ({
    forward: { pixel_values: reals(batch, size('num_channels'), size('image_size'), size('image_size')) },
  }),
  PriorTransformer: (size, { batch }) => {
    const [width, tokens] = [size('embedding_dim'), size('num_embeddings')]
    const text = { encoder_hidden_states: reals(batch, tokens, width), attention_mask: ones(batch, tokens) }
    const forward = { ...text, hidden_states: reals(batch, width), proj_embedding: reals(batch, width) }
    return { forward: { ...forward, timestep: reals(1) }, post_process: { latents: reals(batch, width) } }
  },
  UNet2DConditionModel: (size, { batch, h, w }, { addition_embed_type: addition, block_out_channels: levels }) => {
    const multiple = 2 ** (Math.min(levels?.length ?? 4, 5) - 1)
    const [height, width] = [h * multiple, (w + 1) * multiple]
    const hint = addition === 'image_hint' && { hint: reals(batch, 3, 8 * height, 8 * width) }
    const text = addition === 'text_image' && {
      text_embeds: reals(batch, size('cross_attention_dim')),
      encoder_hidden_states: reals(batch, 7, size('encoder_hid_dim')),
    }
    const image = size(text ? 'cross_attention_dim' : 'encoder_hid_dim')
    const sample = reals(batch, size('in_channels') - (hint ? 4 : 0) || 1, height, width)
    return { forward: { sample, timestep: reals(1), image_embeds: reals(batch, image), ...text, ...hint } }
  },
  VQModel: (size, { batch, h, w }) => ({
    encode: { sample: reals(batch, size('in_channels'), 8 * h + w, 8 + w) },
    decode: { latents: reals(batch, size('vq_embed_dim'), h, w + 1) },
  }),
}

async function tryNetwork(config, shapes) {
  const specs = native.describeNetwork(className, 'part', config)
  const weights = specs.reduce((sum, { shape }) => sum + shape.reduce((product, n) => product * n, 1), 0)
  if (weights > MAX_WEIGHTS) return
  const tensors = specs.map(({ name, shape }) => randomSource(name, shape))
  const network = await native.loadNetwork({
    ...{ className, component: 'part', config, tensors, device: 'cpu', threads: 1 },
  })
  const size = (key) => {
    const [value] = [config[key] ?? original[key]].flat()
    return Number.isInteger(value) && value > 0 && value <= 256 ? value : [original[key]].flat()[0]
  }
  try {
    for (const [method, inputs] of Object.entries(inputsOf[className](size, shapes, config)))
      await network.run(method, inputs, {}).catch(expectRefusal)
  } finally {
    await network.dispose()
  }
}

function expectRefusal(error) {
  assert.ok(error instanceof KandinskyError, String(error?.stack))
  assert.ok(['UNSUPPORTED_MODEL', 'SHAPE_MISMATCH', 'INVALID_ARGUMENT', 'OUT_OF_MEMORY'].includes(error.code), error)
  assert.match(error.message, /part|config\.|divi/)
}

let ran = 0
await tryNetwork(original, { batch: 1, h: 1, w: 1 })
await fc.assert(
  fc.asyncProperty(change, run, async ([field, value], shapes) => {
    const config = { ...original, [field]: value }
    if (value === undefined) delete config[field]
    writeSync(1, `${field} = ${JSON.stringify(value)} ${JSON.stringify(shapes)}\n`)
    await tryNetwork(config, shapes).then(() => ran++, expectRefusal)
  }),
  { numRuns: runs, seed },
)
assert.ok(ran > 0 && ran < runs, `${ran} of ${runs} ran`)

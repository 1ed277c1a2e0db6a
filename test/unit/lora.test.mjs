// LoRA against what diffusers computes with the same files (scripts/reference/lora_cases.py).
import assert from 'node:assert/strict'
import { cpSync, readFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { readLoraFile } from '../../dist/checkpoint/lora-file.js'
import { openCheckpoint } from '../../dist/checkpoint/open.js'
import {
  convert,
  Generator,
  KandinskyV22CombinedPipeline,
  KandinskyV22Img2ImgPipeline,
  KandinskyV22Pipeline,
  KandinskyV22PriorPipeline,
  Tensor,
} from '../../dist/index.js'
import { matchLora } from '../../dist/networks/lora.js'
import { Network } from '../../dist/networks/network.js'
import { checkpoint, fixtures, readCase } from '../helpers/cases.mjs'
import { assertClose } from '../helpers/compare.mjs'
import { safetensorsFile, temporaryFolder, writeFileIn } from '../helpers/files.mjs'
import { startHub } from '../helpers/hub-server.mjs'
import { readSafetensors } from '../helpers/safetensors.mjs'

const folder = path.join(fixtures, 'extra/lora')
const expected = new Map(
  ['processors', 'peft'].flatMap((name) => [...readSafetensors(path.join(folder, `${name}.safetensors`))]),
)
const decoderFile = path.join(folder, 'decoder/pytorch_lora_weights.safetensors')
const priorFile = path.join(folder, 'prior/pytorch_lora_weights.bin')
const peftFile = path.join(folder, 'peft/adapter_model.safetensors')
const kohyaFile = path.join(folder, 'kohya.safetensors')
const unet22 = ['kandinsky-2-2-decoder', 'unet', 'unet22-t981-8x8']
const prior22 = ['kandinsky-2-2-prior', 'prior', 'prior-k22-t999']
const onCpu = { device: 'cpu', threads: 1 }

async function load([name, component], options = {}, source = checkpoint(name)) {
  return new Network(await (await openCheckpoint(source)).component(component), { ...onCpu, ...options })
}

/** The inputs of a recorded call that the engine's networks take. */
function inputsOf([, component, trace]) {
  const { tensors } = readCase('components', trace)
  const inputs = {}
  for (const [name, { data, shape }] of tensors) {
    if (!name.startsWith('input.') || /rope_pos|scale_factor|return_dict/.test(name)) continue
    const rows = component === 'transformer' ? 1 : shape[0]
    const values = Array.from(data, Number).slice(0, (data.length * rows) / shape[0] || 1)
    inputs[name.slice('input.'.length)] = /mask/.test(name)
      ? { data: Int32Array.from(values), shape }
      : new Tensor(Float32Array.from(values), shape.length > 0 ? [rows, ...shape.slice(1)] : [1])
  }
  return inputs
}

const loraOf = async (network, file, weight = 1, state = 'on') => {
  const lora = await readLoraFile(file)
  const [layers] = matchLora(lora, [{ name: network.name, specs: network.specs() }])
  return { hash: lora.hash, layers, weight, state }
}

async function outputOf(network, call) {
  const [output] = Object.values(await network.run('forward', inputsOf(call)))
  return output
}

/** Largest difference, relative to the largest value. */
function difference(a, b) {
  const scale = Math.max(...Array.from(b.data, Math.abs))
  return Math.max(...Array.from(a.data, (value, i) => Math.abs(value - b.data[i]))) / scale
}

const cases = [
  ['decoder', unet22, { decoder: [decoderFile, 1] }],
  ['prior', prior22, { prior: [priorFile, 1] }],
  ['peft', unet22, { peft: [peftFile, 1] }],
  ['kohya', unet22, { kohya: [kohyaFile, 1] }],
  ['decoder*0.6+kohya*-1.5', unet22, { decoder: [decoderFile, 0.6], kohya: [kohyaFile, -1.5] }],
  [
    'kandinsky-3',
    ['kandinsky-3', 'unet', 'unet3-t981-16x8'],
    { three: [path.join(folder, 'kandinsky-3.safetensors'), 1] },
  ],
  [
    'kandinsky-5',
    ['kandinsky-5-t2i', 'transformer', 'k5-transformer-t2i-t1000-8x8-l5'],
    { five: [path.join(folder, 'kandinsky-5.safetensors'), 1] },
    2e-2, // the reference rounds queries and keys to bfloat16
  ],
]

/** Kandinsky 5's network takes one sample at a time. */
const firstOf = ({ data }, length) => ({ data: data.slice(0, length), shape: [length] })

for (const [name, call, files, tolerance = 2e-4] of cases)
  test(`${name}: beside the weights and merged into them as diffusers computes it`, async () => {
    const network = await load(call, { weights: 'f32' })
    const plain = await outputOf(network, call)
    for (const state of ['on', 'fused']) {
      const loras = new Map()
      for (const [lora, [file, weight]] of Object.entries(files))
        loras.set(lora, await loraOf(network, file, weight, state))
      await network.setLoras(loras)
      const { data } = await outputOf(network, call)
      const wanted = firstOf(expected.get(name), data.length)
      assertClose(`${name}, ${state}`, { data, shape: wanted.shape }, wanted, tolerance)
    }
    assert.ok(difference(plain, firstOf(expected.get(name), plain.data.length)) > 2e-3, 'the LoRA changes the result')
    await network.setLoras(new Map())
    assert.deepEqual(await outputOf(network, call), plain, 'nothing of it is left')
    await network.dispose()
  })

test('quantized weights stay as they are beside a LoRA, and become float16 where one is merged into them', async (t) => {
  const file = path.join(temporaryFolder(t), 'q4.gguf')
  await convert(checkpoint('kandinsky-2-2-decoder'), file, { weights: 'q4_0' })
  const network = await load(unet22, {}, file)
  const plain = await outputOf(network, unet22)
  const before = network.memory().weights
  const set = async (model, weight, state) => {
    await model.setLoras(new Map([['decoder', await loraOf(model, decoderFile, weight, state)]]))
    return outputOf(model, unet22)
  }
  // So small a change that blocks of 4 bits would mostly round it away.
  const beside = await set(network, 0.05, 'on')
  const grown = network.memory().weights - before
  assert.ok(grown > 0 && grown < 800_000, `${grown} bytes for the thin matrices`)
  const merged = await set(network, 0.05, 'fused')
  const again = await load(unet22, { weights: 'q4_0' }, file)
  const rounded = await set(again, 0.05, 'fused')
  const change = difference(beside, plain)
  const [besideMerged, besideRounded] = [difference(merged, beside), difference(rounded, beside)]
  t.diagnostic(`change ${change}; merged as float16 differs by ${besideMerged}, as 4 bits by ${besideRounded}`)
  assert.ok(besideMerged < change / 3 && besideRounded > change / 2)
  await Promise.all([network.dispose(), again.dispose()])
})

test('packed weights and other kernels take LoRAs, too', async () => {
  const packed = await load(unet22, { packing: 'fast', weights: 'f16' })
  await outputOf(packed, unet22)
  await packed.setLoras(new Map([['peft', await loraOf(packed, peftFile)]]))
  const output = await outputOf(packed, unet22)
  assert.ok(difference(output, expected.get('peft')) < 0.06)
  await packed.dispose()
})

const embeds = { imageEmbeds: new Tensor(new Float32Array(128).fill(0.1), [1, 128]) }
const small = { height: 64, width: 64, numInferenceSteps: 2, seed: 1, guidanceScale: 1 }

test('pipelines load, weigh, fuse and unload adapters under the names of diffusers', async (t) => {
  const pipe = await KandinskyV22Pipeline.fromPretrained(checkpoint('kandinsky-2-2-decoder'), onCpu)
  t.after(() => pipe.dispose())
  const draw = async () => (await pipe.generate({ ...embeds, ...small })).images[0]
  const plain = await draw()
  assert.equal(plain.recipe.loras, undefined)
  await pipe.loadLoraWeights(path.dirname(decoderFile), { adapterName: 'style' })
  const styled = await draw()
  assert.notDeepEqual(styled.data, plain.data)
  const { hash } = await readLoraFile(decoderFile)
  assert.deepEqual(styled.recipe.loras, [{ name: 'style', hash, weight: 1 }])

  await pipe.loadLoraWeights(kohyaFile)
  assert.deepEqual(pipe.getListAdapters(), { unet: ['style', 'default_0'] })
  assert.deepEqual(pipe.getActiveAdapters(), ['default_0'], 'the latest')
  await pipe.setAdapters('style')
  assert.deepEqual((await draw()).data, styled.data)
  await pipe.setAdapters(['style', 'default_0'], [0.5, 2])
  assert.deepEqual(pipe.getActiveAdapters(), ['style', 'default_0'])
  assert.equal((await draw()).recipe.loras.length, 2)
  await pipe.setAdapters('style', 0)
  assert.deepEqual((await draw()).data, plain.data)

  await pipe.setAdapters('style')
  await pipe.fuseLora()
  assert.deepEqual(pipe.getActiveAdapters(), [])
  const fused = await draw()
  assert.deepEqual(fused.recipe.loras, styled.recipe.loras)
  assert.ok(difference(fused, styled) < 0.05)
  await assert.rejects(pipe.setAdapters('style', 2), { code: 'INVALID_ARGUMENT', message: /fused/ })
  await pipe.unfuseLora()
  assert.deepEqual((await draw()).data, styled.data, 'taken out without a trace')

  const other = KandinskyV22Img2ImgPipeline.fromPipe(pipe)
  assert.deepEqual(other.getActiveAdapters(), ['style'], 'networks that are shared')
  await pipe.deleteAdapters('default_0')
  assert.deepEqual(other.getListAdapters(), { unet: ['style'] })
  await pipe.unloadLoraWeights()
  assert.deepEqual(other.getListAdapters(), {})
  assert.deepEqual((await draw()).data, plain.data)
})

test('a combined pipeline takes files for its prior and for its decoder', async (t) => {
  const [decoder, prior] = ['decoder', 'prior'].map((side) => checkpoint(`kandinsky-2-2-${side}`))
  for (const offload of ['none', 'model']) {
    const pipe = await KandinskyV22CombinedPipeline.fromPretrained(decoder, { prior, offload, ...onCpu })
    t.after(() => pipe.dispose())
    await pipe.loadLoraWeights(priorFile, { adapterName: 'meaning', weight: 0.5 })
    await pipe.loadLoraWeights(decoderFile, { adapterName: 'style' })
    await pipe.setAdapters(['meaning', 'style'], [0.5, 1])
    assert.deepEqual(pipe.getListAdapters(), { prior: ['meaning'], unet: ['style'] })
    const { images } = await pipe.generate({ prompt: 'a cat', ...small, priorNumInferenceSteps: 2, guidanceScale: 4 })
    assert.deepEqual(
      images[0].recipe.loras.map(({ name, weight }) => [name, weight]),
      [
        ['meaning', 0.5],
        ['style', 1],
      ],
    )
  }
})

test('a change that one network cannot make is made in none', async (t) => {
  const prior = checkpoint('kandinsky-2-2-prior')
  const pipe = await KandinskyV22CombinedPipeline.fromPretrained(checkpoint('kandinsky-2-2-decoder'), {
    prior,
    ...onCpu,
  })
  t.after(() => pipe.dispose())
  await pipe.loadLoraWeights(priorFile, { adapterName: 'meaning' })
  const { unet } = pipe.decoderPipe.components
  const set = unet.setLoras
  unet.setLoras = async () => {
    throw new Error('no memory')
  }
  for (const change of [
    () => pipe.setAdapters('meaning', 0.5),
    () => pipe.fuseLora(),
    () => pipe.unloadLoraWeights(),
    () => pipe.loadLoraWeights(decoderFile, { adapterName: 'style' }),
  ])
    await assert.rejects(change, /no memory/)
  unet.setLoras = set
  assert.deepEqual(pipe.getListAdapters(), { prior: ['meaning'] })
  assert.deepEqual(pipe.getActiveAdapters(), ['meaning'])
  assert.equal(pipe.priorPipe.components.prior.loras.get('meaning').weight, 1)
})

test('from the hub: the file that scripts save, or the one that is named', async (t) => {
  const file = readFileSync(kohyaFile)
  const hub = await startHub({
    'someone/ink': { 'pytorch_lora_weights.safetensors': file, 'other/pen.safetensors': file },
  })
  process.env.HF_ENDPOINT = hub.endpoint
  t.after(() => {
    delete process.env.HF_ENDPOINT
    hub.close()
  })
  const pipe = await KandinskyV22Pipeline.fromPretrained(checkpoint('kandinsky-2-2-decoder'), onCpu)
  t.after(() => pipe.dispose())
  const options = { cacheDir: temporaryFolder(t) }
  await pipe.loadLoraWeights('someone/ink', options)
  await pipe.loadLoraWeights('someone/ink', { ...options, subfolder: 'other', weightName: 'pen.safetensors' })
  await pipe.loadLoraWeights('someone/ink:other/pen.safetensors', { ...options, adapterName: 'pen' })
  assert.deepEqual(pipe.getListAdapters(), { unet: ['default_0', 'default_1', 'pen'] })
  await assert.rejects(pipe.loadLoraWeights('someone/ink', { ...options, weightName: 'no.bin' }), {
    code: 'FILE_NOT_FOUND',
  })
})

test('convert writes LoRAs into the file', async (t) => {
  const file = path.join(temporaryFolder(t), 'merged.gguf')
  await convert(checkpoint('kandinsky-2-2-decoder'), file, {
    weights: 'f32',
    loras: [
      { source: decoderFile, weight: 0.6 },
      { source: kohyaFile, weight: -1.5 },
    ],
  })
  const network = await load(unet22, { weights: 'f32' }, file)
  assertClose('merged', await outputOf(network, unet22), expected.get('decoder*0.6+kohya*-1.5'), 2e-4)
  await network.dispose()
  await assert.rejects(convert(checkpoint('kandinsky-2-2-decoder'), file, { loras: [{ source: priorFile }] }), {
    code: 'UNSUPPORTED_MODEL',
    message: /unet.*transformer_blocks\.0\.attn1/,
  })
})

/** A LoRA file of zeros with these shapes. */
function loraFile(folder, name, shapes) {
  let offset = 0
  const header = {}
  for (const [key, shape] of Object.entries(shapes)) {
    const bytes = 4 * shape.reduce((product, n) => product * n, 1)
    header[key] = { dtype: 'F32', shape, data_offsets: [offset, offset + bytes] }
    offset += bytes
  }
  return writeFileIn(folder, name, safetensorsFile(header, Buffer.alloc(offset)))
}

test('a LoRA that does not fit is refused by name', async (t) => {
  const folder = temporaryFolder(t)
  const pipe = await KandinskyV22Pipeline.fromPretrained(checkpoint('kandinsky-2-2-decoder'), onCpu)
  t.after(() => pipe.dispose())
  const module = 'mid_block.attentions.0.to_q'
  const pair = (down, up, name = module) => ({ [`${name}.lora_A.weight`]: down, [`${name}.lora_B.weight`]: up })
  const refused = async (shapes, code, message) =>
    assert.rejects(pipe.loadLoraWeights(loraFile(folder, 'x.safetensors', shapes)), { code, message })
  await refused(pair([2, 320], [64, 2]), 'SHAPE_MISMATCH', /\[rank, 64\].*to_q\.lora_A.*mid_block.*\[2, 320\]/)
  await refused(pair([2, 64], [320, 2]), 'SHAPE_MISMATCH', /\[64, 2\].*to_q\.lora_B.*\[320, 2\]/)
  await refused(pair([2, 64], [64, 3]), 'BAD_FILE', /not of one rank/)
  await refused({ [`${module}.lora_A.weight`]: [2, 64] }, 'BAD_FILE', /only one of the two/)
  await refused(pair([2, 64], [64, 2], 'mid_block.attentions.7.to_q'), 'UNSUPPORTED_MODEL', /attentions\.7\.to_q/)
  await refused({ ...pair([2, 64], [64, 2]), [`${module}.dora_scale`]: [64] }, 'UNSUPPORTED_MODEL', /DoRA/)
  await refused({ [`${module}.hada_w1_a`]: [64, 2] }, 'UNSUPPORTED_MODEL', /LoHa/)
  await refused({ [`${module}.weight`]: [64, 64] }, 'UNSUPPORTED_MODEL', /keys of a LoRA.*to_q\.weight/)
  await assert.rejects(pipe.loadLoraWeights(priorFile), { code: 'UNSUPPORTED_MODEL', message: /transformer_blocks/ })
  await assert.rejects(pipe.loadLoraWeights(folder, { weightName: 'y.bin' }), { code: 'FILE_NOT_FOUND' })
  await assert.rejects(pipe.loadLoraWeights(path.join(folder, 'no')), { code: 'FILE_NOT_FOUND' })
  await assert.rejects(pipe.loadLoraWeights(decoderFile, { adapterName: '' }), { code: 'INVALID_ARGUMENT' })
  await assert.rejects(pipe.loadLoraWeights(decoderFile, { weight: Number.NaN }), { code: 'INVALID_ARGUMENT' })
  await assert.rejects(pipe.setAdapters('style'), { code: 'INVALID_ARGUMENT', message: /a loaded adapter/ })
  await pipe.loadLoraWeights(decoderFile, { adapterName: 'style' })
  await assert.rejects(pipe.loadLoraWeights(decoderFile, { adapterName: 'style' }), { code: 'INVALID_ARGUMENT' })
  await assert.rejects(pipe.setAdapters(['style'], [1, 2]), { code: 'INVALID_ARGUMENT', message: /weights/ })
  assert.deepEqual(pipe.getListAdapters(), { unet: ['style'] }, 'what was refused left nothing behind')
})

test('alphas count, wherever a file has them', async (t) => {
  const folder = temporaryFolder(t)
  const scaleOf = async (file) => (await readLoraFile(file)).modules[0].scale
  assert.equal(await scaleOf(peftFile), 2 / 3, 'adapter_config.json')
  assert.equal(await scaleOf(kohyaFile), 0.25, 'beside the matrices')
  cpSync(peftFile, path.join(folder, 'adapter_model.safetensors'))
  assert.equal(await scaleOf(path.join(folder, 'adapter_model.safetensors')), 1, 'without')
  const settings = { r: 3, lora_alpha: 6, use_rslora: true, alpha_pattern: { to_v: 9 } }
  writeFileIn(folder, 'adapter_config.json', JSON.stringify(settings))
  assert.equal(await scaleOf(path.join(folder, 'adapter_model.safetensors')), 6 / Math.sqrt(3))
  const metadata = JSON.stringify({ 'unet.r': 2, 'unet.lora_alpha': 8 })
  const header = {
    __metadata__: { lora_adapter_metadata: metadata },
    'unet.mid_block.attentions.0.to_q.lora_A.weight': { dtype: 'F32', shape: [2, 64], data_offsets: [0, 512] },
    'unet.mid_block.attentions.0.to_q.lora_B.weight': { dtype: 'F32', shape: [64, 2], data_offsets: [512, 1024] },
  }
  const file = writeFileIn(folder, 'm.safetensors', safetensorsFile(header, Buffer.alloc(1024)))
  assert.equal(await scaleOf(file), 4, "diffusers' metadata")
})

test('what interpolate remembers is of the LoRAs that were on', async (t) => {
  const load = async () => {
    const pipe = await KandinskyV22PriorPipeline.fromPretrained(checkpoint('kandinsky-2-2-prior'), onCpu)
    t.after(() => pipe.dispose())
    return pipe
  }
  const mix = async (pipe) => {
    const options = { numInferenceSteps: 2, generator: new Generator(3) }
    return (await pipe.interpolate(['a cat', 'a dog'], [0.5, 0.5], options)).imageEmbeds.data
  }
  const pipe = await load()
  const plain = await mix(pipe)
  await pipe.loadLoraWeights(priorFile)
  const changed = await mix(pipe)
  assert.notDeepEqual(changed, plain)
  const fresh = await load()
  await fresh.loadLoraWeights(priorFile)
  assert.deepEqual(changed, await mix(fresh))
})

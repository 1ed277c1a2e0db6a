import assert from 'node:assert/strict'
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { combineCheckpoints, openCheckpoint } from '../../dist/checkpoint/open.js'
import { parseConfig } from '../../dist/checkpoint/repository.js'
import { convert } from '../../dist/convert.js'
import { binding } from '../../dist/native.js'
import { temporaryFolder, writeFileIn } from '../helpers/files.mjs'

const checkpoints = path.resolve(import.meta.dirname, '../fixtures/checkpoints')
const decoder = path.join(checkpoints, 'kandinsky-2-2-decoder')
const prior = path.join(checkpoints, 'kandinsky-2-2-prior')
const read = (...parts) => readFileSync(path.join(...parts), 'utf8')

/** Everything that a checkpoint says, for comparing two forms of it; offsets and paths differ by nature. */
async function contents(checkpoint) {
  const texts = {}
  for (const name of (await checkpoint.texts()).sort()) texts[name] = await checkpoint.text(name)
  const components = {}
  for (const name of (await checkpoint.components()).sort()) {
    const { className, config, tensors } = await checkpoint.component(name)
    components[name] = { className, config, tensors: tensors.map((tensor) => tensor.name).sort() }
  }
  return { texts, components }
}

test('a folder in the diffusers layout is opened by its model_index.json', async () => {
  const checkpoint = await openCheckpoint(decoder)
  assert.deepEqual((await checkpoint.components()).sort(), ['movq', 'unet'])
  assert.deepEqual((await checkpoint.texts()).sort(), [
    'README.md',
    'model_index.json',
    'scheduler/scheduler_config.json',
  ])
  assert.equal(
    await checkpoint.text('scheduler/scheduler_config.json'),
    read(decoder, 'scheduler/scheduler_config.json'),
  )
  assert.equal(await checkpoint.text('tokenizer/vocab.json'), undefined)
  assert.equal(await checkpoint.component('text_encoder'), undefined)
  const unet = await checkpoint.component('unet')
  assert.equal(unet.className, 'UNet2DConditionModel')
  assert.equal(unet.config.addition_embed_type, 'image')
  assert.deepEqual(unet.config.block_out_channels, [32, 64, 64, 64])
  assert.ok(!('class_embed_type' in unet.config), 'nulls are dropped')
  assert.ok(!('_class_name' in unet.config), 'how the file was made is dropped')
  assert.ok(unet.tensors.some(({ name, shape }) => name === 'conv_in.weight' && shape.join() === '32,4,3,3'))
})

test('a checkpoint knows which pipeline it is', async () => {
  const [one, other] = [await openCheckpoint(decoder), await openCheckpoint(prior)]
  assert.deepEqual([one.side('decoder') === one, one.side('prior')], [true, undefined])
  assert.deepEqual([other.side('prior') === other, other.side('decoder')], [true, undefined])
  assert.throws(() => combineCheckpoints(other, one), { code: 'INVALID_ARGUMENT', message: /with a decoder/ })
})

test('a depth estimator, which is published as a single network, is a checkpoint with one component', async () => {
  const checkpoint = await openCheckpoint(path.join(checkpoints, '../depth/dpt'))
  assert.deepEqual(await checkpoint.components(), ['depth_estimator'])
  assert.deepEqual(await checkpoint.texts(), ['preprocessor_config.json'])
  const { className, config, tensors } = await checkpoint.component('depth_estimator')
  assert.equal(className, 'DPTForDepthEstimation')
  assert.deepEqual(config.reassemble_factors, [4, 2, 1, 0.5])
  assert.ok(tensors.some(({ name }) => name === 'dpt.embeddings.cls_token'))
})

test('a component may have PyTorch weights', async (t) => {
  const folder = path.join(temporaryFolder(t), 'repository')
  cpSync(decoder, folder, { recursive: true })
  rmSync(path.join(folder, 'movq/diffusion_pytorch_model.safetensors'))
  const bin = path.resolve(import.meta.dirname, '../fixtures/extra/torch-state-dict.bin')
  cpSync(bin, path.join(folder, 'movq/diffusion_pytorch_model.bin'))
  const movq = await (await openCheckpoint(folder)).component('movq')
  assert.ok(movq.tensors.some(({ name }) => name === 'conv.weight'))
})

test('a subfolder of the source may hold the pipeline', async () => {
  const checkpoint = await openCheckpoint(checkpoints, { subfolder: 'kandinsky-2-2-prior' })
  assert.deepEqual((await checkpoint.components()).sort(), ['image_encoder', 'prior', 'text_encoder'])
  for (const subfolder of ['..', '/etc', 'a/../../b'])
    await assert.rejects(openCheckpoint(decoder, { subfolder }), { code: 'INVALID_ARGUMENT', message: /subfolder/ })
})

test('the Hugging Face cache, where every file is a link, is a folder like any other', async (t) => {
  const folder = temporaryFolder(t)
  for (const part of ['', 'unet', 'movq', 'scheduler']) mkdirSync(path.join(folder, part), { recursive: true })
  const files = ['config.json', 'diffusion_pytorch_model.safetensors'].flatMap((file) => [
    `unet/${file}`,
    `movq/${file}`,
  ])
  for (const file of [...files, 'model_index.json', 'scheduler/scheduler_config.json'])
    symlinkSync(path.join(decoder, file), path.join(folder, file))
  const [linked, original] = [
    await contents(await openCheckpoint(folder)),
    await contents(await openCheckpoint(decoder)),
  ]
  assert.deepEqual(linked.components, original.components)
})

test('nested config objects survive under the names of all levels, through our GGUF as well', async (t) => {
  const rope_scaling = { type: 'mrope', mrope_section: [16, 24, 24], factor: null, deeper: { beta: 0.5 } }
  const expected = {
    'rope_scaling.type': 'mrope',
    'rope_scaling.mrope_section': [16, 24, 24],
    'rope_scaling.deeper.beta': 0.5,
  }
  assert.deepEqual(parseConfig(JSON.stringify({ rope_scaling }), 'config.json'), expected)

  const folder = path.join(temporaryFolder(t), 'repository')
  cpSync(decoder, folder, { recursive: true })
  const file = path.join(folder, 'movq/config.json')
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), rope_scaling }))
  const converted = path.join(folder, 'converted.gguf')
  await convert(folder, converted)
  const { config } = await (await openCheckpoint(converted)).component('movq')
  for (const [key, value] of Object.entries(expected)) assert.deepEqual(config[key], value, key)
})

test('config values without a GGUF type are left out, wrong JSON is an error', () => {
  const text = '{"a":1,"b":null,"c":{"d":1},"e":[1,"x"],"f":[],"g":[true,false],"h":"x","_i":1,"j":1e999}'
  assert.deepEqual(parseConfig(text, 'config.json'), { a: 1, 'c.d': 1, g: [true, false], h: 'x' })
  for (const bad of ['', '[]', 'null', '{'])
    assert.throws(() => parseConfig(bad, 'config.json'), { code: 'BAD_FILE', message: /config\.json/ })
})

const index = JSON.stringify({ _class_name: 'StableDiffusionPipeline', unet: ['diffusers', 'UNet2DConditionModel'] })
const wrongSources = {
  'a path that does not exist': [(folder) => path.join(folder, 'nothing'), 'FILE_NOT_FOUND', /nothing does not exist/],
  'an empty folder': [(folder) => folder, 'UNSUPPORTED_MODEL', /it is empty/],
  'the folder of one network': [
    () => path.join(decoder, 'unet'),
    'UNSUPPORTED_MODEL',
    /single network, not a pipeline/,
  ],
  'a folder of pictures': [
    (folder) => path.dirname(writeFileIn(folder, 'cat.png', 'x')),
    'UNSUPPORTED_MODEL',
    /but it holds cat\.png/,
  ],
  'a lone weights file': [
    () => path.join(decoder, 'unet/diffusion_pytorch_model.safetensors'),
    'UNSUPPORTED_MODEL',
    /is a safetensors file/,
  ],
  'a pickle': [
    (folder) => writeFileIn(folder, 'model.ckpt', Buffer.from([0x80, 2, 0x7d])),
    'UNSUPPORTED_MODEL',
    /pickle/,
  ],
  'another kind of pipeline': [
    (folder) => path.dirname(writeFileIn(folder, 'model_index.json', index)),
    'UNSUPPORTED_MODEL',
    /Kandinsky pipeline.*"StableDiffusionPipeline"/,
  ],
  'a broken model_index.json': [
    (folder) => path.dirname(writeFileIn(folder, 'model_index.json', '{')),
    'BAD_FILE',
    /model_index\.json that is not valid JSON/,
  ],
  'no text at all': [() => '', 'INVALID_ARGUMENT', /source/],
}
for (const [what, [make, code, message]] of Object.entries(wrongSources))
  test(`${what} is refused, saying what was found`, async (t) => {
    await assert.rejects(openCheckpoint(make(temporaryFolder(t))), { code, message })
  })

test('a GGUF file of another architecture or a newer format is refused by what it says', async (t) => {
  const file = path.join(temporaryFolder(t), 'model.gguf')
  const metadata = { 'general.architecture': 'llama', 'kandinsky.format_version': 1 }
  await binding().writeGguf({ path: file, metadata, tensors: [], threads: 1 })
  await assert.rejects(openCheckpoint(file), { code: 'UNSUPPORTED_MODEL', message: /architecture "llama"/ })
  const newer = { 'general.architecture': 'kandinsky', 'kandinsky.format_version': 2 }
  await binding().writeGguf({ path: file, metadata: newer, tensors: [], threads: 1 })
  await assert.rejects(openCheckpoint(file), { code: 'UNSUPPORTED_MODEL', message: /version 1 .* received 2/ })
})

test('a GGUF file says what its folder said', async (t) => {
  const folder = temporaryFolder(t)
  for (const source of [decoder, prior]) {
    const original = await openCheckpoint(source)
    const { path: file } = await convert(source, path.join(folder, `${path.basename(source)}.gguf`), {
      skipZeroImage: true,
    })
    const converted = await contents(await openCheckpoint(file))
    const expected = await contents(original)
    assert.deepEqual(converted.texts, expected.texts)
    for (const [name, { className, config, tensors }] of Object.entries(converted.components)) {
      assert.equal(className, expected.components[name].className)
      assert.deepEqual(config, expected.components[name].config, name)
      const known = new Set(expected.components[name].tensors)
      for (const tensor of tensors) assert.ok(known.has(tensor), `${name}.${tensor}`)
    }
  }
})

test('one file with prior and decoder, and a folder of a file each, have the sides of their folders', async (t) => {
  const [one, many] = [temporaryFolder(t), temporaryFolder(t)]
  const single = path.join(one, 'all.gguf')
  await convert(decoder, single, { prior, skipZeroImage: true })
  await convert(decoder, path.join(many, 'decoder.gguf'), { skip: ['movq'] })
  await convert(decoder, path.join(many, 'movq.gguf'), { skip: ['unet'] })
  await convert(prior, path.join(many, 'prior.gguf'), { skipZeroImage: true })
  const expected = {
    decoder: await contents(await openCheckpoint(decoder)),
    prior: await contents(await openCheckpoint(prior)),
  }
  for (const source of [single, one, many]) {
    const checkpoint = await openCheckpoint(source)
    for (const side of ['decoder', 'prior']) {
      const found = await contents(checkpoint.side(side))
      assert.deepEqual(found.texts, expected[side].texts)
      assert.deepEqual(Object.keys(found.components), Object.keys(expected[side].components))
      for (const name of Object.keys(found.components))
        assert.deepEqual(found.components[name].config, expected[side].components[name].config)
    }
    const texts = await checkpoint.texts()
    assert.ok(texts.includes('prior_scheduler/scheduler_config.json') && texts.includes('prior_tokenizer/vocab.json'))
    const components = ['image_encoder', 'movq', 'prior', 'text_encoder', 'unet']
    assert.deepEqual((await checkpoint.components()).sort(), components)
  }
})

test("a prior's network takes a prefix where the decoder has a part of the same name, as in 2.1", async (t) => {
  const folder = path.join(temporaryFolder(t), 'decoder')
  cpSync(decoder, folder, { recursive: true })
  const index = JSON.parse(read(folder, 'model_index.json'))
  writeFileSync(
    path.join(folder, 'model_index.json'),
    JSON.stringify({ ...index, text_encoder: ['transformers', 'CLIPTextModelWithProjection'] }),
  )
  cpSync(path.join(prior, 'text_encoder'), path.join(folder, 'text_encoder'), { recursive: true })
  const file = path.join(folder, 'both.gguf')
  const { components } = await convert(folder, file, { prior, skipZeroImage: true, skip: ['image_encoder'] })
  assert.deepEqual(components.sort(), ['movq', 'prior', 'prior_text_encoder', 'text_encoder', 'unet'])
  const checkpoint = await openCheckpoint(file)
  assert.deepEqual((await checkpoint.side('prior').components()).sort(), ['prior', 'text_encoder'])
  assert.equal((await checkpoint.side('prior').component('text_encoder')).name, 'text_encoder')
  assert.equal((await checkpoint.component('prior_text_encoder')).name, 'prior_text_encoder')
})

test('a folder with two files of one network is refused by naming both', async (t) => {
  const folder = temporaryFolder(t)
  await convert(decoder, path.join(folder, 'a.gguf'))
  await convert(decoder, path.join(folder, 'b.gguf'), { weights: 'q8_0' })
  await assert.rejects(openCheckpoint(folder), {
    code: 'INVALID_ARGUMENT',
    message: /a\.gguf and .*b\.gguf hold a (unet|movq)/,
  })
})

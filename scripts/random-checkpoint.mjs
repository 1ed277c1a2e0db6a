// Writes our GGUF for a published checkpoint's real configuration, filled with seeded random weights of sensible scale:
// full-size speed and memory can be measured where the real weights cannot be had.
//
//   node scripts/random-checkpoint.mjs kandinsky-2-2-decoder out.gguf [--type q8_0] [--components unet,movq] [--seed 0]
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { binding } from '../dist/native.js'
import { targetType } from '../dist/networks/policy.js'
import { publishedConfigs } from './published-configs.mjs'

/**
 * Matrices are normal with variance 1 / fan-in, gains near one, offsets near zero: activations keep their size through
 * every layer, as trained ones do.
 */
function randomSource(name, shape, seed) {
  if (shape.length === 1) {
    const gain = /norm[^.]*\.weight$|clip_std$/.test(name)
    return { seed, mean: gain ? 1 : 0, scale: gain ? 0.1 : 0.02 }
  }
  const fanIn = shape.slice(1).reduce((product, n) => product * n, 1)
  return { seed, mean: 0, scale: /embedding/.test(name) ? 0.02 : 1 / Math.sqrt(fanIn) }
}

const index = (className, parts) =>
  JSON.stringify({ _class_name: className, ...Object.fromEntries(parts.map(([name, type]) => [name, ['', type]])) })

/** Tokenizers come from the tests' fixtures. */
function tokenizerFiles(tokenizer, prefix, names) {
  const folder = path.join(import.meta.dirname, '..', 'test', 'fixtures', 'tokenizers', tokenizer)
  return Object.fromEntries(names.map((name) => [`${prefix}/${name}`, readFileSync(path.join(folder, name), 'utf8')]))
}

/** What makes a runnable text-to-image model of 2.2's networks: published scheduler settings, the published vocabulary. */
function textFiles22() {
  return {
    ...tokenizerFiles('clip-vit', 'prior_tokenizer', [
      ...['vocab.json', 'merges.txt', 'tokenizer_config.json', 'special_tokens_map.json'],
    ]),
    'model_index.json': index('KandinskyV22Pipeline', [
      ['unet', 'UNet2DConditionModel'],
      ['movq', 'VQModel'],
      ['scheduler', 'DDPMScheduler'],
    ]),
    'scheduler/scheduler_config.json': JSON.stringify({
      ...{ _class_name: 'DDPMScheduler', beta_schedule: 'linear', beta_start: 0.00085, beta_end: 0.012 },
      ...{ clip_sample: true, clip_sample_range: 1, steps_offset: 1, variance_type: 'fixed_small' },
    }),
    'prior_model_index.json': index('KandinskyV22PriorPipeline', [
      ['prior', 'PriorTransformer'],
      ['text_encoder', 'CLIPTextModelWithProjection'],
      ['tokenizer', 'CLIPTokenizer'],
      ['scheduler', 'UnCLIPScheduler'],
    ]),
    'prior_scheduler/scheduler_config.json': JSON.stringify({ _class_name: 'UnCLIPScheduler', clip_sample_range: 10 }),
  }
}

/** The same for Kandinsky 3, with a small vocabulary: T5's ids are below the network's 32128. */
function textFiles3() {
  return {
    ...tokenizerFiles('t5', 'tokenizer', ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json']),
    'model_index.json': index('Kandinsky3Pipeline', [
      ['unet', 'Kandinsky3UNet'],
      ['movq', 'VQModel'],
      ['text_encoder', 'T5EncoderModel'],
      ['tokenizer', 'T5Tokenizer'],
      ['scheduler', 'DDPMScheduler'],
    ]),
    'scheduler/scheduler_config.json': JSON.stringify({
      ...{ _class_name: 'DDPMScheduler', beta_schedule: 'squaredcos_cap_v2', clip_sample: true, clip_sample_range: 1 },
      ...{ steps_offset: 1, variance_type: 'fixed_small', timestep_spacing: 'leading' },
    }),
  }
}

/** The same for Kandinsky 5, with Qwen's vocabulary likewise: its special tokens' ids are those of the small one. */
function textFiles5(className) {
  const qwen = ['tokenizer.json', 'tokenizer_config.json', 'vocab.json', 'merges.txt', 'added_tokens.json']
  return {
    ...tokenizerFiles('qwen2', 'tokenizer', qwen),
    ...tokenizerFiles('clip-vit', 'tokenizer_2', [
      ...['vocab.json', 'merges.txt', 'tokenizer_config.json', 'special_tokens_map.json'],
    ]),
    'model_index.json': index(className, [
      ['transformer', 'Kandinsky5Transformer3DModel'],
      ['vae', 'AutoencoderKL'],
      ['text_encoder', 'Qwen2_5_VLForConditionalGeneration'],
      ['text_encoder_2', 'CLIPTextModel'],
      ['tokenizer', 'Qwen2Tokenizer'],
      ['tokenizer_2', 'CLIPTokenizer'],
      ['scheduler', 'FlowMatchEulerDiscreteScheduler'],
    ]),
    'scheduler/scheduler_config.json': JSON.stringify({ _class_name: 'FlowMatchEulerDiscreteScheduler', shift: 5 }),
  }
}

/** Checkpoints that are whole pipelines. */
const textFiles = {
  'kandinsky-2-2': textFiles22,
  'kandinsky-3': textFiles3,
  'kandinsky-5': () => textFiles5('Kandinsky5T2IPipeline'),
  'kandinsky-5-i2i': () => textFiles5('Kandinsky5I2IPipeline'),
}

/** @param options type: weight type; components: names, default all; seed */
export async function writeRandomCheckpoint(checkpoint, output, { type = 'f16', components, seed = 0 } = {}) {
  const configs = publishedConfigs[checkpoint]
  if (!configs)
    throw new Error(`unknown checkpoint ${checkpoint}: expected one of ${Object.keys(publishedConfigs).join(', ')}`)
  const names = components ?? Object.keys(configs)
  const metadata = {
    'general.architecture': 'kandinsky',
    'general.name': `${checkpoint} (random weights)`,
    'kandinsky.format_version': 1,
    'kandinsky.components': names,
  }
  for (const [file, text] of Object.entries(textFiles[checkpoint]?.() ?? {})) metadata[`file.${file}`] = text
  if (checkpoint === 'kandinsky-2-2')
    metadata['kandinsky.zero_image_embeds'] = Array.from({ length: 1280 }, (_, i) => Math.sin(i) / 2)
  const tensors = []
  const own = checkpoint === 'kandinsky-5-i2i' ? { text_encoder: { image_token_id: 2768 } } : {} // of the small vocabulary
  for (const component of names) {
    if (!configs[component])
      throw new Error(`${checkpoint} has no ${component}: expected ${Object.keys(configs).join(', ')}`)
    const { class: className, ...config } = { ...configs[component], ...own[component] }
    metadata[`${component}.class`] = className
    for (const [key, value] of Object.entries(config)) metadata[`${component}.config.${key}`] = value
    for (const { name, shape, precision, transposed } of binding().describeNetwork(className, component, config)) {
      tensors.push({
        name: `${component}.${name}`,
        path: '',
        offset: 0,
        bytes: 4 * shape.reduce((product, n) => product * n, 1),
        type: 'f32',
        shape,
        transposed,
        target: targetType(component, { name, shape, type: 'f32', transposed }, precision, type),
        random: randomSource(name, shape, seed + tensors.length),
      })
    }
  }
  await binding().writeGguf({ path: path.resolve(output), metadata, tensors, threads: 2 })
}

if (process.argv[1] === import.meta.filename) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { type: { type: 'string' }, components: { type: 'string' }, seed: { type: 'string' } },
  })
  const [checkpoint, output] = positionals
  if (!checkpoint || !output) {
    console.error(
      'Usage: node scripts/random-checkpoint.mjs <checkpoint> <out.gguf> [--type T] [--components a,b] [--seed N]',
    )
    process.exit(2)
  }
  await writeRandomCheckpoint(checkpoint, output, {
    type: values.type,
    components: values.components?.split(','),
    seed: Number(values.seed ?? 0),
  })
}

import path from 'node:path'
import type { RawImage } from '../image.js'
import type { WeightType } from '../native.js'
import { AutoPipelineForText2Image } from '../pipelines/auto.js'
import { Generator } from '../random.js'
import { schedulerByName } from '../schedulers/registry.js'
import {
  type CliOption,
  formatBytes,
  formatDuration,
  type Invocation,
  numberOption,
  ProgressBar,
  textOption,
  UsageError,
} from './terminal.js'

export const summary = 'make pictures from a text'
export const usage = 'Usage: kandinsky generate "a red apple" -m <model> [-o out.png] [options]'
export const options: Record<string, CliOption> = {
  model: {
    type: 'string',
    short: 'm',
    value: 'SOURCE',
    description: '.gguf file, folder or hub id (default: $KANDINSKY_MODEL)',
  },
  output: {
    type: 'string',
    short: 'o',
    value: 'FILE',
    description: 'picture to write, .png, .jpg or .webp (default: out.png)',
  },
  negative: { type: 'string', value: 'TEXT', description: 'what the picture should not show' },
  seed: {
    type: 'string',
    value: 'N',
    description: 'seed of the noise; the same seed gives the same picture (default: random)',
  },
  steps: { type: 'string', value: 'N', description: 'denoising steps (default: 100)' },
  guidance: { type: 'string', value: 'G', description: 'guidance scale (default: 4)' },
  width: { type: 'string', value: 'W', description: 'pixels, rounded up to a multiple of 64 (default: 512)' },
  height: { type: 'string', value: 'H', description: 'pixels, rounded up to a multiple of 64 (default: 512)' },
  count: { type: 'string', value: 'N', description: 'pictures to make (default: 1)' },
  scheduler: {
    type: 'string',
    value: 'NAME',
    description: "ddim, dpm++, euler, unipc … (default: the checkpoint's own)",
  },
  prior: { type: 'string', value: 'SOURCE', description: 'where the prior is, when the model holds only the decoder' },
  'prior-steps': { type: 'string', value: 'N', description: 'steps of the prior (default: 25)' },
  'prior-guidance': { type: 'string', value: 'G', description: 'guidance scale of the prior (default: 4)' },
  weights: { type: 'string', value: 'TYPE', description: 'weight type in memory, e.g. q8_0 (default: as stored)' },
  variant: { type: 'string', value: 'NAME', description: 'weight files of a folder to read, e.g. fp16' },
  device: { type: 'string', value: 'NAME', description: 'auto, cpu, cuda, cuda:1 … (default: auto)' },
  threads: { type: 'string', value: 'N', description: 'CPU threads (default: one per core)' },
  offload: {
    type: 'string',
    value: 'MODE',
    description: 'none, or model: keep only the running network on the device',
  },
  json: { type: 'boolean', description: 'print JSON lines' },
}

export async function run({ values, positionals, signal, json }: Invocation): Promise<void> {
  const [prompt, ...more] = positionals
  if (prompt === undefined || more.length > 0) throw new UsageError('expected one prompt (quote it)')
  const model = textOption(values, 'model') ?? process.env.KANDINSKY_MODEL
  if (!model) throw new UsageError('no model: name a .gguf file or a checkpoint folder with -m or in KANDINSKY_MODEL')
  const output = textOption(values, 'output') ?? 'out.png'
  const generator = new Generator(numberOption(values, 'seed'))
  const bar = new ProgressBar(json)
  const schedulerName = textOption(values, 'scheduler')

  await using pipe = await AutoPipelineForText2Image.fromPretrained(model, {
    prior: textOption(values, 'prior'),
    weights: textOption(values, 'weights') as WeightType | undefined,
    variant: textOption(values, 'variant'),
    device: textOption(values, 'device'),
    threads: numberOption(values, 'threads'),
    offload: textOption(values, 'offload') as 'none' | 'model' | undefined,
    signal,
    onProgress: ({ done, total }) => bar.update('loading', done, total, formatBytes(done)),
  })
  if (schedulerName !== undefined) pipe.scheduler = schedulerByName(schedulerName, pipe.scheduler.config)

  const started = performance.now()
  const { images } = await pipe.generate({
    prompt,
    negativePrompt: textOption(values, 'negative'),
    numInferenceSteps: numberOption(values, 'steps'),
    guidanceScale: numberOption(values, 'guidance'),
    width: numberOption(values, 'width'),
    height: numberOption(values, 'height'),
    numImagesPerPrompt: numberOption(values, 'count'),
    priorNumInferenceSteps: numberOption(values, 'prior-steps'),
    priorGuidanceScale: numberOption(values, 'prior-guidance'),
    generator,
    signal,
    onStep: ({ latents: _, ...event }) => {
      if (json) console.log(JSON.stringify(event))
      else
        bar.update(
          event.stage,
          event.step,
          event.steps,
          `${event.step}/${event.steps}, ${formatDuration(event.etaMs)} left`,
        )
    },
  })
  bar.end()
  const files = await save(images, output)
  const seconds = (performance.now() - started) / 1000
  if (json) console.log(JSON.stringify({ type: 'result', files, seed: generator.seed, seconds }))
  else console.log(`${files.join(', ')} (seed ${generator.seed}, ${seconds.toFixed(1)} s)`)
}

/** One picture keeps its name; several are numbered before the extension. */
async function save(images: RawImage[], output: string): Promise<string[]> {
  const { dir, name, ext } = path.parse(output)
  const files = images.map((_, i) => (images.length === 1 ? output : path.join(dir, `${name}-${i + 1}${ext}`)))
  for (const [i, image] of images.entries()) await image.save(files[i]!)
  return files
}

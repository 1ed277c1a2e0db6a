import type { RawImage } from '../images/image.js'
import { loadImage, makeImageGrid } from '../images/image.js'
import type { Tiling } from '../native.js'
import { WEIGHT_TYPES } from '../networks/policy.js'
import { AutoPipeline } from '../pipelines/auto.js'
import { maxSide } from '../pipelines/call/options.js'
import type { OnStep, StepEvent } from '../pipelines/call/progress.js'
import { plainSeed } from '../pipelines/call/provenance.js'
import { DepthEstimator } from '../pipelines/depth-estimator.js'
import { type Task, type TaskOptions, taskFor } from '../pipelines/families.js'
import { CombinedPipeline } from '../pipelines/kandinsky2/combined.js'
import type { PretrainedOptions } from '../pipelines/loading/parts.js'
import { outpaint } from '../pipelines/outpaint.js'
import { recipeScheduler } from '../pipelines/recipe-options.js'
import { Generator } from '../random.js'
import { schedulerByName, schedulerShortNames } from '../schedulers/registry.js'
import { demoNotes } from './demo.js'
import { differences, recipeFrom, withRecipe } from './from.js'
import { addLoras, loraFlags, loraOption } from './loras.js'
import { isPicture, type Mix, parseMix, resolveMix } from './mix.js'
import {
  type CliOption,
  type Invocation,
  numberOption,
  seedOption,
  shared,
  textOption,
  UsageError,
  weightTypeOption,
} from './options.js'
import { parseRoom } from './outpaint.js'
import { Outputs } from './outputs.js'
import { expectPicture, prepareOutput } from './plan.js'
import { expectNoPrompt, readPrompts } from './prompts.js'
import { positive, samplingOptions } from './sampling-options.js'
import { formatDuration, formatShare, ProgressBar, say } from './terminal.js'

export const summary = 'make pictures from texts and pictures'
export const usage = `Usage: kandinsky generate "a red apple" [-m <model>] [-o out.png] [options]
       kandinsky generate --from picture.png [options]
       kandinsky generate --prompts prompts.txt [options]
       echo "a red apple" | kandinsky generate - [options]`
export const options: Record<string, CliOption> = {
  model: {
    type: 'string',
    short: 'm',
    value: 'SOURCE',
    completion: 'model',
    description:
      '.gguf file, folder, name of a pulled model or hub id (default: $KANDINSKY_MODEL, or the packaged demo, which draws emoji)',
  },
  output: {
    type: 'string',
    short: 'o',
    value: 'FILE',
    completion: 'file',
    description:
      'picture to write, .png, .jpg or .webp; - for standard output. Several are numbered (default: out.png, numbered where there is one)',
  },
  quality: {
    type: 'string',
    value: 'N',
    description: 'of .jpg, .webp, .avif and .tif pictures, 1 to 100 (default: 80)',
  },
  prompts: {
    type: 'string',
    value: 'FILE',
    completion: 'file',
    description: 'make a picture of every line of a text file; - for standard input, as instead of the prompt',
  },
  from: {
    type: 'string',
    value: 'FILE',
    completion: 'file',
    description: 'make the picture of this PNG file again: all options are its own, but for those that are given',
  },
  image: { type: 'string', value: 'FILE', completion: 'file', description: 'picture to start from (a path or URL)' },
  strength: {
    type: 'string',
    value: 'S',
    description: 'with --image: how far to go from it, 0 to 1 (default: 0.3)',
  },
  mask: {
    type: 'string',
    api: 'maskImage',
    value: 'FILE',
    completion: 'file',
    description: 'with --image: repaint what is WHITE in this picture, keep the rest',
  },
  outpaint: {
    type: 'string',
    value: 'SIDES',
    description: 'with --image: paint so many pixels around it, e.g. left=128,right=64, or 128 for every side',
  },
  hint: {
    type: 'string',
    value: 'FILE',
    completion: 'file',
    description: 'control image (depth) for a ControlNet model; with --image, go from that picture',
  },
  'depth-model': {
    type: 'string',
    value: 'SOURCE',
    completion: 'model',
    description: 'with --hint: make the depth map of that picture with this network, e.g. Intel/dpt-large',
  },
  mix: {
    type: 'string',
    multiple: true,
    value: "'ITEM'=WEIGHT",
    description: 'instead of a prompt: a text or a picture (path or URL) and its share (repeatable)',
  },
  preview: {
    type: 'string',
    value: 'FILE',
    completion: 'file',
    description: 'picture of the state so far, written after every step',
  },
  negative: { type: 'string', api: 'negativePrompt', value: 'TEXT', description: 'what the picture should not show' },
  seed: {
    type: 'string',
    value: 'N',
    description:
      'seed of the noise; the same seed gives the same picture, further ones have the next seeds (default, or -1: random)',
  },
  steps: {
    type: 'string',
    api: 'numInferenceSteps',
    value: 'N',
    description: "denoising steps (default: the model's own, else 100, Kandinsky 3: 25)",
  },
  guidance: {
    type: 'string',
    api: 'guidanceScale',
    value: 'G',
    description: "guidance scale (default: the model's own, else 4, Kandinsky 3: 3)",
  },
  'guidance-interval': {
    type: 'string',
    api: 'guidanceInterval',
    value: 'FROM,TO',
    description: 'the part of the run that is guided, e.g. 0,0.6; the other steps take half the time (default: 0,1)',
  },
  forecast: {
    type: 'string',
    api: 'forecast',
    value: 'PRESET',
    completion: ['balanced', 'fast'],
    description: 'compute only some steps and forecast the others: balanced, fast, or INTERVAL,WARMUP,ORDER',
  },
  width: {
    type: 'string',
    value: 'W',
    description:
      "pixels, rounded up to a multiple of 64 (default: the model's own, else 512, Kandinsky 3: 1024; with --image its proportions)",
  },
  height: { type: 'string', value: 'H', description: 'the same' },
  'hires-scale': {
    type: 'string',
    api: 'hiresFix.scale',
    value: 'N',
    description: 'make the picture N times smaller first, enlarge it and go over it at full size, e.g. 2',
  },
  'hires-strength': {
    type: 'string',
    api: 'hiresFix.strength',
    value: 'S',
    description: 'with --hires-scale: how far to go from the enlarged picture, 0 to 1 (default: 0.3)',
  },
  count: { type: 'string', api: 'numImagesPerPrompt', value: 'N', description: 'pictures to make (default: 1)' },
  scheduler: {
    type: 'string',
    value: 'NAME',
    completion: schedulerShortNames.filter((name) => name !== 'unclip'),
    description: `${schedulerShortNames.filter((name) => name !== 'unclip').join(', ')} (default: the checkpoint's own)`,
  },
  prior: {
    type: 'string',
    value: 'SOURCE',
    completion: 'model',
    description: 'where the prior is, when the model holds only the decoder',
  },
  'prior-steps': {
    type: 'string',
    api: 'priorNumInferenceSteps',
    value: 'N',
    description: "steps of the prior (default: the model's own, else 25)",
  },
  'prior-guidance': {
    type: 'string',
    api: 'priorGuidanceScale',
    value: 'G',
    description: "guidance scale of the prior (default: the model's own, else 4)",
  },
  unet: {
    type: 'string',
    value: 'SOURCE',
    completion: 'model',
    description: "another UNet than the model's own, such as a fine-tune: its folder, a model or a hub id",
  },
  lora: loraOption,
  weights: {
    type: 'string',
    value: 'TYPE',
    completion: WEIGHT_TYPES,
    description: 'weight type in memory, e.g. q8_0 (default: as stored)',
  },
  variant: shared.variant,
  device: {
    type: 'string',
    value: 'NAME',
    completion: ['auto', 'cpu', 'cuda'],
    description: 'auto, cpu, cuda, cuda:1 … (default: auto)',
  },
  threads: shared.threads,
  offload: {
    type: 'string',
    value: 'MODE',
    completion: ['none', 'model'],
    description: 'none, or model: keep only the running network on the device',
  },
  tiling: {
    type: 'string',
    value: 'WHEN',
    completion: ['auto', 'always', 'never'],
    description: 'auto, always or never: decode in tiles, in less memory but slower (default: auto)',
  },
  quiet: shared.quiet,
  json: shared.json,
}

export async function run(invocation: Invocation): Promise<void> {
  const { signal, json, quiet } = invocation
  const recipe = await recipeFrom(textOption(invocation.values, 'from'))
  const { values, positionals } = recipe ? withRecipe(invocation, recipe) : invocation
  const mix = values.mix === undefined ? undefined : parseMix(values.mix as string[])
  const inputs = taskInputs(values)
  const schedulerName = textOption(values, 'scheduler')
  if (schedulerName !== undefined) schedulerByName(schedulerName, {})
  const recipesScheduler =
    schedulerName === undefined && recipe?.schedulerConfig ? await recipeScheduler(recipe) : undefined
  const settings = { ...samplingOptions(values), ...previewOptions(values) }
  const seed = seedOption(values, 'seed') ?? new Generator().seed
  const prompts = mix ? await expectNoPrompt(values, positionals) : await readPrompts(values, positionals, signal)
  const loras = loraFlags(values)
  const outputs = new Outputs(values, prompts.length * (settings.numImagesPerPrompt ?? 1))
  const room = parseRoom(values)
  await checkFiles(values, mix)
  await outputs.prepare()
  if (room) {
    const { image, maskImage, ...canvas } = await outpaint({ image: inputs.image!, ...room, signal })
    Object.assign(inputs, { image, maskImage })
    Object.assign(settings, canvas)
  }
  using bar = new ProgressBar({ json, quiet })
  const model = textOption(values, 'model') ?? (process.env.KANDINSKY_MODEL || demoModel(inputs, bar))
  for (const note of demoNotes(model, values, prompts, mix)) bar.note(note)

  await using pipe = await loadPipeline(model, inputs, { ...invocation, values }, bar)
  await addLoras(pipe, loras, signal)
  if (schedulerName !== undefined) pipe.scheduler = schedulerByName(schedulerName, pipe.scheduler.config)
  else if (recipesScheduler) pipe.scheduler = recipesScheduler

  const size = await proportionalSize(inputs, settings, pipe, signal)

  for (const [i, prompt] of prompts.entries()) {
    const started = performance.now()
    const place = prompts.length > 1 ? { promptIndex: i } : {}
    const { images } = (await pipe.generate({
      ...(mix ? { mix: { items: await resolveMix(mix, signal), weights: mix.weights } } : { prompt }),
      ...inputs,
      ...{ seed, signal, onStep: reportStep(bar, json, place, prompts.length) },
      ...settings,
      ...size,
    } as unknown as TaskOptions[Task])) as { images: RawImage[] }
    // As it was typed, pictures by their names.
    const { outpaint } = values
    for (const image of images) image.recipe = { ...image.recipe, ...(mix && { mix }), ...(room && { outpaint }) }
    bar.end()
    if (recipe) for (const note of differences(recipe, images[0]!.recipe!)) bar.note(note)
    const files: string[] = []
    for (const image of images) files.push(await outputs.save(image))
    const seconds = (performance.now() - started) / 1000
    const made = `(seed ${seed}, ${seconds.toFixed(1)} s)`
    if (json) {
      const text = mix ? {} : { prompt }
      console.log(JSON.stringify({ type: 'result', files, ...text, ...place, seed: plainSeed(seed), seconds }))
    } else if (outputs.toStandardOutput) bar.note(made)
    else if (quiet) console.log(files.join('\n'))
    else say(`${files.join(', ')} ${made}`)
  }
}

/** Loads the model for the task that the inputs make; a depth model first, which is gone before the others need the memory. */
async function loadPipeline(model: string, inputs: Inputs, { values, signal }: Invocation, bar: ProgressBar) {
  const task = taskFor(inputs)
  const loading: PretrainedOptions = {
    weights: weightTypeOption(values, 'weights'),
    variant: textOption(values, 'variant'),
    device: textOption(values, 'device'),
    threads: numberOption(values, 'threads', positive),
    signal,
    onProgress: ({ type, name, done, total }) =>
      bar.update(type === 'load' ? `load ${name}` : 'download', done, total, formatShare(done, total)),
  }
  const depthModel = textOption(values, 'depth-model')
  if (depthModel !== undefined) inputs.hint = await estimateDepth(inputs.hint, depthModel, loading)
  return AutoPipeline.fromPretrained<Task>(model, {
    task,
    ...loading,
    prior: textOption(values, 'prior'),
    unet: textOption(values, 'unet'),
    offload: textOption(values, 'offload') as 'none' | 'model' | undefined,
    tiling: textOption(values, 'tiling') as Tiling | undefined,
  })
}

interface Inputs {
  image?: string | RawImage
  maskImage?: string | RawImage
  hint?: string | RawImage
  strength?: number
}

/** The packaged model for a task. */
function demoModel({ maskImage, hint }: Inputs, bar: ProgressBar): string {
  if (hint !== undefined) throw new UsageError('--hint needs a ControlNet model: name it with -m or in KANDINSKY_MODEL')
  bar.note('No model given (-m): using the packaged demo, which draws emoji of 128 x 128 pixels.')
  return maskImage === undefined ? 'demo' : 'demo-inpaint'
}

function taskInputs(values: Invocation['values']): Inputs {
  const inputs = {
    image: textOption(values, 'image'),
    maskImage: textOption(values, 'mask'),
    hint: textOption(values, 'hint'),
    strength: numberOption(values, 'strength', { min: 0, max: 1 }),
  }
  // A task refuses the inputs of another by name, so those that are not given must be absent.
  return Object.fromEntries(Object.entries(inputs).filter(([, value]) => value !== undefined))
}

/** The depth map of a picture. */
async function estimateDepth(picture: Inputs['hint'], source: string, loading: PretrainedOptions) {
  if (picture === undefined) throw new UsageError('--depth-model needs --hint, the picture whose depth it estimates')
  await using estimator = await DepthEstimator.fromPretrained(source, loading)
  return (await estimator.estimate(picture, { signal: loading.signal })).depth
}

/** A picture of the state so far after every step, where one is asked for. */
function previewOptions(values: Invocation['values']) {
  const file = textOption(values, 'preview')
  return {
    preview: file !== undefined,
    callbackOnStepEnd: async ({ preview }: StepEvent) => {
      if (file !== undefined && preview) await savePreview(preview, file)
    },
  }
}

/**
 * A size with the proportions of the picture to start from, where none is given, of as many pixels as the model's own;
 * Kandinsky 3 takes the picture's own size by itself. The picture is loaded here and stays loaded.
 */
async function proportionalSize(
  inputs: Inputs,
  { width, height }: { width?: number | undefined; height?: number | undefined },
  pipe: object,
  signal: AbortSignal,
) {
  if (!(pipe instanceof CombinedPipeline) || (width !== undefined && height !== undefined)) return undefined
  for (const name of ['image', 'hint'] as const)
    if (inputs[name] !== undefined) inputs[name] = await loadImage(inputs[name], { signal })
  const picture = (inputs.image ?? inputs.hint) as RawImage | undefined
  if (!picture) return undefined
  const { defaultSize } = pipe
  const aspect = picture.width / picture.height
  const wide =
    width ?? (height === undefined ? Math.sqrt(defaultSize.width * defaultSize.height * aspect) : height * aspect)
  const side = (pixels: number) => Math.min(maxSide, Math.max(64, Math.round(pixels / 64) * 64))
  return { width: width ?? side(wide), height: height ?? side(wide / aspect) }
}

/** Pictures to be read are there, and the preview has a place. */
async function checkFiles(values: Invocation['values'], mix?: Mix): Promise<void> {
  for (const flag of ['image', 'mask', 'hint']) {
    const source = textOption(values, flag)
    if (source !== undefined) await expectPicture(flag, source)
  }
  for (const item of mix?.items.filter(isPicture) ?? []) await expectPicture('mix', item)
  const preview = textOption(values, 'preview')
  if (preview !== undefined) await prepareOutput('preview', preview)
}

/** The pictures so far side by side, at the size they will have. */
async function savePreview(preview: RawImage[], file: string): Promise<void> {
  const enlarged = preview.map((image) => image.resize(image.width * 8, image.height * 8))
  await makeImageGrid(enlarged, 1, enlarged.length).save(file)
}

function reportStep(bar: ProgressBar, json: boolean, place: { promptIndex?: number }, prompts: number): OnStep {
  const prefix = place.promptIndex === undefined ? '' : `${place.promptIndex + 1}/${prompts} `
  return ({ latents: _, preview: __, ...event }) => {
    const { stage, step, steps, etaMs } = event
    if (json) console.log(JSON.stringify({ ...event, ...place }))
    else bar.update(prefix + stage, step, steps, `${step}/${steps}, ${formatDuration(etaMs)} left`)
  }
}

// What a model takes, found without loading it: every network is built as for a picture, with its real shapes, but reads no
// weights and computes nothing.
import type { Checkpoint } from '../checkpoint/pipeline-files.js'
import { planConversion } from '../convert.js'
import { RawImage } from '../images/image.js'
import type { Tiling, WeightType } from '../native.js'
import type { NetworkClass } from '../networks/calls.js'
import type { NetworkUsage } from '../networks/network.js'
import { weightBytes } from '../networks/policy.js'
import { classFor, type Task, type TaskOptions, taskFor } from './families.js'

export interface EstimateOptions {
  /** type of the large matrices, as `convert` writes them; default: as stored */
  weights?: WeightType | undefined
  /** of the pictures, in pixels; default: the model's own */
  width?: number | undefined
  height?: number | undefined
  /** pictures at once, default 1 */
  count?: number | undefined
  /** parts that `convert` would be told to skip */
  skip?: readonly string[] | undefined
  signal?: AbortSignal | undefined
}

/** Bytes, unless said otherwise. */
export interface Estimate {
  task: Task
  width: number
  height: number
  count: number
  /** of a .gguf file: its networks and all else */
  disk: { total: number; networks: { name: string; bytes: number }[]; texts: number }
  /** of the process on the CPU with the file mapped: the most at a time, and that with pictures decoded in tiles */
  memory: { peak: number; tiledPeak: number; stages: Stage[] }
}

/** One network's turn. */
export interface Stage {
  name: string
  /** mapped from the file while the network runs; the system takes it back where memory is short */
  weights: number
  /** activations */
  compute: number
}

/** Networks that a loop calls keep their activations' memory between its steps, and afterwards. */
const IN_LOOP: readonly string[] = [
  'PriorTransformer',
  'UNet2DConditionModel',
  'Kandinsky3UNet',
  'Kandinsky5Transformer3DModel',
] satisfies NetworkClass[]
/** Node.js, the addon, sharp and a tokenizer: what a process has before a network runs. Measured on Linux. */
const PROCESS_BYTES = 130e6

/**
 * @param checkpoint a complete model; of its weight files only headers are read
 * @throws KandinskyError as loading it and making a picture would
 */
export async function estimate(checkpoint: Checkpoint, options: EstimateOptions = {}): Promise<Estimate> {
  const { tensors, components } = await planConversion(checkpoint, options)
  const networks = components.map(({ name }) => {
    const own = tensors.filter((tensor) => tensor.name.startsWith(`${name}.`))
    return { name, bytes: own.reduce((sum, { target, shape }) => sum + weightBytes(target, shape), 0) }
  })
  const texts = (await Promise.all((await checkpoint.texts()).map((path) => checkpoint.text(path)))).join('')
  const whole = await dryRun(checkpoint, options, 'never')
  const tiled = await dryRun(checkpoint, options, 'always')
  return {
    ...{ task: whole.task, width: whole.width, height: whole.height, count: options.count ?? 1 },
    disk: {
      total: networks.reduce((sum, { bytes }) => sum + bytes, 0) + texts.length,
      networks,
      texts: texts.length,
    },
    memory: {
      peak: peakOf(whole.stages),
      tiledPeak: peakOf(tiled.stages),
      stages: whole.stages.map(({ name, weights, compute }) => ({ name, weights, compute })),
    },
  }
}

async function dryRun(
  checkpoint: Checkpoint,
  { weights, width, height, count, signal }: EstimateOptions,
  tiling: Tiling,
) {
  const inputs = await inputsOf(checkpoint, width ?? 512, height ?? 512)
  const task = taskFor(inputs)
  const stages = new Map<string, Stage & { className: string }>()
  const note = ({ name, className, weights: bytes, compute }: NetworkUsage) => {
    // Made once and kept in the file.
    if (name === 'image_encoder') return
    stages.set(`${className} ${name}`, { name, className, weights: bytes, compute })
  }
  const Class = await classFor(task, checkpoint)
  const pipe = await Class.fromCheckpoint(checkpoint, { weights, tiling, device: 'cpu', dryRun: note, signal })
  try {
    const call = { prompt: 'a', ...inputs, numInferenceSteps: 1, width, height, numImagesPerPrompt: count, signal }
    const { images } = (await pipe.generate(call as unknown as TaskOptions[Task])) as { images: RawImage[] }
    return { task, width: images[0]!.width, height: images[0]!.height, stages: [...stages.values()] }
  } finally {
    await pipe.dispose()
  }
}

/** The pictures that a model cannot do without, as the config of its UNet or transformer tells. */
async function inputsOf(checkpoint: Checkpoint, width: number, height: number) {
  const decoder = checkpoint.side('decoder')
  const config = ((await decoder?.component('unet')) ?? (await decoder?.component('transformer')))?.config ?? {}
  const picture = new RawImage(new Uint8Array(3 * width * height), width, height)
  if (config.addition_embed_type === 'image_hint') return { hint: picture }
  if (config.visual_cond === true) return { image: picture }
  return config.in_channels === 9 ? { image: picture, maskImage: picture.convert('L') } : {}
}

/** The most memory at a time: of each turn its own, and what earlier ones keep. */
function peakOf(stages: readonly (Stage & { className: string })[]): number {
  let kept = 0
  let peak = 0
  for (const { className, weights, compute } of stages) {
    peak = Math.max(peak, kept + weights + compute)
    if (IN_LOOP.includes(className)) kept += compute
  }
  return PROCESS_BYTES + peak
}

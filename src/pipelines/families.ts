// The one list of families: which checkpoints belong to each, and which class does which task for it. The AutoPipelines,
// the command line and everything else that does not name a class read it.

import { type Checkpoint, expectComplete } from '../checkpoint/pipeline-files.js'
import { KandinskyError } from '../errors.js'
import type { ConfigValue } from '../native.js'
import type { Scheduler } from '../schedulers/scheduler.js'
import type { Exact } from './call/options.js'
import type { StepEvent } from './call/progress.js'
import type { CombinedOptions, CombinedPretrainedOptions } from './kandinsky2/combined.js'
import {
  KandinskyCombinedPipeline,
  KandinskyImg2ImgCombinedPipeline,
  KandinskyInpaintCombinedPipeline,
} from './kandinsky2/kandinsky-combined.js'
import type { TextToImageOptions } from './kandinsky2/kandinsky-v22.js'
import {
  KandinskyV22CombinedPipeline,
  KandinskyV22ControlnetCombinedPipeline,
  KandinskyV22ControlnetImg2ImgCombinedPipeline,
  KandinskyV22Img2ImgCombinedPipeline,
  KandinskyV22InpaintCombinedPipeline,
} from './kandinsky2/kandinsky-v22-combined.js'
import type { ControlnetOptions } from './kandinsky2/kandinsky-v22-controlnet.js'
import type { ControlnetImg2ImgOptions } from './kandinsky2/kandinsky-v22-controlnet-img2img.js'
import type { Img2ImgOptions } from './kandinsky2/kandinsky-v22-img2img.js'
import type { InpaintOptions } from './kandinsky2/kandinsky-v22-inpaint.js'
import { Kandinsky3Pipeline } from './kandinsky3/kandinsky3.js'
import { Kandinsky3Img2ImgPipeline } from './kandinsky3/kandinsky3-img2img.js'
import { Kandinsky3InpaintPipeline } from './kandinsky3/kandinsky3-inpaint.js'
import { Kandinsky5I2IPipeline } from './kandinsky5/kandinsky5-i2i.js'
import { Kandinsky5T2IPipeline } from './kandinsky5/kandinsky5-t2i.js'
import type { LoraLoader } from './loading/lora.js'
import { requireSide } from './loading/open.js'
import type { ImageResult, ImagesOf } from './sampling/decoding.js'

/** What each task takes in one call from text to picture. */
export interface TaskOptions {
  'text-to-image': CombinedOptions<TextToImageOptions>
  'image-to-image': CombinedOptions<Img2ImgOptions>
  inpainting: CombinedOptions<InpaintOptions>
  controlnet: CombinedOptions<ControlnetOptions>
  'controlnet-image-to-image': CombinedOptions<ControlnetImg2ImgOptions>
}
/** What can be done in one call from text to picture. */
export type Task = keyof TaskOptions

/** A pipeline that makes pictures of texts, whatever its family. */
export interface PromptPipeline<Options> extends Pick<LoraLoader, keyof LoraLoader> {
  scheduler: Scheduler
  /** Pictures for the prompts. @throws KandinskyError, or `signal.reason` */
  generate<Given extends Options>(options: Exact<Options, Given>): Promise<ImageResult<ImagesOf<Given>>>
  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', images }` event. */
  stream<Given extends Options>(
    options: Exact<Options, Given>,
  ): AsyncGenerator<StepEvent | ({ type: 'result' } & ImageResult<ImagesOf<Given>>), void, undefined>
  /** Waits for running calls, then frees every network. Later calls reject with `DISPOSED`. Idempotent. */
  dispose(): Promise<void>
  /** `dispose`, for `await using` */
  [Symbol.asyncDispose](): Promise<void>
}

export interface PromptPipelineClass<Options> {
  fromCheckpoint(checkpoint: Checkpoint, options: CombinedPretrainedOptions): Promise<PromptPipeline<Options>>
}

export interface Family {
  name: string
  /** the network that tells the family, and what its config may say */
  network: { slot: string; className: string; config: Readonly<Record<string, readonly ConfigValue[]>> }
  tasks: { readonly [Name in Task]?: PromptPipelineClass<TaskOptions[Name]> }
}

export const families: readonly Family[] = [
  {
    name: 'Kandinsky 2.1',
    network: { slot: 'unet', className: 'UNet2DConditionModel', config: { addition_embed_type: ['text_image'] } },
    tasks: {
      'text-to-image': KandinskyCombinedPipeline,
      'image-to-image': KandinskyImg2ImgCombinedPipeline,
      inpainting: KandinskyInpaintCombinedPipeline,
    },
  },
  {
    name: 'Kandinsky 2.2',
    network: {
      slot: 'unet',
      className: 'UNet2DConditionModel',
      config: { addition_embed_type: ['image', 'image_hint'] },
    },
    tasks: {
      'text-to-image': KandinskyV22CombinedPipeline,
      'image-to-image': KandinskyV22Img2ImgCombinedPipeline,
      inpainting: KandinskyV22InpaintCombinedPipeline,
      controlnet: KandinskyV22ControlnetCombinedPipeline,
      'controlnet-image-to-image': KandinskyV22ControlnetImg2ImgCombinedPipeline,
    },
  },
  {
    name: 'Kandinsky 3',
    network: { slot: 'unet', className: 'Kandinsky3UNet', config: {} },
    tasks: {
      'text-to-image': Kandinsky3Pipeline,
      'image-to-image': Kandinsky3Img2ImgPipeline,
      inpainting: Kandinsky3InpaintPipeline,
    },
  },
  {
    name: 'Kandinsky 5',
    network: { slot: 'transformer', className: 'Kandinsky5Transformer3DModel', config: { visual_cond: [false] } },
    tasks: { 'text-to-image': Kandinsky5T2IPipeline },
  },
  {
    name: 'Kandinsky 5 for editing',
    network: { slot: 'transformer', className: 'Kandinsky5Transformer3DModel', config: { visual_cond: [true] } },
    tasks: { 'image-to-image': Kandinsky5I2IPipeline },
  },
]

/**
 * The class that does a task with a checkpoint.
 * @throws KandinskyError `UNSUPPORTED_MODEL` if the checkpoint is of no family, or its family does not do the task
 */
export async function classFor<Name extends Task>(
  task: Name,
  checkpoint: Checkpoint,
): Promise<PromptPipelineClass<TaskOptions[Name]>> {
  const family = await familyOf(checkpoint)
  const found = family.tasks[task] as PromptPipelineClass<TaskOptions[Name]> | undefined
  if (found) return found
  throw new KandinskyError(
    'UNSUPPORTED_MODEL',
    `Expected a checkpoint for ${task} but ${checkpoint.source} is ${family.name}, which does ${Object.keys(family.tasks).join(', ')}`,
  )
}

async function familyOf(checkpoint: Checkpoint): Promise<Family> {
  const decoder = requireSide(checkpoint, 'decoder')
  expectComplete(decoder, ['scheduler'])
  const seen = new Set<string>()
  for (const family of families) {
    const { slot, className, config } = family.network
    const component = await decoder.component(slot)
    const keys = Object.keys(config)
    if (component?.className === className && keys.every((key) => config[key]!.includes(component.config[key]!)))
      return family
    seen.add(
      component
        ? `a ${component.className}${keys.map((key) => ` with ${key} ${component.config[key] ?? 'unset'}`).join('')}`
        : `no ${slot}`,
    )
  }
  throw new KandinskyError(
    'UNSUPPORTED_MODEL',
    `Expected a checkpoint of ${families.map(({ name }) => name).join(', ')} but ${checkpoint.source} has ${[...seen].join('; ')}`,
  )
}

/** The inputs beside the text, which say what the task is by being there. */
export type TaskInputs = { [Name in 'image' | 'maskImage' | 'hint' | 'strength']?: unknown }

/**
 * The task that takes these inputs.
 * @throws KandinskyError `INVALID_ARGUMENT` for inputs that no task takes together
 */
export function taskFor({ image, maskImage, hint, strength }: TaskInputs): Task {
  if (maskImage !== undefined && image === undefined) throw conflict('maskImage needs image')
  if (maskImage !== undefined && hint !== undefined) throw conflict('maskImage and hint exclude each other')
  if (strength !== undefined && (image === undefined || maskImage !== undefined))
    throw conflict('strength needs image, and no maskImage')
  if (hint !== undefined) return image === undefined ? 'controlnet' : 'controlnet-image-to-image'
  if (maskImage !== undefined) return 'inpainting'
  return image === undefined ? 'text-to-image' : 'image-to-image'
}

function conflict(message: string): KandinskyError {
  return new KandinskyError('INVALID_ARGUMENT', message)
}

// Which pipeline `kandinsky generate` runs: the inputs that are given say what the task is.
import type { RawImage } from '../images/image.js'
import { AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image } from '../pipelines/auto.js'
import { CombinedPipeline } from '../pipelines/kandinsky2/combined.js'
import type { DecodingOptions } from '../pipelines/kandinsky2/decoder.js'
import {
  type ControlnetOptions,
  KandinskyV22ControlnetPipeline,
} from '../pipelines/kandinsky2/kandinsky-v22-controlnet.js'
import {
  type ControlnetImg2ImgOptions,
  KandinskyV22ControlnetImg2ImgPipeline,
} from '../pipelines/kandinsky2/kandinsky-v22-controlnet-img2img.js'
import { KandinskyV22PriorPipeline } from '../pipelines/kandinsky2/kandinsky-v22-prior.js'
import type { CombinedPretrainedOptions } from '../pipelines/loading/load.js'
import { UsageError } from './terminal.js'

class ControlnetCombined extends CombinedPipeline<ControlnetOptions> {
  static readonly priorClass = KandinskyV22PriorPipeline
  static readonly decoderClass = KandinskyV22ControlnetPipeline
}

class ControlnetImg2ImgCombined extends CombinedPipeline<ControlnetImg2ImgOptions> {
  static readonly priorClass = KandinskyV22PriorPipeline
  static readonly decoderClass = KandinskyV22ControlnetImg2ImgPipeline
}

/** The inputs beside the text; absent ones are not given. */
export interface TaskInputs {
  image?: string
  maskImage?: string
  hint?: string | RawImage
  strength?: number
}

/** A pipeline of any task: its options are checked when it runs. */
export type AnyPipeline = CombinedPipeline<DecodingOptions & TaskInputs>

interface Loader {
  fromPretrained(source: string, options: CombinedPretrainedOptions): Promise<object>
}

/** @throws UsageError for inputs that no task takes together */
export function pipelineFor({ image, maskImage, hint, strength }: TaskInputs): {
  fromPretrained(source: string, options: CombinedPretrainedOptions): Promise<AnyPipeline>
} {
  if (maskImage !== undefined && image === undefined) throw new UsageError('--mask needs --image')
  if (maskImage !== undefined && hint !== undefined) throw new UsageError('--mask and --hint exclude each other')
  if (strength !== undefined && (image === undefined || maskImage !== undefined))
    throw new UsageError('--strength needs --image, and no --mask')
  // Only the classes differ in their options; those of this call fit the one chosen here.
  return loaderFor({ image, maskImage, hint }) as ReturnType<typeof pipelineFor>
}

function loaderFor({ image, maskImage, hint }: Pick<TaskInputs, 'image' | 'maskImage' | 'hint'>): Loader {
  if (hint !== undefined) return image === undefined ? ControlnetCombined : ControlnetImg2ImgCombined
  if (maskImage !== undefined) return AutoPipelineForInpainting
  return image === undefined ? AutoPipelineForText2Image : AutoPipelineForImage2Image
}

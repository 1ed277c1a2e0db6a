export { type ConvertOptions, convert } from './convert/convert.js'
export { KandinskyError, type KandinskyErrorCode } from './errors.js'
export { type ImageInput, loadImage, makeImageGrid, RawImage, readRecipe } from './image.js'
export { listDevices } from './models.js'
export type { DeviceInfo, WeightType } from './native.js'
export { AutoPipelineForText2Image } from './pipelines/auto.js'
export {
  type DecoderOptions,
  type ImageResult,
  KandinskyV22Pipeline,
  type OutputType,
} from './pipelines/kandinsky-v22.js'
export { type CombinedOptions, KandinskyV22CombinedPipeline } from './pipelines/kandinsky-v22-combined.js'
export {
  type InterpolateOptions,
  KandinskyV22PriorPipeline,
  type PriorOptions,
  type PriorResult,
} from './pipelines/kandinsky-v22-prior.js'
export type { CombinedPretrainedOptions, LoadProgress, PretrainedOptions } from './pipelines/load.js'
export type { CallOptions, OnStep, StepEvent } from './pipelines/progress.js'
export { DDIMScheduler, DDPMScheduler, UnCLIPScheduler } from './pipelines/schedulers.js'
export { Generator, type RandomSource } from './random.js'
export type { Scheduler } from './schedulers/scheduler.js'
export { Tensor } from './tensor.js'

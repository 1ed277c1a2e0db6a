export { type ConvertOptions, type ConvertResult, convert } from './convert.js'
export { KandinskyError, type KandinskyErrorCode } from './errors.js'
export {
  type ImageFormat,
  type ImageInput,
  type LoadImageOptions,
  loadImage,
  makeImageGrid,
  RawImage,
  readRecipe,
  type SaveOptions,
} from './images/image.js'
export type { ImageMode } from './images/pixels.js'
export type { Recipe } from './images/recipe.js'
export type { Resample } from './images/resize.js'
export type { DeviceInfo, Packing, Tiling, WeightType } from './native.js'
export { listDevices } from './networks/devices.js'
export type { NetworkUsage } from './networks/network.js'
export type { Rule } from './networks/policy.js'
export {
  AutoPipeline,
  AutoPipelineForImage2Image,
  AutoPipelineForInpainting,
  AutoPipelineForText2Image,
  type AutoPretrainedOptions,
} from './pipelines/auto.js'
export type { CallbackOnStepEnd, CallOptions, OnStep, StepEvent, StepReplacement } from './pipelines/call/progress.js'
export { DepthEstimator, type DepthResult } from './pipelines/depth-estimator.js'
export { type PromptPipeline, type Task, type TaskInputs, type TaskOptions, taskFor } from './pipelines/families.js'
export * from './pipelines/kandinsky2/index.js'
export * from './pipelines/kandinsky3/index.js'
export * from './pipelines/kandinsky5/index.js'
export { type FuseOptions, LoraLoader, type LoraOptions } from './pipelines/loading/lora.js'
export type { LoadProgress } from './pipelines/loading/open.js'
export type { PretrainedOptions } from './pipelines/loading/parts.js'
export { type OutpaintInputs, type OutpaintOptions, outpaint } from './pipelines/outpaint.js'
export { type RecipeOptions, recipeOptions, recipeScheduler } from './pipelines/recipe-options.js'
export type { OutputType } from './pipelines/sampling/autoencoder.js'
export type { DecodingOptions, ImageResult } from './pipelines/sampling/decoding.js'
export type { Forecast, ForecastOption } from './pipelines/sampling/forecast.js'
export type { GuidanceInterval } from './pipelines/sampling/guidance.js'
export type { HiresFix, HiresFixOption } from './pipelines/sampling/hires-fix.js'
export {
  DDIMScheduler,
  DDPMScheduler,
  DPMSolverMultistepScheduler,
  EulerAncestralDiscreteScheduler,
  EulerDiscreteScheduler,
  FlowMatchEulerDiscreteScheduler,
  HeunDiscreteScheduler,
  Kandinsky3FlashScheduler,
  Kandinsky3Scheduler,
  LCMScheduler,
  PNDMScheduler,
  UnCLIPScheduler,
  UniPCMultistepScheduler,
} from './pipelines/schedulers.js'
export {
  Generator,
  type GeneratorAlgorithm,
  type GeneratorPosition,
  type NoiseDtype,
  type RandomSource,
} from './random.js'
export type { Scheduler, StepOptions, StepOutput } from './schedulers/scheduler.js'
export { Tensor, type TensorJson } from './tensor.js'
export { createWorker, type KandinskyWorker, type WorkerOptions } from './worker/client.js'
export type { RemotePipeline } from './worker/pipelines.js'

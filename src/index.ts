export { type ConvertOptions, convert } from './convert.js'
export { KandinskyError, type KandinskyErrorCode } from './errors.js'
export { type ImageInput, loadImage, makeImageGrid, RawImage, readRecipe } from './images/image.js'
export type { DeviceInfo, WeightType } from './native.js'
export { listDevices } from './networks/network.js'
export { AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image } from './pipelines/auto.js'
export type { CallbackOnStepEnd, CallOptions, OnStep, StepEvent } from './pipelines/call/progress.js'
export { DepthEstimator, type DepthResult } from './pipelines/depth-estimator.js'
export type { CombinedOptions } from './pipelines/kandinsky2/combined.js'
export type { DecodingOptions, Embeds, ImageResult, OutputType } from './pipelines/kandinsky2/decoder.js'
export { makeHint } from './pipelines/kandinsky2/hint.js'
export { type KandinskyOptions, KandinskyPipeline } from './pipelines/kandinsky2/kandinsky.js'
export {
  KandinskyCombinedPipeline,
  KandinskyImg2ImgCombinedPipeline,
  KandinskyInpaintCombinedPipeline,
} from './pipelines/kandinsky2/kandinsky-combined.js'
export { type KandinskyImg2ImgOptions, KandinskyImg2ImgPipeline } from './pipelines/kandinsky2/kandinsky-img2img.js'
export { type KandinskyInpaintOptions, KandinskyInpaintPipeline } from './pipelines/kandinsky2/kandinsky-inpaint.js'
export { KandinskyPriorPipeline } from './pipelines/kandinsky2/kandinsky-prior.js'
export { KandinskyV22Pipeline, type TextToImageOptions } from './pipelines/kandinsky2/kandinsky-v22.js'
export {
  KandinskyV22CombinedPipeline,
  KandinskyV22Img2ImgCombinedPipeline,
  KandinskyV22InpaintCombinedPipeline,
} from './pipelines/kandinsky2/kandinsky-v22-combined.js'
export {
  type ControlnetOptions,
  KandinskyV22ControlnetPipeline,
} from './pipelines/kandinsky2/kandinsky-v22-controlnet.js'
export {
  type ControlnetImg2ImgOptions,
  KandinskyV22ControlnetImg2ImgPipeline,
} from './pipelines/kandinsky2/kandinsky-v22-controlnet-img2img.js'
export { type Img2ImgOptions, KandinskyV22Img2ImgPipeline } from './pipelines/kandinsky2/kandinsky-v22-img2img.js'
export { type InpaintOptions, KandinskyV22InpaintPipeline } from './pipelines/kandinsky2/kandinsky-v22-inpaint.js'
export { KandinskyV22PriorPipeline } from './pipelines/kandinsky2/kandinsky-v22-prior.js'
export {
  KandinskyV22PriorEmb2EmbPipeline,
  type PriorEmb2EmbOptions,
} from './pipelines/kandinsky2/kandinsky-v22-prior-emb2emb.js'
export type { ImageOrPrompt, InterpolateOptions, PriorOptions, PriorResult } from './pipelines/kandinsky2/prior.js'
export type {
  CombinedPretrainedOptions,
  LoadProgress,
  NetworkPretrainedOptions,
  PretrainedOptions,
} from './pipelines/loading/load.js'
export {
  DDIMScheduler,
  DDPMScheduler,
  DPMSolverMultistepScheduler,
  EulerAncestralDiscreteScheduler,
  EulerDiscreteScheduler,
  HeunDiscreteScheduler,
  LCMScheduler,
  PNDMScheduler,
  UnCLIPScheduler,
  UniPCMultistepScheduler,
} from './pipelines/schedulers.js'
export { Generator, type RandomSource } from './random.js'
export type { Scheduler } from './schedulers/scheduler.js'
export { Tensor, type TensorJson } from './tensor.js'

// The public names of Kandinsky 2.1 and 2.2.
export type { CombinedOptions, CombinedPretrainedOptions, Mix } from './combined.js'
export type { Embeds } from './decoder.js'
export { makeHint } from './hint.js'
export { type KandinskyOptions, KandinskyPipeline } from './kandinsky.js'
export {
  KandinskyCombinedPipeline,
  KandinskyImg2ImgCombinedPipeline,
  KandinskyInpaintCombinedPipeline,
} from './kandinsky-combined.js'
export { type KandinskyImg2ImgOptions, KandinskyImg2ImgPipeline } from './kandinsky-img2img.js'
export { type KandinskyInpaintOptions, KandinskyInpaintPipeline } from './kandinsky-inpaint.js'
export { KandinskyPriorPipeline } from './kandinsky-prior.js'
export { KandinskyV22Pipeline, type TextToImageOptions } from './kandinsky-v22.js'
export {
  KandinskyV22CombinedPipeline,
  KandinskyV22ControlnetCombinedPipeline,
  KandinskyV22ControlnetImg2ImgCombinedPipeline,
  KandinskyV22Img2ImgCombinedPipeline,
  KandinskyV22InpaintCombinedPipeline,
} from './kandinsky-v22-combined.js'
export {
  type ControlnetOptions,
  KandinskyV22ControlnetPipeline,
} from './kandinsky-v22-controlnet.js'
export {
  type ControlnetImg2ImgOptions,
  KandinskyV22ControlnetImg2ImgPipeline,
} from './kandinsky-v22-controlnet-img2img.js'
export { type Img2ImgOptions, KandinskyV22Img2ImgPipeline } from './kandinsky-v22-img2img.js'
export { type InpaintOptions, KandinskyV22InpaintPipeline } from './kandinsky-v22-inpaint.js'
export { KandinskyV22PriorPipeline } from './kandinsky-v22-prior.js'
export {
  KandinskyV22PriorEmb2EmbPipeline,
  type PriorEmb2EmbOptions,
} from './kandinsky-v22-prior-emb2emb.js'
export type { ImageOrPrompt, InterpolateOptions, PriorOptions, PriorResult } from './prior.js'

// The 2.2 prior and a 2.2 decoder in one call: what the AutoPipelines give.
import { CombinedPipeline } from './combined.js'
import { KandinskyV22Pipeline, type TextToImageOptions } from './kandinsky-v22.js'
import { type ControlnetOptions, KandinskyV22ControlnetPipeline } from './kandinsky-v22-controlnet.js'
import {
  type ControlnetImg2ImgOptions,
  KandinskyV22ControlnetImg2ImgPipeline,
} from './kandinsky-v22-controlnet-img2img.js'
import { type Img2ImgOptions, KandinskyV22Img2ImgPipeline } from './kandinsky-v22-img2img.js'
import { type InpaintOptions, KandinskyV22InpaintPipeline } from './kandinsky-v22-inpaint.js'
import { KandinskyV22PriorPipeline } from './kandinsky-v22-prior.js'

/** Text to picture. */
export class KandinskyV22CombinedPipeline extends CombinedPipeline<TextToImageOptions> {
  static readonly priorClass = KandinskyV22PriorPipeline
  static readonly decoderClass = KandinskyV22Pipeline
}

/** Text and picture to picture; several prompts take one picture or one each. */
export class KandinskyV22Img2ImgCombinedPipeline extends CombinedPipeline<Img2ImgOptions> {
  static readonly priorClass = KandinskyV22PriorPipeline
  static readonly decoderClass = KandinskyV22Img2ImgPipeline
}

/** Repaints the white part of a mask after a text; see `KandinskyV22InpaintPipeline`. */
export class KandinskyV22InpaintCombinedPipeline extends CombinedPipeline<InpaintOptions> {
  static readonly priorClass = KandinskyV22PriorPipeline
  static readonly decoderClass = KandinskyV22InpaintPipeline
}

/** Text and a control image (depth) to picture; see `KandinskyV22ControlnetPipeline`. */
export class KandinskyV22ControlnetCombinedPipeline extends CombinedPipeline<ControlnetOptions> {
  static readonly priorClass = KandinskyV22PriorPipeline
  static readonly decoderClass = KandinskyV22ControlnetPipeline
}

/** Text, picture and a control image (depth) to picture; see `KandinskyV22ControlnetImg2ImgPipeline`. */
export class KandinskyV22ControlnetImg2ImgCombinedPipeline extends CombinedPipeline<ControlnetImg2ImgOptions> {
  static readonly priorClass = KandinskyV22PriorPipeline
  static readonly decoderClass = KandinskyV22ControlnetImg2ImgPipeline
}

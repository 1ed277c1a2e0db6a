// The 2.1 prior and a 2.1 decoder in one call: what the AutoPipelines give.
import { CombinedPipeline } from './combined.js'
import { type KandinskyOptions, KandinskyPipeline } from './kandinsky.js'
import { type KandinskyImg2ImgOptions, KandinskyImg2ImgPipeline } from './kandinsky-img2img.js'
import { type KandinskyInpaintOptions, KandinskyInpaintPipeline } from './kandinsky-inpaint.js'
import { KandinskyPriorPipeline } from './kandinsky-prior.js'

/** Text to picture. */
export class KandinskyCombinedPipeline extends CombinedPipeline<KandinskyOptions> {
  static readonly priorClass = KandinskyPriorPipeline
  static readonly decoderClass = KandinskyPipeline
}

/** Text and picture to picture; several prompts take one picture or one each. */
export class KandinskyImg2ImgCombinedPipeline extends CombinedPipeline<KandinskyImg2ImgOptions> {
  static readonly priorClass = KandinskyPriorPipeline
  static readonly decoderClass = KandinskyImg2ImgPipeline
}

/** Repaints the white part of a mask after a text; see `KandinskyInpaintPipeline`. */
export class KandinskyInpaintCombinedPipeline extends CombinedPipeline<KandinskyInpaintOptions> {
  static readonly priorClass = KandinskyPriorPipeline
  static readonly decoderClass = KandinskyInpaintPipeline
}

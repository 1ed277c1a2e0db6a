// Picks the pipeline that fits a task and a checkpoint, as diffusers' AutoPipeline does (pipelines/auto_pipeline.py).
import { KandinskyError } from '../errors.js'
import { type CombinedClass, type CombinedPipeline, combine } from './kandinsky2/combined.js'
import type { DecodingOptions } from './kandinsky2/decoder.js'
import {
  KandinskyCombinedPipeline,
  KandinskyImg2ImgCombinedPipeline,
  KandinskyInpaintCombinedPipeline,
} from './kandinsky2/kandinsky-combined.js'
import type { TextToImageOptions } from './kandinsky2/kandinsky-v22.js'
import {
  KandinskyV22CombinedPipeline,
  KandinskyV22Img2ImgCombinedPipeline,
  KandinskyV22InpaintCombinedPipeline,
} from './kandinsky2/kandinsky-v22-combined.js'
import type { Img2ImgOptions } from './kandinsky2/kandinsky-v22-img2img.js'
import type { InpaintOptions } from './kandinsky2/kandinsky-v22-inpaint.js'
import { type CombinedPretrainedOptions, openCombined } from './loading/load.js'

/**
 * @typeParam Options what the decoders of all families take; combined with their priors all take the same
 * @param families the pipeline of each family, by the `addition_embed_type` of its UNets
 */
function autoPipeline<Options extends DecodingOptions>(
  task: string,
  families: Record<string, CombinedClass<CombinedPipeline<Options>>>,
) {
  return {
    /**
     * @param source a decoder, or one file or folder that holds prior and decoder together
     * @throws KandinskyError `UNSUPPORTED_MODEL` if no pipeline of this package fits the task and the checkpoint
     */
    async fromPretrained(source: string, options: CombinedPretrainedOptions = {}): Promise<CombinedPipeline<Options>> {
      const checkpoints = await openCombined(source, options)
      const unet = await checkpoints.decoder.component('unet')
      const type = String(unet?.config.addition_embed_type)
      if (!Object.hasOwn(families, type))
        throw new KandinskyError(
          'UNSUPPORTED_MODEL',
          `Expected a checkpoint for ${task} (addition_embed_type ${Object.keys(families).join(', ')}) ` +
            `but ${source} has a ${unet?.className ?? 'missing unet'} with ${type}`,
        )
      return combine(families[type]!, checkpoints, options)
    },
  }
}

/** Text to picture with whatever family the checkpoint belongs to. */
export const AutoPipelineForText2Image = autoPipeline<TextToImageOptions>('text-to-image', {
  image: KandinskyV22CombinedPipeline,
  text_image: KandinskyCombinedPipeline,
})

/** Text and picture to picture with whatever family the checkpoint belongs to. */
export const AutoPipelineForImage2Image = autoPipeline<Img2ImgOptions>('image-to-image', {
  image: KandinskyV22Img2ImgCombinedPipeline,
  text_image: KandinskyImg2ImgCombinedPipeline,
})

/** Repaints part of a picture with whatever family the checkpoint belongs to. */
export const AutoPipelineForInpainting = autoPipeline<InpaintOptions>('inpainting', {
  image: KandinskyV22InpaintCombinedPipeline,
  text_image: KandinskyInpaintCombinedPipeline,
})

// Picks the pipeline that fits a checkpoint, as diffusers' AutoPipeline does (pipelines/auto_pipeline.py).
import { KandinskyError } from '../errors.js'
import { KandinskyV22Pipeline } from './kandinsky-v22.js'
import { KandinskyV22CombinedPipeline } from './kandinsky-v22-combined.js'
import { KandinskyV22PriorPipeline } from './kandinsky-v22-prior.js'
import { type CombinedPretrainedOptions, loadCombined, openCombined } from './load.js'

/** Text to picture with whatever family the checkpoint belongs to. */
export const AutoPipelineForText2Image = {
  /**
   * @param source a decoder, or one file or folder that holds prior and decoder together
   * @throws KandinskyError `UNSUPPORTED_MODEL` if no text-to-image pipeline of this package fits
   */
  async fromPretrained(source: string, options: CombinedPretrainedOptions = {}): Promise<KandinskyV22CombinedPipeline> {
    const checkpoints = await openCombined(source, options)
    const unet = await checkpoints.decoder.component('unet')
    if (unet?.config.addition_embed_type !== 'image')
      throw new KandinskyError(
        'UNSUPPORTED_MODEL',
        `Expected a Kandinsky 2.2 checkpoint for text-to-image but ${source} has a ${unet?.className ?? 'missing unet'} ` +
          `with addition_embed_type ${unet?.config.addition_embed_type}`,
      )
    const { prior, decoder } = await loadCombined(checkpoints, options)
    return new KandinskyV22CombinedPipeline(new KandinskyV22PriorPipeline(prior), new KandinskyV22Pipeline(decoder))
  },
}

// Picture, control image (depth) and image embedding to picture, after diffusers'
// pipeline_kandinsky2_2_controlnet_img2img.py. Its embeddings usually come from `KandinskyV22PriorEmb2EmbPipeline` with
// the same picture. The reference takes height for width and width for height; this does not.

import { hashesOf } from '../call/provenance.js'
import { type DecodingOptions, decodingOptionNames } from '../sampling/decoding.js'
import { type ImageStartOptions, imageStart } from '../sampling/image-start.js'
import { type DecoderJob, DecoderPipeline } from './decoder.js'
import { type HintOptions, loadHint } from './hint.js'
import { controlnetParts } from './kandinsky-v22-controlnet.js'

export interface ControlnetImg2ImgOptions extends DecodingOptions, ImageStartOptions, HintOptions {}

/** Changes a picture towards an image embedding under depth, after diffusers' KandinskyV22ControlnetImg2ImgPipeline. */
export class KandinskyV22ControlnetImg2ImgPipeline extends DecoderPipeline<ControlnetImg2ImgOptions> {
  static readonly parts = controlnetParts('ControlNet image-to-image with Kandinsky 2.2')
  readonly optionNames = [...decodingOptionNames, 'image', 'strength', 'hint']

  async check(options: ControlnetImg2ImgOptions, embeddings: number): Promise<DecoderJob> {
    const call = this.checkDecoding(options, embeddings)
    const [{ begin, recipe, inputs }, hint] = await Promise.all([
      imageStart(this.components.movq, options, call),
      loadHint(options.hint, call),
    ])
    return {
      ...{ ...call, recipe, inputs: { ...inputs, hint: hashesOf([hint]) } },
      begin: async () => ({ ...(await begin()), conditioning: { hint } }),
    }
  }
}

// Picture and image embedding to picture with the Kandinsky 2.2 decoder, after diffusers'
// pipeline_kandinsky2_2_img2img.py. The reference takes height for width and width for height; this does not.

import { type DecodingOptions, decodingOptionNames } from '../sampling/decoding.js'
import { type ImageStartOptions, imageStart } from '../sampling/image-start.js'
import { type DecoderJob, DecoderPipeline, decoderParts } from './decoder.js'

export interface Img2ImgOptions extends DecodingOptions, ImageStartOptions {}

/** Changes a picture towards an image embedding, after diffusers' KandinskyV22Img2ImgPipeline. */
export class KandinskyV22Img2ImgPipeline extends DecoderPipeline<Img2ImgOptions> {
  static readonly parts = decoderParts('image-to-image with Kandinsky 2.2', {
    addition_embed_type: 'image',
    in_channels: 4,
  })
  readonly optionNames = [...decodingOptionNames, 'image', 'strength']

  async check(options: Img2ImgOptions, embeddings: number): Promise<DecoderJob> {
    const call = this.checkDecoding(options, embeddings)
    return { ...call, ...(await imageStart(this.components.movq, options, call)) }
  }
}

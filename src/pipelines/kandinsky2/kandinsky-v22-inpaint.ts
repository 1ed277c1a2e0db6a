// Repaints the masked part of a picture with the Kandinsky 2.2 decoder, after diffusers'
// pipeline_kandinsky2_2_inpainting.py. White is repainted.

import { type DecodingOptions, decodingOptionNames } from '../sampling/decoding.js'
import { type InpaintStartOptions, inpaintStart } from '../sampling/inpaint-start.js'
import { type DecoderJob, DecoderPipeline, decoderParts } from './decoder.js'

export interface InpaintOptions extends DecodingOptions, InpaintStartOptions {}

/** Repaints the white part of a mask towards an image embedding, after diffusers' KandinskyV22InpaintPipeline. */
export class KandinskyV22InpaintPipeline extends DecoderPipeline<InpaintOptions> {
  static readonly parts = decoderParts('inpainting with Kandinsky 2.2', {
    addition_embed_type: 'image',
    in_channels: 9,
  })
  readonly optionNames = [...decodingOptionNames, 'image', 'maskImage', 'latents']

  async check(options: InpaintOptions, embeddings: number): Promise<DecoderJob> {
    const call = this.checkDecoding(options, embeddings)
    return { ...call, ...(await inpaintStart(this.components.movq, options, call, true)) }
  }
}

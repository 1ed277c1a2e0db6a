// Image embedding to picture with the Kandinsky 2.2 decoder, after diffusers' pipeline_kandinsky2_2.py.

import { type DecodingOptions, decodingOptionNames } from '../sampling/decoding.js'
import { type LatentsOption, noiseStart } from '../sampling/noise-start.js'
import { type DecoderJob, DecoderPipeline, decoderParts } from './decoder.js'

export interface TextToImageOptions extends DecodingOptions, LatentsOption {}

/** Image embedding to picture with the 2.2 decoder, after diffusers' KandinskyV22Pipeline. */
export class KandinskyV22Pipeline extends DecoderPipeline<TextToImageOptions> {
  static readonly parts = decoderParts('text-to-image with Kandinsky 2.2', {
    addition_embed_type: 'image',
    in_channels: 4,
  })
  readonly optionNames = [...decodingOptionNames, 'latents']

  async check(options: TextToImageOptions, embeddings: number): Promise<DecoderJob> {
    const call = this.checkDecoding(options, embeddings)
    return { ...call, begin: noiseStart(call, options) }
  }
}

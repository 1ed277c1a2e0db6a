// Image embedding to picture with the Kandinsky 2.2 decoder, after diffusers' pipeline_kandinsky2_2.py.

import { type DecodingOptions, decodingOptionNames } from '../sampling/decoding.js'
import { type HiresFixOption, withHiresFix } from '../sampling/hires-fix.js'
import { type LatentsOption, noiseStart } from '../sampling/noise-start.js'
import { type DecoderJob, DecoderPipeline, decoderParts } from './decoder.js'

export interface TextToImageOptions extends DecodingOptions, LatentsOption, HiresFixOption {}

/** Image embedding to picture with the 2.2 decoder, after diffusers' KandinskyV22Pipeline. */
export class KandinskyV22Pipeline extends DecoderPipeline<TextToImageOptions> {
  static readonly parts = decoderParts('text-to-image with Kandinsky 2.2', {
    addition_embed_type: 'image',
    in_channels: 4,
  })
  readonly optionNames = [...decodingOptionNames, 'latents', 'hiresFix']

  async check(options: TextToImageOptions, embeddings: number): Promise<DecoderJob> {
    const call = withHiresFix(this.components.movq, options, this.checkDecoding(options, embeddings))
    return { ...call, begin: noiseStart(call, options) }
  }
}

// Image embedding to picture with the Kandinsky 2.2 decoder, after diffusers' pipeline_kandinsky2_2.py.
import type { Tensor } from '../tensor.js'
import { type DecoderJob, DecoderPipeline, type DecodingOptions, decodingOptionNames } from './decoder.js'
import { initialNoise, scaledNoise } from './denoise.js'

export interface TextToImageOptions extends DecodingOptions {
  /** initial noise [rows, 4, height / 8, width / 8] instead of a drawn one */
  latents?: Tensor | undefined
}

export class KandinskyV22Pipeline extends DecoderPipeline<TextToImageOptions> {
  static readonly task = { name: 'text-to-image with Kandinsky 2.2', additionEmbedType: 'image', inChannels: 4 }
  readonly optionNames = [...decodingOptionNames, 'latents']

  async check(options: TextToImageOptions, embeddings: number): Promise<DecoderJob> {
    const call = this.checkDecoding(options, embeddings)
    const noise = initialNoise(call, options.latents)
    return {
      ...call,
      begin: async () => ({ timesteps: call.scheduler.timesteps, latents: scaledNoise(noise(), call.scheduler) }),
    }
  }
}

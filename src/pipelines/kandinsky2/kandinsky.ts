// Prompt and image embedding to picture with the Kandinsky 2.1 decoder, after diffusers' pipeline_kandinsky.py.

import { noiseStart } from '../sampling/noise-start.js'
import { type DecoderJob, DecoderPipeline, decodingOptionNames } from './decoder.js'
import { type PromptOptions, promptOptionNames, withPrompts } from './decoder-text.js'
import type { TextToImageOptions } from './kandinsky-v22.js'

export interface KandinskyOptions extends TextToImageOptions, PromptOptions {}

/** What all decoders of 2.1 read prompts with. */
export const textEncoding = { additionEmbedType: 'text_image', textEncoder: 'MultilingualCLIP' }

export class KandinskyPipeline extends DecoderPipeline<KandinskyOptions> {
  static readonly task = { name: 'text-to-image with Kandinsky 2.1', ...textEncoding, inChannels: 4 }
  readonly optionNames = [...promptOptionNames, ...decodingOptionNames, 'latents']

  async check(options: KandinskyOptions, embeddings: number): Promise<DecoderJob> {
    const call = this.checkDecoding(options, embeddings)
    return withPrompts(this.components, options, { ...call, begin: noiseStart(call, options) })
  }
}

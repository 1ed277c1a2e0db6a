// Prompt and image embedding to picture with the Kandinsky 2.1 decoder, after diffusers' pipeline_kandinsky.py.

import { decodingOptionNames } from '../sampling/decoding.js'
import { noiseStart } from '../sampling/noise-start.js'
import { type DecoderJob, DecoderPipeline } from './decoder.js'
import {
  type PromptOptions,
  promptOptionNames,
  type TextDecoderComponents,
  textDecoderParts,
  withPrompts,
} from './decoder-text.js'
import type { TextToImageOptions } from './kandinsky-v22.js'

export interface KandinskyOptions extends TextToImageOptions, PromptOptions {}

/** Image embedding and prompt to picture with the 2.1 decoder, after diffusers' KandinskyPipeline. */
export class KandinskyPipeline extends DecoderPipeline<KandinskyOptions, TextDecoderComponents> {
  static readonly parts = textDecoderParts('text-to-image with Kandinsky 2.1', 4)
  readonly optionNames = [...promptOptionNames, ...decodingOptionNames, 'latents']

  async check(options: KandinskyOptions, embeddings: number): Promise<DecoderJob> {
    const call = this.checkDecoding(options, embeddings)
    return withPrompts(this.components, options, { ...call, begin: noiseStart(call, options) })
  }
}

// Prompt and image embedding to picture with the Kandinsky 2.1 decoder, after diffusers' pipeline_kandinsky.py.

import { decodingOptionNames } from '../sampling/decoding.js'
import { withHiresFix } from '../sampling/hires-fix.js'
import { noiseStart } from '../sampling/noise-start.js'
import { type DecoderJob, DecoderPipeline } from './decoder.js'
import {
  type PromptOptions,
  promptOptionNames,
  type TextDecoderComponents,
  textDecoderParts,
  withPrompts,
} from './decoder-text.js'
import { noiseLevel } from './kandinsky-img2img.js'
import type { TextToImageOptions } from './kandinsky-v22.js'

export interface KandinskyOptions extends TextToImageOptions, PromptOptions {}

/** Image embedding and prompt to picture with the 2.1 decoder, after diffusers' KandinskyPipeline. */
export class KandinskyPipeline extends DecoderPipeline<KandinskyOptions, TextDecoderComponents> {
  static readonly parts = textDecoderParts('text-to-image with Kandinsky 2.1', 4)
  readonly optionNames = [...promptOptionNames, ...decodingOptionNames, 'latents', 'hiresFix']

  async check(options: KandinskyOptions, embeddings: number): Promise<DecoderJob> {
    const { movq } = this.components
    const call = withHiresFix(movq, options, this.checkDecoding(options, embeddings), noiseLevel)
    return withPrompts(this.components, options, { ...call, begin: noiseStart(call, options) })
  }
}

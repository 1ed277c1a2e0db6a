// Repaints the masked part of a picture with the Kandinsky 2.1 decoder, after diffusers' pipeline_kandinsky_inpaint.py.
// White is repainted. Unlike 2.2, the known part only guides the UNet and is not put back, so it changes slightly.

import { decodingOptionNames } from '../sampling/decoding.js'
import { inpaintStart } from '../sampling/inpaint-start.js'
import { type DecoderJob, DecoderPipeline } from './decoder.js'
import {
  type PromptOptions,
  promptOptionNames,
  type TextDecoderComponents,
  textDecoderParts,
  withPrompts,
} from './decoder-text.js'
import type { InpaintOptions } from './kandinsky-v22-inpaint.js'

export interface KandinskyInpaintOptions extends InpaintOptions, PromptOptions {}

/** Repaints the white part of a mask towards an image embedding and a prompt, after diffusers' KandinskyInpaintPipeline of 2.1. */
export class KandinskyInpaintPipeline extends DecoderPipeline<KandinskyInpaintOptions, TextDecoderComponents> {
  static readonly parts = textDecoderParts('inpainting with Kandinsky 2.1', 9)
  readonly optionNames = [...promptOptionNames, ...decodingOptionNames, 'image', 'maskImage', 'latents']

  async check(options: KandinskyInpaintOptions, embeddings: number): Promise<DecoderJob> {
    const call = this.checkDecoding(options, embeddings)
    const start = await inpaintStart(this.components.movq, options, call, false)
    return withPrompts(this.components, options, { ...call, ...start })
  }
}

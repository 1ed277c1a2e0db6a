// Repaints the masked part of a picture with the Kandinsky 2.1 decoder, after diffusers' pipeline_kandinsky_inpaint.py.
// White is repainted. Unlike 2.2, the known part only guides the UNet and is not put back, so it changes slightly.

import { inpaintStart } from '../sampling/inpaint-start.js'
import { type DecoderJob, DecoderPipeline, decodingOptionNames } from './decoder.js'
import { type PromptOptions, promptOptionNames, withPrompts } from './decoder-text.js'
import { textEncoding } from './kandinsky.js'
import type { InpaintOptions } from './kandinsky-v22-inpaint.js'

export interface KandinskyInpaintOptions extends InpaintOptions, PromptOptions {}

export class KandinskyInpaintPipeline extends DecoderPipeline<KandinskyInpaintOptions> {
  static readonly task = { name: 'inpainting with Kandinsky 2.1', ...textEncoding, inChannels: 9 }
  readonly optionNames = [...promptOptionNames, ...decodingOptionNames, 'image', 'maskImage', 'latents']

  async check(options: KandinskyInpaintOptions, embeddings: number): Promise<DecoderJob> {
    const call = this.checkDecoding(options, embeddings)
    const begin = await inpaintStart(this.components.movq, options, call, false)
    return withPrompts(this.components, options, { ...call, begin })
  }
}

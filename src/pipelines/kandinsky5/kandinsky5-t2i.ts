// Prompt to picture with Kandinsky 5 Image, after diffusers' pipeline_kandinsky_t2i.py.
import { expectOptions } from '../call/options.js'
import { type DecodingOptions, decodingOptionNames } from '../sampling/decoding.js'
import { type LatentsOption, noiseStart } from '../sampling/noise-start.js'
import { Kandinsky5Base, type Kandinsky5Job, kandinsky5Parts } from './pipeline.js'
import {
  checkPrompts,
  type EncodedPrompts,
  type PromptOptions,
  promptOptionNames,
  type TextOptions,
  textOptionNames,
} from './prompts.js'

/**
 * `height` and `width` are 1024 by default and become those of `resolutions` whose ratio is nearest; `numInferenceSteps` is
 * 50, `guidanceScale` 3.5. `latents`: [n, 1, height / 8, width / 8, channels].
 */
export interface Kandinsky5T2IOptions extends DecodingOptions, PromptOptions, LatentsOption {}

/** Text to picture with Kandinsky 5 Image, after diffusers' Kandinsky5T2IPipeline. */
export class Kandinsky5T2IPipeline extends Kandinsky5Base<Kandinsky5T2IOptions> {
  static readonly parts = kandinsky5Parts('text-to-image', false)
  readonly optionNames = [...promptOptionNames, ...decodingOptionNames, 'latents']

  async check(options: Kandinsky5T2IOptions): Promise<Kandinsky5Job> {
    const prompts = checkPrompts(options, this.textWidths, 512)
    const call = this.checkCall(options, prompts.count)
    return { ...call, prompts, begin: noiseStart(call, options) }
  }

  /**
   * Prompts as `generate` takes them in place of texts, to be saved and used again without the text encoders.
   * @throws KandinskyError `INVALID_ARGUMENT`
   */
  async encodePrompt(options: TextOptions & { signal?: AbortSignal | undefined }): Promise<EncodedPrompts> {
    expectOptions(options, [...textOptionNames, 'signal'])
    return this.encode(checkPrompts(options, this.textWidths, 512), options.signal)
  }
}

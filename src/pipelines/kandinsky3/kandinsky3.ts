// Prompt to picture with Kandinsky 3 (https://arxiv.org/abs/2312.03511), after diffusers' pipeline_kandinsky3.py.
import { type DecodingOptions, decodingOptionNames } from '../sampling/decoding.js'
import { type HiresFixOption, withHiresFix } from '../sampling/hires-fix.js'
import { type LatentsOption, noiseStart } from '../sampling/noise-start.js'
import { Kandinsky3Base, type Kandinsky3Job, kandinsky3Parts } from './pipeline.js'
import { type PromptOptions, promptOptionNames } from './prompts.js'

/** `height` and `width` are 1024 by default, `numInferenceSteps` 25 and `guidanceScale` 3. */
export interface Kandinsky3Options extends DecodingOptions, PromptOptions, LatentsOption, HiresFixOption {}

/** Text to picture with Kandinsky 3, after diffusers' Kandinsky3Pipeline. */
export class Kandinsky3Pipeline extends Kandinsky3Base<Kandinsky3Options> {
  static readonly parts = kandinsky3Parts('text-to-image with Kandinsky 3', { in_channels: 4 })
  readonly optionNames = [...promptOptionNames, ...decodingOptionNames, 'latents', 'hiresFix']

  async check(options: Kandinsky3Options): Promise<Kandinsky3Job> {
    const { height = 1024, width = 1024 } = this.components.defaults ?? {}
    const { prompts, ...full } = this.checkCall(options, { height, width })
    const call = withHiresFix(this.components.movq, options, full)
    return { ...call, prompts, begin: noiseStart(call, options) }
  }
}

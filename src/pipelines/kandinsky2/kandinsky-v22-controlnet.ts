// Image embedding and control image (depth) to picture, after diffusers' pipeline_kandinsky2_2_controlnet.py.

import { type LatentsOption, noiseStart } from '../sampling/noise-start.js'
import { type DecoderJob, DecoderPipeline, type DecodingOptions, decodingOptionNames } from './decoder.js'
import { type HintOptions, loadHint } from './hint.js'

export interface ControlnetOptions extends DecodingOptions, HintOptions, LatentsOption {}

export const controlnetTask = {
  name: 'ControlNet with Kandinsky 2.2',
  additionEmbedType: 'image_hint',
  inChannels: 8,
}

export class KandinskyV22ControlnetPipeline extends DecoderPipeline<ControlnetOptions> {
  static readonly task = controlnetTask
  readonly optionNames = [...decodingOptionNames, 'hint', 'latents']

  async check(options: ControlnetOptions, embeddings: number): Promise<DecoderJob> {
    const call = this.checkDecoding(options, embeddings)
    const begin = noiseStart(call, options)
    const hint = await loadHint(options.hint, call)
    return { ...call, begin: async () => ({ ...(await begin()), conditioning: { hint } }) }
  }
}

// Image embedding and control image (depth) to picture, after diffusers' pipeline_kandinsky2_2_controlnet.py.

import { hashesOf } from '../call/provenance.js'
import { type DecodingOptions, decodingOptionNames } from '../sampling/decoding.js'
import { type LatentsOption, noiseStart } from '../sampling/noise-start.js'
import { type DecoderJob, DecoderPipeline, decoderParts } from './decoder.js'
import { type HintOptions, loadHint } from './hint.js'

export interface ControlnetOptions extends DecodingOptions, HintOptions, LatentsOption {}

export function controlnetParts(purpose: string) {
  return decoderParts(purpose, { addition_embed_type: 'image_hint', in_channels: 8 })
}

/** Image embedding and depth to picture, after diffusers' KandinskyV22ControlnetPipeline. */
export class KandinskyV22ControlnetPipeline extends DecoderPipeline<ControlnetOptions> {
  static readonly parts = controlnetParts('ControlNet with Kandinsky 2.2')
  readonly optionNames = [...decodingOptionNames, 'hint', 'latents']

  async check(options: ControlnetOptions, embeddings: number): Promise<DecoderJob> {
    const call = this.checkDecoding(options, embeddings)
    const begin = noiseStart(call, options)
    const hint = await loadHint(options.hint, call)
    return {
      ...call,
      inputs: { hint: hashesOf([hint]) },
      begin: async () => ({ ...(await begin()), conditioning: { hint } }),
    }
  }
}

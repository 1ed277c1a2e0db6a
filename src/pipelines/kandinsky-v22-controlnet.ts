// Image embedding and control image (depth) to picture, after diffusers' pipeline_kandinsky2_2_controlnet.py.
import type { Tensor } from '../tensor.js'
import { type DecoderJob, DecoderPipeline, type DecodingOptions, decodingOptionNames } from './decoder.js'
import { initialNoise, scaledNoise } from './denoise.js'
import { type HintOptions, loadHint } from './hint.js'

export interface ControlnetOptions extends DecodingOptions, HintOptions {
  /** initial noise [rows, 4, height / 8, width / 8] instead of a drawn one */
  latents?: Tensor | undefined
}

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
    const noise = initialNoise(call, options.latents)
    const hint = await loadHint(options.hint, call)
    return {
      ...call,
      begin: async () => ({
        timesteps: call.scheduler.timesteps,
        latents: scaledNoise(noise(), call.scheduler),
        conditioning: { hint },
      }),
    }
  }
}

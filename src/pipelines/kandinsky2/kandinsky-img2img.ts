// Prompt, picture and image embedding to picture with the Kandinsky 2.1 decoder, after diffusers'
// pipeline_kandinsky_img2img.py. The reference mixes up height and width and fails where they differ; this does not.
import { DDPMScheduler } from '../../schedulers/ddpm.js'
import { decodingOptionNames } from '../sampling/decoding.js'
import { imageStart, type NoiseLevel } from '../sampling/image-start.js'
import { type DecoderJob, DecoderPipeline } from './decoder.js'
import {
  type PromptOptions,
  promptOptionNames,
  type TextDecoderComponents,
  textDecoderParts,
  withPrompts,
} from './decoder-text.js'
import type { Img2ImgOptions } from './kandinsky-v22-img2img.js'

export interface KandinskyImg2ImgOptions extends Img2ImgOptions, PromptOptions {}

/** Noise is added by a schedule of its own, and two timesteps below the strength: so in the original repository. */
const NOISING = { num_train_timesteps: 1000, beta_schedule: 'linear', beta_start: 0.0001, beta_end: 0.02 }

/** Changes a picture towards an image embedding and a prompt, after diffusers' KandinskyImg2ImgPipeline of 2.1. */
export class KandinskyImg2ImgPipeline extends DecoderPipeline<KandinskyImg2ImgOptions, TextDecoderComponents> {
  static readonly parts = textDecoderParts('image-to-image with Kandinsky 2.1', 4)
  readonly optionNames = [...promptOptionNames, ...decodingOptionNames, 'image', 'strength']
  protected override readonly defaults = { height: 512, width: 512, numInferenceSteps: 100, guidanceScale: 7 }

  async check(options: KandinskyImg2ImgOptions, embeddings: number): Promise<DecoderJob> {
    const call = this.checkDecoding(options, embeddings)
    const start = await imageStart(this.components.movq, options, call, noiseLevel)
    return withPrompts(this.components, options, { ...call, ...start })
  }
}

export function noiseLevel(strength: number): NoiseLevel {
  const timestep = Math.max(0, Math.floor(NOISING.num_train_timesteps * strength) - 2)
  return { scheduler: DDPMScheduler.fromConfig(NOISING), timestep }
}

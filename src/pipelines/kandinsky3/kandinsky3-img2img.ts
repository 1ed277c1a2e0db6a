// Prompt and picture to picture with Kandinsky 3, after diffusers' pipeline_kandinsky3_img2img.py. The reference makes
// pictures of the first picture's own size and fails where that is no multiple of 64; here it is rounded up, and any size
// can be asked for.
import { resolveImages } from '../../images/processing.js'
import { Tensor } from '../../tensor.js'
import { latentChannels, movqScaleFactor } from '../sampling/autoencoder.js'
import { type DecodingOptions, decodingOptionNames } from '../sampling/decoding.js'
import { type ImageStartOptions, imageStart } from '../sampling/image-start.js'
import { Kandinsky3Base, type Kandinsky3Job, kandinsky3Parts } from './pipeline.js'
import { type PromptOptions, promptOptionNames } from './prompts.js'

/** `height` and `width` are by default those of the first picture, `numInferenceSteps` 25 and `guidanceScale` 3. */
export interface Kandinsky3Img2ImgOptions extends DecodingOptions, PromptOptions, ImageStartOptions {}

/** Changes a picture towards a text with Kandinsky 3, after diffusers' Kandinsky3Img2ImgPipeline. */
export class Kandinsky3Img2ImgPipeline extends Kandinsky3Base<Kandinsky3Img2ImgOptions> {
  static readonly parts = kandinsky3Parts('image-to-image with Kandinsky 3', { in_channels: 4 })
  readonly optionNames = [...promptOptionNames, ...decodingOptionNames, 'image', 'strength']

  async check(options: Kandinsky3Img2ImgOptions): Promise<Kandinsky3Job> {
    const image = await resolveImages(options.image, { signal: options.signal })
    const call = this.checkCall(options, this.#sizeOf(image[0]!))
    return { ...call, ...(await imageStart(this.components.movq, { ...options, image }, call)) }
  }

  /** In pixels; tensors may be latents. */
  #sizeOf(image: Awaited<ReturnType<typeof resolveImages>>[number]): { height: number; width: number } {
    if (!(image instanceof Tensor)) return image
    const { movq } = this.components
    const factor = image.shape[1] === latentChannels(movq) ? movqScaleFactor(movq) : 1
    return { height: image.shape.at(-2)! * factor, width: image.shape.at(-1)! * factor }
  }
}

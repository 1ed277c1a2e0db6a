// Repaints a part of a picture with Kandinsky 3, after the published code of the model's authors
// (https://github.com/ai-forever/Kandinsky-3, inpainting_pipeline.py), which diffusers has no pipeline for.
//
// Easy to get wrong:
// - White is repainted, as everywhere here and in the authors' calls; what the UNet sees is 1 where to KEEP.
// - Its channels are latents, mask, latents of the picture with the hole, in this order; every pixel that is not quite black
//   in the mask is cut out of that picture, while the mask itself keeps its grays.
// - Pictures are shrunk to an area of at most 1024 x 1024 and then to multiples of 64, downwards; the mask bilinearly,
//   without blurring it first, and mirrored at its borders (skimage's resize).
import { KandinskyError } from '../../errors.js'
import type { RawImage } from '../../images/image.js'
import { convertPixels } from '../../images/pixels.js'
import {
  checkRange,
  interpolateMirrored,
  interpolateNearest,
  resolveImages,
  type TensorOrImage,
  toTensor,
} from '../../images/processing.js'
import { maskShape } from '../../images/processing-inpaint.js'
import { resizePixels } from '../../images/resize.js'
import { concatChannels, concatRows, repeatRows, Tensor } from '../../tensor.js'
import { hashesOf } from '../call/provenance.js'
import { encodeImages } from '../sampling/autoencoder.js'
import { type DecodingOptions, decodingOptionNames } from '../sampling/decoding.js'
import { initialNoise, type LatentsOption } from '../sampling/noise-start.js'
import { onePerEmbedding, scaledNoise } from '../sampling/start.js'
import { Kandinsky3Base, type Kandinsky3Job, type Kandinsky3Start, kandinsky3Parts } from './pipeline.js'
import { type PromptOptions, promptOptionNames } from './prompts.js'

/**
 * `height` and `width` are by default those of the first picture, at most 1024 x 1024 pixels in all and multiples of 64;
 * `numInferenceSteps` 50 and `guidanceScale` 4.
 */
export interface Kandinsky3InpaintOptions extends DecodingOptions, PromptOptions, LatentsOption {
  /**
   * The picture (resized), or a tensor [3, height, width] or [n, 3, height, width] in [-1, 1]; one for all prompts, or one per
   * prompt
   */
  image: TensorOrImage | readonly TensorOrImage[]
  /**
   * WHITE is repainted, black is kept: a picture (resized), or a tensor [height, width], [n, height, width] or
   * [n, 1, height, width] in 0..1, of the size of the result. One for all prompts, or one per prompt
   */
  maskImage: TensorOrImage | readonly TensorOrImage[]
}

/** Pixels of a picture that is not shrunk. */
const MOST_PIXELS = 1024 * 1024
const STEP = 64

/** Repaints the white part of a mask with Kandinsky 3, after its authors' Kandinsky3InpaintingPipeline. */
export class Kandinsky3InpaintPipeline extends Kandinsky3Base<Kandinsky3InpaintOptions> {
  static readonly parts = kandinsky3Parts('inpainting with Kandinsky 3', { in_channels: 9 })
  readonly optionNames = [...promptOptionNames, ...decodingOptionNames, 'image', 'maskImage', 'latents']

  async check(options: Kandinsky3InpaintOptions): Promise<Kandinsky3Job> {
    const { signal } = options
    const [images, masks] = await Promise.all([
      resolveImages(options.image, { signal }),
      resolveImages(options.maskImage, { signal, name: 'maskImage', tensorShape: maskShape }),
    ])
    const call = this.checkCall(options, sizeOf(images[0]!), { numInferenceSteps: 50, guidanceScale: 4 })
    const { height, width, embeddings, count, scheduler, latentShape } = call
    const rows = (name: string, parts: Tensor[]) => onePerEmbedding(name, concatRows(parts), embeddings)
    const image = rows(
      'image',
      images.map((one) => pictureTensor(one, height, width)),
    )
    const mask = rows(
      'maskImage',
      masks.map((one) => maskTensor(one, height, width)),
    )
    const draw = initialNoise(call, options)
    const begin = async (): Promise<Kandinsky3Start> => {
      const known = await encodeImages(this.components.movq, [cutOut(image, mask)], signal)
      const keep = interpolateNearest(mask, latentShape[2]!, latentShape[3]!)
      const noise = draw()
      return {
        timesteps: scheduler.timesteps,
        latents: scaledNoise(noise, scheduler),
        extraChannels: repeatRows(concatChannels([invert(keep), known]), count),
      }
    }
    return { ...call, begin, inputs: { image: hashesOf([image]), maskImage: hashesOf([mask]) } }
  }
}

/** In pixels. */
function sizeOf(image: RawImage | Tensor): { height: number; width: number } {
  const [height, width] =
    image instanceof Tensor ? [image.shape.at(-2)!, image.shape.at(-1)!] : [image.height, image.width]
  const factor = Math.max(1, Math.sqrt((height * width) / MOST_PIXELS))
  // Python rounds halves to even.
  const side = (size: number) => Math.max(STEP, Math.floor(roundHalfEven(size / factor) / STEP) * STEP)
  return { height: side(height), width: side(width) }
}

function roundHalfEven(value: number): number {
  const below = Math.floor(value)
  return value - below === 0.5 ? below + (below % 2) : Math.round(value)
}

/** [n, 3, height, width] in [-1, 1]. */
function pictureTensor(image: RawImage | Tensor, height: number, width: number): Tensor {
  if (image instanceof Tensor) {
    checkRange('image', image, -1)
    return expectSize('image', image, 3, height, width)
  }
  const resized = resizePixels(convertPixels(image, 'RGB'), width, height, 'bicubic')
  return toTensor(resized, [(value) => Math.fround(Math.fround(value / 255) * 2) - 1])
}

/** [n, 1, height, width] in 0..1; 1 is repainted. */
function maskTensor(mask: RawImage | Tensor, height: number, width: number): Tensor {
  if (mask instanceof Tensor) {
    checkRange('maskImage', mask, 0)
    return expectSize('maskImage', mask, 1, height, width)
  }
  const gray = toTensor(convertPixels(mask, 'L'), [(value) => Math.fround(value / 255)])
  return interpolateMirrored(gray, height, width)
}

function expectSize(name: string, tensor: Tensor, channels: number, height: number, width: number): Tensor {
  const [, c, h, w] = tensor.shape
  if (c !== channels || h !== height || w !== width)
    throw new KandinskyError(
      'SHAPE_MISMATCH',
      `Expected a tensor of shape [n, ${channels}, ${height}, ${width}] for ${name} but received [${tensor.shape.join(', ')}]`,
    )
  return tensor
}

/** Pictures [n, 3, h, w] without what masks [n, 1, h, w] do not leave black. */
function cutOut(images: Tensor, masks: Tensor): Tensor {
  const pixels = images.shape[2]! * images.shape[3]!
  return new Tensor(
    images.data.map((value, i) => (masks.data[Math.floor(i / (3 * pixels)) * pixels + (i % pixels)] === 0 ? value : 0)),
    images.shape,
  )
}

function invert(masks: Tensor): Tensor {
  return new Tensor(
    masks.data.map((value) => 1 - value),
    masks.shape,
  )
}

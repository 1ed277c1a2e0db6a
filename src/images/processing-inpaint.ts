// Inputs of the inpainting pipelines: `prepare_mask_and_masked_image` and `prepare_mask` of diffusers'
// pipeline_kandinsky2_2_inpainting.py.
//
// Easy to get wrong: given masks are white (1) where to repaint, prepared masks are 1 where to KEEP; pictures are
// scaled by 1/127.5 here and by 2/255 in VaeImageProcessor, which rounds differently; tensors are never resized.
import { invalid, KandinskyError } from '../errors.js'
import { concatRows, Tensor } from '../tensor.js'
import type { RawImage } from './image.js'
import { convertPixels } from './pixels.js'
import { checkRange, resolveImages, type TensorOrImage, toTensor } from './processing.js'
import { resizePixels } from './resize.js'

export interface InpaintInputs {
  /** [n, 3, height, width] in [-1, 1] */
  image: Tensor
  /** [n, 1, height, width]; 1 keeps a pixel, 0 repaints it */
  mask: Tensor
}

/**
 * @param images pictures (resized to height x width), or tensors [3, h, w] or [n, 3, h, w] in [-1, 1]
 * @param masks as many; white is repainted. Pictures (resized), or tensors [h, w], [n, h, w] or
 *   [n, 1, h, w] in [0, 1], of the size of the images where these are tensors, too
 * @param options `height` and `width` in pixels
 * @throws KandinskyError `INVALID_ARGUMENT` for values out of range, `SHAPE_MISMATCH` where images and masks do not fit
 */
export async function prepareMaskAndMaskedImage(
  images: TensorOrImage | readonly TensorOrImage[],
  masks: TensorOrImage | readonly TensorOrImage[],
  options: { height: number; width: number; signal?: AbortSignal | undefined },
): Promise<InpaintInputs> {
  const { height, width, signal } = options
  const [pictures, repaint] = await Promise.all([
    resolveImages(images, { signal }),
    resolveImages(masks, { signal, name: 'maskImage', tensorShape: maskShape }),
  ])
  const image = concatRows(pictures.map((one) => inpaintImage(one, height, width)))
  const mask = concatRows(repaint.map((one) => keepMask(one, height, width)))
  // Beside a picture, an array mask of any size is fine: it is sampled on the grid of the latents.
  const size = pictures.some((one) => one instanceof Tensor) ? image.shape.slice(2) : mask.shape.slice(2)
  const expected = [image.shape[0], 1, ...size]
  if (expected.join() !== mask.shape.join())
    throw new KandinskyError(
      'SHAPE_MISMATCH',
      `Expected a mask of shape [${expected.join(', ')}] for the given image but received [${mask.shape.join(', ')}]`,
    )
  return { image, mask }
}

function inpaintImage(image: RawImage | Tensor, height: number, width: number): Tensor {
  if (image instanceof Tensor) {
    if (image.shape[1] !== 3) throw invalid('image', 'a tensor with 3 channels', `[${image.shape.join(', ')}]`)
    checkRange('image', image, -1)
    return image
  }
  const resized = resizePixels(image, width, height, 'bicubic', 1)
  return toTensor(convertPixels(resized, 'RGB'), [(value) => Math.fround(value / 127.5) - 1])
}

function keepMask(mask: RawImage | Tensor, height: number, width: number): Tensor {
  if (mask instanceof Tensor) {
    checkRange('maskImage', mask, 0)
    return new Tensor(
      mask.data.map((value) => (value < 0.5 ? 1 : 0)),
      mask.shape,
    )
  }
  const gray = convertPixels(resizePixels(mask, width, height, 'lanczos'), 'L')
  return toTensor(gray, [(value) => (value / 255 < 0.5 ? 1 : 0)])
}

/** 4 dimensions for a mask [h, w], [n, h, w] or [n, 1, h, w]. */
export function maskShape(shape: readonly number[]): number[] {
  if (shape.length === 2) return [1, 1, ...shape]
  if (shape.length === 3) return [shape[0]!, 1, ...shape.slice(1)]
  if (shape.length === 4 && shape[1] === 1) return [...shape]
  throw invalid('maskImage', 'a tensor of shape [h, w], [n, h, w] or [n, 1, h, w]', `[${shape.join(', ')}]`)
}

/**
 * Shrinks what a mask keeps: each 0 also clears six of its eight neighbours (not those to the upper right and lower
 * left, as in the reference).
 *
 * @param masks [n, 1, h, w] at the size of the latents, 1 keeps
 */
export function prepareMask(masks: Tensor): Tensor {
  const [height, width] = masks.shape.slice(2) as [number, number]
  const out = masks.data.slice()
  const neighbours = [
    [-1, 0],
    [0, -1],
    [-1, -1],
    [1, 0],
    [0, 1],
    [1, 1],
  ] as const
  masks.data.forEach((keep, position) => {
    if (keep === 1) return
    const row = Math.floor(position / width) % height
    const column = position % width
    for (const [down, right] of neighbours)
      if (row + down >= 0 && row + down < height && column + right >= 0 && column + right < width)
        out[position + down * width + right] = 0
  })
  return new Tensor(out, masks.shape)
}

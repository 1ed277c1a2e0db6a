// Control images: what a ControlNet decoder sees beside the embedding.
import { KandinskyError } from '../../errors.js'
import { type ImageInput, loadImage, type RawImage } from '../../images/image.js'
import { convertPixels } from '../../images/pixels.js'
import { checkRange, resolveImages, type TensorOrImage, toTensor } from '../../images/processing.js'
import { depthImage } from '../../images/processing-depth.js'
import { resizePixels } from '../../images/resize.js'
import { concatRows, repeatRows, Tensor } from '../../tensor.js'
import { expectInteger, expectOptions, maxSide } from '../call/options.js'
import { latentSide } from '../sampling/autoencoder.js'
import type { CheckedCall } from '../sampling/decoding.js'
import { onePerEmbedding } from '../sampling/start.js'

export interface HintOptions {
  /**
   * Control image (depth, white is near): a picture, which is resized to the size of the result, or a tensor
   * [3, height, width] or [n, 3, height, width] of values in 0..1; one for all embeddings, or one per embedding
   */
  hint: TensorOrImage | readonly TensorOrImage[]
}

/**
 * @returns [rows, 3, height, width] in 0..1, one row per picture of the call
 * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`
 */
export async function loadHint(hint: HintOptions['hint'], call: CheckedCall): Promise<Tensor> {
  const { embeddings, count, height, width, signal } = call
  const hintShape = (shape: readonly number[]) => (shape.length === 3 ? [1, ...shape] : shape)
  const parts = (await resolveImages(hint, { signal, name: 'hint', tensorShape: hintShape })).map((one) => {
    if (!(one instanceof Tensor)) return pictureHint(one, height, width)
    const [, channels, h, w] = one.shape
    if (channels !== 3 || h !== height || w !== width)
      throw new KandinskyError(
        'SHAPE_MISMATCH',
        `Expected a tensor of shape [n, 3, ${height}, ${width}] for hint but received [${one.shape.join(', ')}]`,
      )
    checkRange('hint', one, 0)
    return one
  })
  const hints = concatRows(parts)
  return repeatRows(onePerEmbedding('hint', hints, embeddings), count)
}

/**
 * Control image from a depth map, after the recipe of diffusers' guide: three equal channels of the map's bytes / 255.
 *
 * @param depth what a `DepthEstimator` gives (`depth`, or the tensor `predictedDepth`), or any picture of depth (a path,
 *   URL …) in which white is near
 * @param size of the picture to be made, in pixels; rounded up to multiples of 64 as the pipelines do; default: the map's
 * @returns [1, 3, height, width] in 0..1
 * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`, and those of `loadImage`
 */
export async function makeHint(
  depth: ImageInput | Tensor,
  size: { height?: number | undefined; width?: number | undefined } = {},
): Promise<Tensor> {
  expectOptions(size, ['height', 'width'])
  const side = (name: 'height' | 'width') =>
    size[name] === undefined ? undefined : latentSide(expectInteger(name, size[name], 1, maxSide), 8) * 8
  const [height, width] = [side('height'), side('width')]
  const picture = depth instanceof Tensor ? depthImage(depth) : await loadImage(depth)
  return pictureHint(picture, height ?? picture.height, width ?? picture.width)
}

function pictureHint(picture: RawImage, height: number, width: number): Tensor {
  const resized = resizePixels(picture, width, height, 'bicubic', 1)
  return toTensor(convertPixels(resized, 'RGB'), [(value) => Math.fround(value / 255)])
}

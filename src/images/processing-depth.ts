// Pictures to the input of a depth estimator and depth to pictures: transformers' DPTImageProcessor in its Pillow form
// (models/dpt/image_processing_pil_dpt.py) and what the depth-estimation pipeline makes of a prediction.
import { KandinskyError } from '../errors.js'
import { roundHalfEven } from '../math.js'
import type { Tensor } from '../tensor.js'
import { RawImage } from './image.js'
import { badConfig, type ClipProcessorConfig, clipPreprocess, withoutNulls } from './processing.js'

/** preprocessor_config.json of a DPT image processor; absent entries have transformers' defaults. */
export interface DptProcessorConfig extends Omit<ClipProcessorConfig, 'size' | 'do_center_crop' | 'crop_size'> {
  /** in pixels, default 384 x 384; a number stands for a square */
  size?: number | { height?: number; width?: number }
  /** resize both sides by the factor that changes the picture less */
  keep_aspect_ratio?: boolean
  /** sides become the nearest multiples of this */
  ensure_multiple_of?: number
}

/**
 * Input of a depth estimator from a picture: RGB, resized, rescaled, normalized per channel.
 *
 * @returns pixel_values [1, 3, height, width]
 * @throws KandinskyError `BAD_FILE` for an invalid config, `UNSUPPORTED_MODEL` for steps that are not implemented
 */
export async function dptPreprocess(image: RawImage, config: DptProcessorConfig): Promise<Tensor> {
  const { size = 384, keep_aspect_ratio = false, ensure_multiple_of = 1, ...given } = withoutNulls(config)
  if (!Number.isSafeInteger(ensure_multiple_of) || ensure_multiple_of < 1)
    throw badConfig('ensure_multiple_of', 'a positive integer', ensure_multiple_of)
  const { height, width } = typeof size === 'number' ? { height: size, width: size } : size
  for (const side of [height, width]) if (typeof side !== 'number') throw badConfig('size', 'height and width', side)
  const scales = [height! / image.height, width! / image.width] as const
  const common = Math.abs(1 - scales[1]) < Math.abs(1 - scales[0]) ? scales[1] : scales[0]
  const sideOf = (own: number, scale: number) =>
    roundHalfEven((own * (keep_aspect_ratio ? common : scale)) / ensure_multiple_of) * ensure_multiple_of
  return clipPreprocess(image, {
    ...{ resample: 3, image_mean: 0.5, image_std: 0.5 },
    ...given,
    ...{ do_convert_rgb: true, do_center_crop: false },
    size: { height: sideOf(image.height, scales[0]), width: sideOf(image.width, scales[1]) },
  })
}

/**
 * A gray picture of a depth map, its smallest value black and its largest white; a map without contrast is black.
 *
 * @param depth [h, w] or [1, h, w], any range
 */
export function depthImage(depth: Tensor): RawImage {
  const [height, width] = depth.shape.slice(-2) as [number, number]
  if (depth.shape.length < 2 || depth.data.length !== height * width || depth.data.length === 0)
    throw new KandinskyError(
      'SHAPE_MISMATCH',
      `Expected a depth map of shape [1, h, w] but received [${depth.shape.join(', ')}]`,
    )
  let [low, high] = [Infinity, -Infinity]
  for (const value of depth.data) {
    if (!Number.isFinite(value))
      throw new KandinskyError('INVALID_ARGUMENT', `Expected finite values in the depth map but found ${value}`)
    low = Math.min(low, value)
    high = Math.max(high, value)
  }
  const range = Math.fround(high - low)
  const bytes = Uint8Array.from(depth.data, (value) =>
    range === 0 ? 0 : Math.fround(Math.fround(Math.fround(value - low) / range) * 255),
  )
  return new RawImage(bytes, width, height, 1)
}

// Pictures as Qwen2.5-VL looks at them in Kandinsky 5: diffusers' pipeline_kandinsky_i2i.py, which halves them, and
// transformers' Qwen2VLImageProcessor in its Pillow form.
//
// Easy to get wrong: rows of the result go over blocks of 2 x 2 patches, and each holds its patch twice, as two frames.
import { invalid, KandinskyError } from '../errors.js'
import { Tensor } from '../tensor.js'
import type { RawImage } from './image.js'
import { convertPixels } from './pixels.js'
import { badConfig, clipColours, PIL_BICUBIC, withoutNulls } from './processing.js'
import { PIL_RESAMPLE, resizePixels } from './resize.js'

/** preprocessor_config.json; absent entries have transformers' defaults. */
export interface QwenProcessorConfig {
  /** pixels of a picture; `size` has the same under other names */
  min_pixels?: number
  max_pixels?: number
  size?: { shortest_edge?: number; longest_edge?: number }
  resample?: number
  rescale_factor?: number
  image_mean?: number[]
  image_std?: number[]
}

/** The vision tower's own, which its config tells. */
export interface PatchSizes {
  /** pixels of a patch's side */
  patch: number
  /** patches of a unit's side; a unit becomes one token */
  merge: number
  /** frames of a patch */
  frames: number
}

/** A picture as the vision tower takes it. */
export interface QwenPicture {
  /** [patches, 3 * frames * patch * patch] */
  pixelValues: Tensor
  /** rows and columns of patches */
  rows: number
  columns: number
  /** of the text */
  tokens: number
}

const MAX_RATIO = 200

/**
 * @param most tokens that there is room for: larger pictures are shrunk, where the reference fails
 * @throws KandinskyError `INVALID_ARGUMENT` for a picture of less than 2 pixels on a side, or 200 times as long as wide
 */
export function qwenPreprocess(
  image: RawImage,
  config: QwenProcessorConfig,
  { patch, merge, frames }: PatchSizes,
  most: number,
): QwenPicture {
  if (image.width < 2 || image.height < 2)
    throw invalid('image', 'at least 2 pixels on each side', `${image.width}x${image.height}`)
  const { size = {}, resample = PIL_BICUBIC, ...values } = withoutNulls(config)
  const filter = PIL_RESAMPLE[resample]
  if (!filter) throw badConfig('resample', `a number below ${PIL_RESAMPLE.length}`, resample)
  const pixels = (name: string, value: unknown): number => {
    if (!Number.isSafeInteger(value) || (value as number) < 1) throw badConfig(name, 'a positive integer', value)
    return value as number
  }
  const least = pixels('min_pixels', values.min_pixels ?? size.shortest_edge ?? 56 * 56)
  const greatest = pixels('max_pixels', values.max_pixels ?? size.longest_edge ?? 28 * 28 * 1280)
  const unit = patch * merge
  const half = resizePixels(image, image.width >> 1, image.height >> 1, 'bicubic')
  const { width, height } = smartSize(half, unit, least, Math.min(greatest, most * unit * unit))
  const resized = resizePixels(convertPixels(half, 'RGB'), width, height, filter)

  const tables = clipColours(values).map((value) => Float32Array.from({ length: 256 }, (_, byte) => value(byte)))
  const [rows, columns] = [height / patch, width / patch]
  const perPatch = tables.length * frames * patch * patch
  const data = new Float32Array(rows * columns * perPatch)
  let at = 0
  const put = (top: number, left: number) => {
    for (const [channel, table] of tables.entries())
      for (let frame = 0; frame < frames; frame++)
        for (let y = top; y < top + patch; y++)
          for (let x = left; x < left + patch; x++) data[at++] = table[resized.data[(y * width + x) * 3 + channel]!]!
  }
  for (let y = 0; y < height; y += unit)
    for (let x = 0; x < width; x += unit)
      for (let i = 0; i < merge * merge; i++) put(y + Math.floor(i / merge) * patch, x + (i % merge) * patch)
  return {
    pixelValues: new Tensor(data, [rows * columns, perPatch]),
    ...{ rows, columns, tokens: (rows * columns) / merge ** 2 },
  }
}

/** transformers' smart_resize: multiples of `unit`, the area in between, the ratio kept as far as that goes. */
function smartSize({ width, height }: { width: number; height: number }, unit: number, least: number, most: number) {
  if (Math.max(width, height) / Math.min(width, height) > MAX_RATIO)
    throw invalid('image', `sides of a ratio up to ${MAX_RATIO}`, `${width}x${height}`)
  const to = (round: (value: number) => number, factor: number) => ({
    width: Math.max(unit, round((width * factor) / unit) * unit),
    height: Math.max(unit, round((height * factor) / unit) * unit),
  })
  const nearest = { width: roundHalfToEven(width / unit) * unit, height: roundHalfToEven(height / unit) * unit }
  const area = nearest.width * nearest.height
  const fitting = area > most ? to(Math.floor, Math.sqrt(most / (width * height))) : nearest
  const result = area < least ? to(Math.ceil, Math.sqrt(least / (width * height))) : fitting
  const tokens = (result.width * result.height) / unit ** 2
  if (most < Math.max(least, tokens * unit ** 2))
    throw new KandinskyError(
      'INVALID_ARGUMENT',
      `A picture of ${width}x${height} pixels needs at least ${Math.ceil(least / unit ** 2)} tokens beside its prompt, ` +
        `which leaves ${Math.floor(most / unit ** 2)}`,
    )
  return result
}

function roundHalfToEven(value: number): number {
  const floor = Math.floor(value)
  if (value - floor !== 0.5) return Math.round(value)
  return floor % 2 === 0 ? floor : floor + 1
}

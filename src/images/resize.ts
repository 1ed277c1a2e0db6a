// Pillow's image resampling, equal to the byte (Image.resize, Image.reduce; src/libImaging/Resample.c and Reduce.c).
// The reference resizes with Pillow, and sharp's libvips differs from it by several levels near edges (other kernels'
// normalization, other rounding, no `reducing_gap`), which is why this is written here: no library for Node matches.
//
// Facts that make the bytes equal: kernels are stretched by the scale when shrinking (antialias); weights are
// normalized per output pixel and rounded to 22 bits; both passes round to 8 bits, the horizontal one comes first;
// colours with alpha are resampled premultiplied, and then `reducing_gap` does not apply.
import { invalid } from '../errors.js'
import type { Pixels } from './pixels.js'

/** Filters of `RawImage.resize`, as Pillow names them. */
export type Resample = 'nearest' | 'bilinear' | 'bicubic' | 'lanczos' | 'box' | 'hamming'

/** Part of an image in its own pixel coordinates; fractions count. */
interface Box {
  x0: number
  y0: number
  x1: number
  y1: number
}

interface Filter {
  support: number
  weight(x: number): number
}

const sinc = (x: number) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI))

const FILTERS: Record<Exclude<Resample, 'nearest'>, Filter> = {
  box: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  hamming: {
    support: 1,
    weight: (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(x * Math.PI))),
  },
  bicubic: { support: 2, weight: (x) => cubic(Math.abs(x), -0.5) },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
}

/** Weight of a pixel `x` >= 0 pixels away; `a` is the slope at 1, where filters differ (Keys 1981). */
export function cubic(x: number, a: number): number {
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0
}

/** Pillow's numbers of the filters, as preprocessor_config.json has them. */
export const PIL_RESAMPLE: readonly Resample[] = ['nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming']

/**
 * `PIL.Image.resize`.
 *
 * @param width new width in pixels
 * @param height new height in pixels
 * @param reducingGap shrink in two steps: whole blocks are averaged first, so that the filter has at least this factor
 *   left to do (1: fastest, 3: nearly as good as one step; one step if not given)
 * @throws KandinskyError `INVALID_ARGUMENT` for sizes that are no positive integers
 */
export function resizePixels(
  image: Pixels,
  width: number,
  height: number,
  resample: Resample,
  reducingGap?: number,
): Pixels {
  if (!Number.isSafeInteger(width) || width < 1) throw invalid('width', 'a positive integer', width)
  if (!Number.isSafeInteger(height) || height < 1) throw invalid('height', 'a positive integer', height)
  if (resample !== 'nearest' && !Object.hasOwn(FILTERS, resample))
    throw invalid('resample', PIL_RESAMPLE.join(', '), resample)
  if (reducingGap !== undefined && !(reducingGap >= 1))
    throw invalid('reducingGap', 'a number of at least 1', reducingGap)
  if (width === image.width && height === image.height) return { ...image, data: image.data.slice() }
  if (resample === 'nearest') return nearest(image, width, height)
  if (image.channels === 4) return unpremultiply(resampleWhole(premultiply(image), width, height, FILTERS[resample]))
  if (reducingGap === undefined) return resampleWhole(image, width, height, FILTERS[resample])
  const factorX = Math.max(1, Math.trunc(image.width / width / reducingGap))
  const factorY = Math.max(1, Math.trunc(image.height / height / reducingGap))
  const box = { x0: 0, y0: 0, x1: image.width / factorX, y1: image.height / factorY }
  return resampleBox(reducePixels(image, factorX, factorY), box, width, height, FILTERS[resample])
}

/**
 * `PIL.Image.reduce`: means over blocks of `factorX` by `factorY` pixels; the last block of a row or column may be
 * smaller and counts what it has.
 */
export function reducePixels(image: Pixels, factorX: number, factorY: number): Pixels {
  if (factorX === 1 && factorY === 1) return image
  const { data, channels } = image
  const width = Math.ceil(image.width / factorX)
  const height = Math.ceil(image.height / factorY)
  const out = new Uint8Array(width * height * channels)
  let position = 0
  for (let y = 0; y < height; y++) {
    const endY = Math.min((y + 1) * factorY, image.height)
    for (let x = 0; x < width; x++) {
      const endX = Math.min((x + 1) * factorX, image.width)
      const count = (endX - x * factorX) * (endY - y * factorY)
      // Pillow divides by multiplying with a 24-bit reciprocal, which it computes in float32.
      const reciprocal = Math.trunc(Math.fround(2 ** 24 / count))
      for (let channel = 0; channel < channels; channel++) {
        let sum = Math.trunc(count / 2)
        for (let fromY = y * factorY; fromY < endY; fromY++)
          for (let fromX = x * factorX; fromX < endX; fromX++)
            sum += data[(fromY * image.width + fromX) * channels + channel]!
        out[position++] = (sum * reciprocal) / 2 ** 24
      }
    }
  }
  return { data: out, width, height, channels }
}

function nearest(image: Pixels, width: number, height: number): Pixels {
  const { data, channels } = image
  const columns = nearestPositions(image.width, width)
  const rows = nearestPositions(image.height, height)
  const out = new Uint8Array(width * height * channels)
  let position = 0
  for (const row of rows)
    for (const column of columns) {
      const from = (row * image.width + column) * channels
      for (let channel = 0; channel < channels; channel++) out[position++] = data[from + channel]!
    }
  return { data: out, width, height, channels }
}

/** Positions add up in float64 as in Pillow; a product would round differently. */
function nearestPositions(from: number, to: number): Int32Array {
  const step = from / to
  const positions = new Int32Array(to)
  for (let i = 0, at = step * 0.5; i < to; i++, at += step) positions[i] = Math.min(Math.trunc(at), from - 1)
  return positions
}

function resampleWhole(image: Pixels, width: number, height: number, filter: Filter): Pixels {
  return resampleBox(image, { x0: 0, y0: 0, x1: image.width, y1: image.height }, width, height, filter)
}

function resampleBox(image: Pixels, box: Box, width: number, height: number, filter: Filter): Pixels {
  const { x0, y0, x1, y1 } = box
  const horizontal = (from: Pixels) =>
    width === from.width && x0 === 0 && x1 === width
      ? from
      : resampleRows(from, coefficients(from.width, x0, x1, width, filter))
  const vertical = (from: Pixels) =>
    height === from.height && y0 === 0 && y1 === height
      ? from
      : resampleColumns(from, coefficients(from.height, y0, y1, height, filter))
  const veryTall = image.height > image.width * 100 && height < image.height
  return veryTall ? horizontal(vertical(image)) : vertical(horizontal(image))
}

const PRECISION_BITS = 22

interface Coefficients {
  /** weights per output position */
  taps: number
  /** first input position per output position */
  start: Int32Array
  /** fixed point with PRECISION_BITS, `taps` per output position, zero where unused */
  weights: Int32Array
}

function coefficients(size: number, begin: number, end: number, outSize: number, filter: Filter): Coefficients {
  const scale = (end - begin) / outSize
  const stretch = Math.max(scale, 1)
  const support = filter.support * stretch
  const taps = Math.ceil(support) * 2 + 1
  const start = new Int32Array(outSize)
  const weights = new Int32Array(outSize * taps)
  const exact = new Float64Array(taps)
  for (let i = 0; i < outSize; i++) {
    const center = begin + (i + 0.5) * scale
    const first = Math.max(0, Math.trunc(center - support + 0.5))
    const count = Math.min(size, Math.trunc(center + support + 0.5)) - first
    let sum = 0
    for (let tap = 0; tap < count; tap++) {
      exact[tap] = filter.weight((tap + first - center + 0.5) * (1 / stretch))
      sum += exact[tap]!
    }
    start[i] = first
    for (let tap = 0; tap < count; tap++) {
      const weight = (sum === 0 ? exact[tap]! : exact[tap]! / sum) * (1 << PRECISION_BITS)
      weights[i * taps + tap] = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5)
    }
  }
  return { taps, start, weights }
}

function resampleRows(image: Pixels, { taps, start, weights }: Coefficients): Pixels {
  const { data, channels, height } = image
  const width = start.length
  const out = new Uint8ClampedArray(width * height * channels)
  const stride = image.width * channels
  let position = 0
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const from = y * stride + start[x]! * channels
      const count = Math.min(taps, image.width - start[x]!)
      for (let channel = 0; channel < channels; channel++) {
        let sum = 1 << (PRECISION_BITS - 1)
        for (let tap = 0; tap < count; tap++) sum += data[from + tap * channels + channel]! * weights[x * taps + tap]!
        out[position++] = sum >> PRECISION_BITS
      }
    }
  return { data: new Uint8Array(out.buffer), width, height, channels }
}

function resampleColumns(image: Pixels, { taps, start, weights }: Coefficients): Pixels {
  const { data, channels, width } = image
  const height = start.length
  const stride = width * channels
  const out = new Uint8ClampedArray(height * stride)
  const sums = new Int32Array(stride)
  for (let y = 0; y < height; y++) {
    sums.fill(1 << (PRECISION_BITS - 1))
    const count = Math.min(taps, image.height - start[y]!)
    for (let tap = 0; tap < count; tap++) {
      const weight = weights[y * taps + tap]!
      const from = (start[y]! + tap) * stride
      for (let i = 0; i < stride; i++) sums[i]! += data[from + i]! * weight
    }
    for (let i = 0; i < stride; i++) out[y * stride + i] = sums[i]! >> PRECISION_BITS
  }
  return { data: new Uint8Array(out.buffer), width, height, channels }
}

function premultiply(image: Pixels): Pixels {
  return mapColours(image, (colour, alpha) => {
    const product = colour * alpha + 128
    return ((product >> 8) + product) >> 8
  })
}

function unpremultiply(image: Pixels): Pixels {
  return mapColours(image, (colour, alpha) =>
    alpha === 0 || alpha === 255 ? colour : Math.min(255, Math.trunc((255 * colour) / alpha)),
  )
}

function mapColours(image: Pixels, change: (colour: number, alpha: number) => number): Pixels {
  const data = image.data.slice()
  for (let i = 0; i < data.length; i += 4)
    for (let channel = 0; channel < 3; channel++) data[i + channel] = change(data[i + channel]!, data[i + 3]!)
  return { ...image, data }
}

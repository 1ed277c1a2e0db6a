// Pictures to network inputs and back: diffusers' VaeImageProcessor (image_processor.py) and transformers'
// CLIPImageProcessor in its Pillow form, in float32 as the reference computes it.
import { invalid, KandinskyError } from '../errors.js'
import { concatRows, Tensor } from '../tensor.js'
import { type ImageInput, loadImage, RawImage } from './image.js'
import { convertPixels, type Pixels } from './pixels.js'
import { cubic, PIL_RESAMPLE, type Resample, resizePixels } from './resize.js'

/** Anything `loadImage` takes, or a tensor [3, h, w] or [n, 3, h, w]. */
export type TensorOrImage = ImageInput | Tensor

export interface PreprocessOptions {
  /** in pixels, rounded down to a multiple of `vaeScaleFactor`; the picture's own if not given */
  height?: number | undefined
  /** in pixels, rounded down to a multiple of `vaeScaleFactor`; the picture's own if not given */
  width?: number | undefined
  resample?: Resample | undefined
  /** see `resizePixels` */
  reducingGap?: number | undefined
  vaeScaleFactor?: number | undefined
  signal?: AbortSignal | undefined
}

/**
 * Input of the MoVQ encoder from pictures, as `VaeImageProcessor.preprocess` in the image-to-image pipelines. The
 * reference fails for gray, palette and alpha pictures; here they become RGB after resizing.
 *
 * @param images one or several; tensors hold values in [0, 1], or in [-1, 1] where some are negative, and are resized
 *   by nearest neighbours; a tensor with 4 channels counts as latents and is returned as it is
 * @returns [n, 3, height, width] in [-1, 1]
 */
export async function preprocessImage(
  images: TensorOrImage | readonly TensorOrImage[],
  options: PreprocessOptions = {},
): Promise<Tensor> {
  const { resample = 'bicubic', reducingGap = 1, vaeScaleFactor = 8, signal } = options
  const rounded = (name: 'height' | 'width', own: number) => {
    const side = options[name] ?? own
    if (!Number.isSafeInteger(side) || side < vaeScaleFactor)
      throw invalid(name, `an integer of at least ${vaeScaleFactor}`, side)
    return side - (side % vaeScaleFactor)
  }
  const parts = (await resolveImages(images, { signal })).map((image) => {
    if (image instanceof Tensor) {
      const [, channels, height, width] = image.shape as [number, number, number, number]
      if (channels === 4) return image
      return normalize(interpolateNearest(image, rounded('height', height), rounded('width', width)))
    }
    const [height, width] = [rounded('height', image.height), rounded('width', image.width)]
    const resized = convertPixels(resizePixels(image, width, height, resample, reducingGap), 'RGB')
    return toTensor(resized, [(value) => 2 * Math.fround(value / 255) - 1])
  })
  return concatRows(parts)
}

/** preprocessor_config.json of a CLIP image processor; absent entries have transformers' defaults. */
export interface ClipProcessorConfig {
  do_resize?: boolean
  /** `{ shortest_edge }` or `{ height, width }`; a number is a shortest edge */
  size?: number | { shortest_edge?: number; height?: number; width?: number }
  /** Pillow's number of the filter */
  resample?: number
  do_center_crop?: boolean
  crop_size?: number | { height: number; width: number }
  do_rescale?: boolean
  rescale_factor?: number
  do_normalize?: boolean
  image_mean?: number | number[]
  image_std?: number | number[]
  do_convert_rgb?: boolean
}

/**
 * Input of the CLIP image encoder from pictures, as `CLIPImageProcessor`: RGB, shortest edge resized, centre cropped,
 * rescaled, normalized per channel; each step where its `do_*` entry is not false.
 *
 * @returns pixel_values [n, 3, crop height, crop width]
 * @throws KandinskyError `BAD_FILE` for an invalid config
 */
export async function clipPreprocess(
  images: ImageInput | readonly ImageInput[],
  config: ClipProcessorConfig,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<Tensor> {
  const processor = clipProcessor(config)
  const parts = (await resolveImages(images, { signal })).map((image) => {
    if (image instanceof Tensor) throw invalid('image', 'a picture', image)
    return processor(image)
  })
  return concatRows(parts)
}

function clipProcessor(config: ClipProcessorConfig): (image: Pixels) => Tensor {
  const given = withoutNulls(config)
  const { do_resize, do_center_crop, do_rescale, do_normalize, do_convert_rgb, ...values } = given
  for (const [name, value] of Object.entries(values as Record<string, unknown>))
    if (name.startsWith('do_') && value === true)
      throw new KandinskyError('UNSUPPORTED_MODEL', `Expected no ${name} in preprocessor_config.json`)
  const { size = 224, crop_size = 224 } = values
  const resample = PIL_RESAMPLE[values.resample ?? PIL_BICUBIC]
  if (!resample) throw badConfig('resample', `a number below ${PIL_RESAMPLE.length}`, values.resample)
  const target = typeof size === 'number' ? { shortest_edge: size } : size
  const crop = typeof crop_size === 'number' ? { height: crop_size, width: crop_size } : crop_size
  if (do_center_crop !== false) checkSides('crop_size', crop.height, crop.width)
  const tables = clipColours(values, do_rescale !== false, do_normalize !== false)
  return (image) => {
    let pixels = do_convert_rgb === false ? image : convertPixels(image, 'RGB')
    if (pixels.channels !== 3) throw invalid('image', 'an RGB image (do_convert_rgb is false)', image)
    if (do_resize !== false) {
      const [height, width] = clipSize(pixels, target)
      pixels = resizePixels(pixels, width, height, resample)
    }
    if (do_center_crop !== false) pixels = centerCrop(pixels, crop.height, crop.width)
    return toTensor(pixels, tables)
  }
}

/** Pillow's number of the filter that CLIP's processors and their like have by default */
export const PIL_BICUBIC = 3

/** One function of a byte per colour: rescaled, then normalized. */
export function clipColours(
  values: Pick<ClipProcessorConfig, 'rescale_factor' | 'image_mean' | 'image_std'>,
  rescales = true,
  normalizes = true,
): ((byte: number) => number)[] {
  const { rescale_factor = 1 / 255 } = values
  if (typeof rescale_factor !== 'number') throw badConfig('rescale_factor', 'a number', rescale_factor)
  const mean = perChannel('image_mean', values.image_mean ?? [0.48145466, 0.4578275, 0.40821073])
  const std = perChannel('image_std', values.image_std ?? [0.26862954, 0.26130258, 0.27577711])
  const scale = rescales ? rescale_factor : 1
  return mean.map((centre, i) => (value: number) => {
    const rescaled = Math.fround(value * scale)
    return normalizes ? Math.fround(rescaled - Math.fround(centre)) / Math.fround(std[i]!) : rescaled
  })
}

/** in pixels; CLIP's are 224 and 336 */
const MAX_CONFIG_SIDE = 4096

/** transformers writes null for what is not set. */
export function withoutNulls<Config extends object>(config: Config): Config {
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== null)) as Config
}

function clipSize(
  image: Pixels,
  size: { shortest_edge?: number; height?: number; width?: number },
): [height: number, width: number] {
  const { shortest_edge: shortest, height, width } = size
  if (shortest === undefined) {
    checkSides('size', height, width)
    return [height!, width!]
  }
  checkSides('size', shortest, shortest)
  const longest = Math.trunc((shortest * Math.max(image.width, image.height)) / Math.min(image.width, image.height))
  return image.width <= image.height ? [longest, shortest] : [shortest, longest]
}

function checkSides(name: string, height: unknown, width: unknown): void {
  for (const side of [height, width])
    if (!Number.isSafeInteger(side) || (side as number) < 1 || (side as number) > MAX_CONFIG_SIDE)
      throw badConfig(name, `integers from 1 to ${MAX_CONFIG_SIDE}`, side)
}

function perChannel(name: string, value: number | number[]): number[] {
  const values = typeof value === 'number' ? [value, value, value] : value
  if (!Array.isArray(values) || values.length !== 3 || !values.every(Number.isFinite))
    throw badConfig(name, '3 numbers', JSON.stringify(value))
  return values
}

export function badConfig(name: string, expected: string, value: unknown): KandinskyError {
  const message = `Expected ${expected} for ${name} in preprocessor_config.json but received ${value}`
  return new KandinskyError('BAD_FILE', message)
}

/** Black borders where the picture is smaller than the crop, as transformers' `center_crop`. */
function centerCrop(image: Pixels, height: number, width: number): Pixels {
  const { data, channels } = image
  const top = Math.floor((image.height - height) / 2)
  const left = Math.floor((image.width - width) / 2)
  const out = new Uint8Array(width * height * channels)
  const from = Math.max(0, left)
  const to = Math.min(image.width, left + width)
  for (let y = Math.max(0, -top); y < Math.min(height, image.height - top); y++) {
    const row = (y + top) * image.width
    out.set(data.subarray((row + from) * channels, (row + to) * channels), (y * width + from - left) * channels)
  }
  return { data: out, width, height, channels }
}

/**
 * Decoder output to picture values, as `VaeImageProcessor.postprocess`.
 *
 * @param decoded [n, channels, h, w] in about [-1, 1]
 * @returns [n, h, w, channels] in 0..1
 */
export function postprocess(decoded: Tensor): Tensor {
  const [count, channels, height, width] = shape4('decoded', decoded)
  const pixels = height * width
  const out = new Float32Array(decoded.data.length)
  for (let image = 0; image < count; image++)
    for (let channel = 0; channel < channels; channel++) {
      const plane = decoded.data.subarray((image * channels + channel) * pixels)
      const start = image * pixels * channels + channel
      for (let i = 0; i < pixels; i++)
        out[start + i * channels] = Math.min(1, Math.max(0, Math.fround(plane[i]! * 0.5) + 0.5))
    }
  return new Tensor(out, [count, height, width, channels])
}

/**
 * Picture values to pictures: bytes are 255 times the value, rounded half to even as numpy does.
 *
 * @param values [n, h, w, channels] in 0..1 with 1, 3 or 4 channels
 */
export function toRawImages(values: Tensor): RawImage[] {
  const [count, height, width, channels] = shape4('values', values)
  const size = height * width * channels
  return Array.from({ length: count }, (_, image) => {
    // Uint8ClampedArray rounds half to even by itself.
    const bytes = new Uint8ClampedArray(size)
    for (let i = 0; i < size; i++) bytes[i] = Math.fround(values.data[image * size + i]! * 255)
    return new RawImage(new Uint8Array(bytes.buffer), width, height, channels as 1 | 3 | 4)
  })
}

/** torch's `interpolate(mode='nearest')` of [n, c, h, w] to another height and width. */
export function interpolateNearest(tensor: Tensor, height: number, width: number): Tensor {
  const [count, channels, oldHeight, oldWidth] = shape4('tensor', tensor)
  if (height === oldHeight && width === oldWidth) return tensor
  const positions = (from: number, to: number) => {
    const scale = Math.fround(from / to)
    return Int32Array.from({ length: to }, (_, i) => Math.min(Math.floor(Math.fround(i * scale)), from - 1))
  }
  const rows = positions(oldHeight, height)
  const columns = positions(oldWidth, width)
  const out = new Float32Array(count * channels * height * width)
  let position = 0
  for (let plane = 0; plane < count * channels; plane++)
    for (const row of rows)
      for (const column of columns) out[position++] = tensor.data[(plane * oldHeight + row) * oldWidth + column]!
  return new Tensor(out, [count, channels, height, width])
}

/**
 * Bilinear without blurring first, mirrored at the borders: skimage's `resize` with `anti_aliasing=False`.
 * @param tensor [n, c, h, w]
 */
export function interpolateMirrored(tensor: Tensor, height: number, width: number): Tensor {
  const [n, c, h, w] = tensor.shape as [number, number, number, number]
  const axis = (size: number, length: number) =>
    Array.from({ length: size }, (_, i) => {
      const at = Math.abs((i + 0.5) * (length / size) - 0.5)
      const mirrored = at > length - 1 ? 2 * (length - 1) - at : at
      const low = Math.min(Math.floor(mirrored), length - 1)
      return { low, high: Math.min(low + 1, length - 1), weight: mirrored - low }
    })
  const [rows, columns] = [axis(height, h), axis(width, w)]
  const data = new Float32Array(n * c * height * width)
  for (let plane = 0, out = 0; plane < n * c; plane++)
    for (const row of rows)
      for (const column of columns) {
        const value = (y: number, x: number) => tensor.data[(plane * h + y) * w + x]!
        const line = (y: number) => value(y, column.low) * (1 - column.weight) + value(y, column.high) * column.weight
        data[out++] = line(row.low) * (1 - row.weight) + line(row.high) * row.weight
      }
  return new Tensor(data, [n, c, height, width])
}

/** torch's `interpolate(mode='bicubic')` (align_corners and antialias off) of [n, c, h, w] to another height and width. */
export function interpolateBicubic(tensor: Tensor, height: number, width: number): Tensor {
  const [count, channels, oldHeight, oldWidth] = shape4('tensor', tensor)
  const rows = cubicTaps(oldHeight, height)
  const columns = cubicTaps(oldWidth, width)
  const lines = new Float64Array(oldHeight * width)
  const out = new Float32Array(count * channels * height * width)
  for (let plane = 0; plane < count * channels; plane++) {
    const from = plane * oldHeight * oldWidth
    for (let i = 0; i < lines.length; i++) {
      const [y, x] = [Math.floor(i / width), i % width]
      for (let tap = 4 * x; tap < 4 * x + 4; tap++)
        lines[i]! += columns.weights[tap]! * tensor.data[from + y * oldWidth + columns.positions[tap]!]!
    }
    for (let i = 0; i < height * width; i++) {
      const [y, x] = [Math.floor(i / width), i % width]
      let sum = 0
      for (let tap = 4 * y; tap < 4 * y + 4; tap++) sum += rows.weights[tap]! * lines[rows.positions[tap]! * width + x]!
      out[plane * height * width + i] = sum
    }
    lines.fill(0)
  }
  return new Tensor(out, [count, channels, height, width])
}

/** Four source positions and their weights for each of `to` positions; beyond the border the last pixel is repeated. */
function cubicTaps(from: number, to: number): { positions: Int32Array; weights: Float64Array } {
  const [positions, weights] = [new Int32Array(4 * to), new Float64Array(4 * to)]
  for (let i = 0; i < 4 * to; i++) {
    const center = Math.fround(Math.fround(from / to) * (Math.floor(i / 4) + 0.5) - 0.5)
    const position = Math.floor(center) - 1 + (i % 4)
    positions[i] = Math.min(Math.max(position, 0), from - 1)
    weights[i] = cubic(Math.abs(position - center), -0.75)
  }
  return { positions, weights }
}

/**
 * Loads what is no picture or tensor yet. Decoded pictures keep their channels; they and tensors are copied before this
 * returns, as the caller may go on using them.
 *
 * @param options.name what messages call the input, default `image`
 * @param options.tensorShape gives a tensor its 4 dimensions
 */
export async function resolveImages(
  images: TensorOrImage | readonly TensorOrImage[],
  options: {
    signal?: AbortSignal | undefined
    name?: string
    tensorShape?: (shape: readonly number[], name: string) => readonly number[]
  } = {},
): Promise<(RawImage | Tensor)[]> {
  const { signal, name = 'image', tensorShape = imageShape } = options
  const list = Array.isArray(images) ? (images as readonly TensorOrImage[]) : [images as TensorOrImage]
  if (list.length === 0) throw invalid(name, 'at least one picture', images)
  return Promise.all(
    list.map((image) => {
      if (image === null || (typeof image !== 'object' && typeof image !== 'string'))
        throw invalid(name, 'a picture (path, URL, bytes, sharp object or RawImage) or a Tensor', image)
      if (image instanceof Tensor) return new Tensor(image.data.slice(), tensorShape(image.shape, name))
      if (image instanceof RawImage) return new RawImage(image.data.slice(), image.width, image.height, image.channels)
      return loadImage(image, { signal })
    }),
  )
}

/** Pictures, and rows of tensors. */
export function countImages(images: readonly (RawImage | Tensor)[]): number {
  return images.reduce((count, image) => count + (image instanceof Tensor ? image.shape[0]! : 1), 0)
}

function imageShape(shape: readonly number[], name: string): readonly number[] {
  const full = shape.length === 3 ? [1, ...shape] : shape
  if (full.length !== 4 || (full[1] !== 3 && full[1] !== 4) || full.includes(0))
    throw invalid(name, 'a tensor of shape [3, h, w] or [n, 3, h, w]', `[${shape.join(', ')}]`)
  return full
}

/** Checks [-1, 1]; values without a negative one are taken for [0, 1] and spread to [-1, 1]. */
function normalize(tensor: Tensor): Tensor {
  checkRange('image', tensor, -1)
  if (tensor.data.some((value) => value < 0)) return tensor
  return new Tensor(
    tensor.data.map((value) => 2 * value - 1),
    tensor.shape,
  )
}

/** @throws KandinskyError `INVALID_ARGUMENT` if a value is not in [low, 1] */
export function checkRange(name: string, tensor: Tensor, low: number): void {
  const outside = tensor.data.find((value) => !(value >= low && value <= 1))
  if (outside !== undefined) throw invalid(name, `values in [${low}, 1]`, outside)
}

/** Bytes to [1, channels, h, w] through one function of 256 values per channel, or one for all. */
export function toTensor(image: Pixels, values: readonly ((byte: number) => number)[]): Tensor {
  const { data, width, height, channels } = image
  const tables = values.map((value) => Float32Array.from({ length: 256 }, (_, byte) => value(byte)))
  const pixels = width * height
  const out = new Float32Array(pixels * channels)
  for (let channel = 0; channel < channels; channel++) {
    const table = tables[channel] ?? tables[0]!
    for (let i = 0; i < pixels; i++) out[channel * pixels + i] = table[data[i * channels + channel]!]!
  }
  return new Tensor(out, [1, channels, height, width])
}

function shape4(name: string, tensor: Tensor): [number, number, number, number] {
  if (tensor.shape.length !== 4)
    throw new KandinskyError('SHAPE_MISMATCH', `Expected 4 dimensions for ${name} but received ${tensor.shape.length}`)
  return tensor.shape as unknown as [number, number, number, number]
}

// Pictures in and out. The only file that imports sharp, and only when a picture is decoded or encoded: a program that
// works with raw pixels and tensors never loads it.
import path from 'node:path'
import type sharp from 'sharp'
import type { Sharp } from 'sharp'
import binaries from '../binaries.cjs'
import { invalid, KandinskyError } from '../errors.js'
import { writeWhole } from '../files.js'
import { isUint8Array, recognise } from '../realms.js'
import { unsupportedKind } from './kinds.js'
import { convertPixels, type ImageMode, type Pixels } from './pixels.js'
import { addRecipe, parseRecipe, type Recipe } from './recipe.js'
import { type Resample, resizePixels } from './resize.js'
import { type ByteSource, describeSource, readBytes } from './source.js'

/** Default limit of decoded pictures in pixels: 64 megapixels. */
const MAX_PIXELS = 64 * 2 ** 20
/** JPEG's; libvips takes gigabytes for a line of 64 million pixels. */
const MAX_SIDE = 65535

/** File formats that pictures can be written in. */
export type ImageFormat = 'png' | 'jpeg' | 'webp' | 'avif' | 'tiff' | 'gif'

const FORMATS: Record<string, ImageFormat> = {
  '.png': 'png',
  '.jpg': 'jpeg',
  '.jpeg': 'jpeg',
  '.webp': 'webp',
  '.avif': 'avif',
  '.tif': 'tiff',
  '.tiff': 'tiff',
  '.gif': 'gif',
}
/** Endings of the names that `RawImage.save` takes. */
export const imageFormats: readonly string[] = Object.keys(FORMATS)
/** Formats that can leave something out for smaller files. */
const LOSSY: readonly ImageFormat[] = ['jpeg', 'webp', 'avif', 'tiff']
/** Endings of the names that `RawImage.save` takes a quality for. */
export const qualityFormats: readonly string[] = imageFormats.filter((ending) => LOSSY.includes(FORMATS[ending]!))
/** What Pillow would decode as well. SVG and PDF are programs rather than pictures and stay out. */
const DECODED = ['png', 'jpeg', 'webp', 'heif', 'tiff', 'gif']

/** How a picture is encoded. */
export interface SaveOptions {
  /** of JPEG, WebP, AVIF and TIFF, 1 to 100; default sharp's own (80, AVIF 50) */
  quality?: number | undefined
}

/** A sharp object, of this or of another copy of sharp. */
export type SharpImage = Pick<Sharp, 'clone' | 'metadata'>

/** What `loadImage` takes. */
export type ImageInput = ByteSource | SharpImage | RawImage

/** A decoded picture: 8 bits per channel, rows from top to bottom, channels interleaved. */
export class RawImage implements Pixels {
  readonly data: Uint8Array
  readonly width: number
  readonly height: number
  readonly channels: 1 | 3 | 4
  /** what made the picture; written into PNG files */
  recipe?: Recipe | undefined

  static {
    recognise(RawImage, 'RawImage')
  }

  /**
   * @param data `width * height * channels` bytes
   * @param width in pixels
   * @param height in pixels
   * @param channels 1 gray, 3 RGB, 4 RGB with straight alpha
   * @throws KandinskyError `SHAPE_MISMATCH` if the number of bytes is another one
   */
  constructor(data: Uint8Array, width: number, height: number, channels: 1 | 3 | 4 = 3, recipe?: Recipe) {
    if (!isUint8Array(data)) throw invalid('data', 'a Uint8Array', data)
    for (const [name, side] of Object.entries({ width, height }))
      if (!Number.isSafeInteger(side) || side < 1) throw invalid(name, 'a positive integer', side)
    if (![1, 3, 4].includes(channels)) throw invalid('channels', '1, 3 or 4', channels)
    if (data.length !== width * height * channels)
      throw new KandinskyError(
        'SHAPE_MISMATCH',
        `Expected ${width * height * channels} bytes for ${width}x${height} pixels with ${channels} channels but received ${data.length}`,
      )
    this.data = data
    this.width = width
    this.height = height
    this.channels = channels
    this.recipe = recipe
  }

  /** Same picture with other channels, as `PIL.Image.convert` makes it (alpha is dropped, not blended). */
  convert(mode: ImageMode): RawImage {
    return fromPixels(convertPixels(this, mode), this.recipe)
  }

  /**
   * The picture in exactly this size, as `PIL.Image.resize` makes it.
   * @throws KandinskyError `INVALID_ARGUMENT` unless both sides are positive integers
   */
  resize(width: number, height: number, resample: Resample = 'bicubic'): RawImage {
    return fromPixels(resizePixels(this, width, height, resample), this.recipe)
  }

  /**
   * The picture shrunk to fit into this size with its proportions kept, as `PIL.Image.thumbnail` makes it; a picture that
   * fits already stays as it is.
   * @throws KandinskyError `INVALID_ARGUMENT` unless both sides are positive integers
   */
  thumbnail(width: number, height = width, resample: Resample = 'bicubic'): RawImage {
    for (const [name, side] of Object.entries({ width, height }))
      if (!Number.isSafeInteger(side) || side < 1) throw invalid(name, 'a positive integer', side)
    if (width >= this.width && height >= this.height) return this
    const aspect = this.width / this.height
    const [fitWidth, fitHeight] =
      width / height >= aspect
        ? [closest(height * aspect, (n) => Math.abs(aspect - n / height)), height]
        : [width, closest(width / aspect, (n) => (n === 0 ? 0 : Math.abs(aspect - width / n)))]
    return fromPixels(resizePixels(this, fitWidth, fitHeight, resample, 2), this.recipe)
  }

  /** A sharp object on these pixels (not on a copy), to resize, compose or encode further. */
  toSharp(): Sharp {
    const { width, height, channels } = this
    // a Buffer, as sharp compares constructors
    const data = Buffer.from(this.data.buffer, this.data.byteOffset, this.data.byteLength)
    const image = loadSharp()(data, { raw: { width, height, channels } })
    return channels === 1 ? image.toColourspace('b-w') : image
  }

  /** The picture as a file's bytes. A PNG file carries the `recipe`, other formats do not. */
  async toBuffer(format: ImageFormat = 'png', { quality }: SaveOptions = {}): Promise<Buffer> {
    if (!Object.values(FORMATS).includes(format)) throw invalid('format', Object.values(FORMATS).join(', '), format)
    if (quality !== undefined && !LOSSY.includes(format)) throw invalid('quality', `nothing for ${format}`, quality)
    if (quality !== undefined && !(Number.isInteger(quality) && quality >= 1 && quality <= 100))
      throw invalid('quality', 'an integer from 1 to 100', quality)
    const bytes = await this.toSharp()
      .toFormat(format, quality === undefined ? {} : { quality })
      .toBuffer()
    return format === 'png' && this.recipe ? Buffer.from(addRecipe(bytes, this.recipe)) : bytes
  }

  /**
   * Writes the picture in the format that the name ends with. Another program sees the whole file or none.
   *
   * @param file path ending in .png, .jpg, .jpeg, .webp, .avif, .tif, .tiff or .gif; its folder must exist
   */
  async save(file: string, options: SaveOptions = {}): Promise<void> {
    const format = typeof file === 'string' ? FORMATS[path.extname(file).toLowerCase()] : undefined
    if (!format) throw invalid('path', `a name that ends in ${imageFormats.join(', ')}`, file)
    const bytes = await this.toBuffer(format, options)
    try {
      await writeWhole(file, bytes)
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'FILE_NOT_FOUND' : 'BAD_FILE'
      throw new KandinskyError(code, `Could not write ${file}: ${(error as Error).message}`, { cause: error })
    }
  }
}

/** What `loadImage` takes beside its source. */
export interface LoadImageOptions {
  /** channels of the result (default RGB, as diffusers' `load_image`) */
  mode?: ImageMode | undefined
  /** refuse larger pictures, in pixels (default 64 * 2^20) */
  maxPixels?: number | undefined
  signal?: AbortSignal | undefined
}

/**
 * Decodes a picture: upright by its EXIF orientation, then converted, as diffusers' `load_image` does. Colour profiles
 * are not applied, as Pillow does not apply them; of an animation the first frame counts.
 *
 * @param source path, URL (http, https, data, file), bytes of a file, sharp object, or RawImage
 * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE` (no picture, a damaged one, one above the limits)
 */
export async function loadImage(source: ImageInput, options: LoadImageOptions = {}): Promise<RawImage> {
  const { mode = 'RGB', maxPixels = MAX_PIXELS, signal } = options
  if (typeof maxPixels !== 'number' || !(maxPixels >= 1)) throw invalid('maxPixels', 'a positive number', maxPixels)
  if (source instanceof RawImage) return source.convert(mode)
  if (isSharp(source)) return decode(source.clone() as Sharp, 'the sharp object', mode)
  const bytes = await readBytes(source, signal)
  const name = describeSource(source)
  const { format, width, height } = await readHeader(bytes, name)
  if (!DECODED.includes(format)) throw notAnImage(name, `a file of type ${format}`)
  if (Math.max(width, height) > MAX_SIDE)
    throw new KandinskyError(
      'BAD_FILE',
      `Expected sides of at most ${MAX_SIDE} pixels in ${name} but received ${width}x${height}`,
    )
  if (width * height > maxPixels)
    throw new KandinskyError(
      'BAD_FILE',
      `Expected at most ${maxPixels} pixels in ${name} but received ${width}x${height}`,
    )
  // The decoder warns of files that Pillow takes, too; truncated and corrupt ones are errors.
  const image = loadSharp()(bytes, {
    limitInputPixels: Math.min(Math.floor(maxPixels), MAX_SIDE ** 2),
    failOn: 'error',
    ignoreIcc: true,
  })
  const decoded = await decode(image, name, mode)
  signal?.throwIfAborted()
  return decoded
}

/**
 * Pictures of equal size side by side, as diffusers' `make_image_grid`.
 *
 * @param images `rows * cols` pictures, row by row
 * @param resize side in pixels; makes every picture a square of it (bicubic)
 */
export function makeImageGrid(images: readonly RawImage[], rows: number, cols: number, resize?: number): RawImage {
  for (const [name, count] of Object.entries({ rows, cols }))
    if (!Number.isSafeInteger(count) || count < 1) throw invalid(name, 'a positive integer', count)
  if (!Array.isArray(images) || images.length !== rows * cols || !images.every((image) => image instanceof RawImage))
    throw invalid('images', `an array of ${rows * cols} RawImage`, images)
  const tiles = images.map((image) => {
    const sized = resize === undefined ? image : resizePixels(image, resize, resize, 'bicubic')
    return convertPixels(sized, 'RGB')
  })
  const { width, height } = tiles[0]!
  const stride = width * 3
  const grid = new Uint8Array(stride * cols * height * rows)
  for (const [i, tile] of tiles.entries()) {
    if (tile.width !== width || tile.height !== height)
      throw invalid(`images[${i}]`, `${width}x${height} pixels as images[0] has`, `${tile.width}x${tile.height}`)
    const corner = Math.floor(i / cols) * height * stride * cols + (i % cols) * stride
    for (let y = 0; y < height; y++)
      grid.set(tile.data.subarray(y * stride, (y + 1) * stride), corner + y * stride * cols)
  }
  return new RawImage(grid, width * cols, height * rows)
}

/**
 * What made a picture that this package wrote as PNG.
 *
 * @param source path, URL, or bytes of a PNG file
 * @returns undefined if the file carries no recipe
 * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE` (no PNG file, a damaged one, no valid recipe)
 */
export async function readRecipe(source: ByteSource): Promise<Recipe | undefined> {
  return parseRecipe(await readBytes(source))
}

/** What a picture is and, where it is a PNG file of this package, what made it. Nothing is decoded. */
export interface PictureInfo {
  /** as the file itself tells, e.g. `jpeg` */
  format: string
  /** in pixels */
  width: number
  height: number
  recipe: Recipe | undefined
}

/** @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE` (no picture, a damaged one, no valid recipe) */
export async function inspectImage(source: ByteSource): Promise<PictureInfo> {
  const bytes = await readBytes(source)
  const { format, width, height } = await readHeader(bytes, describeSource(source))
  return { format, width, height, recipe: format === 'png' ? parseRecipe(bytes) : undefined }
}

/** The whole number beside `value` with the smaller error, at least 1. */
function closest(value: number, error: (n: number) => number): number {
  const [below, above] = [Math.floor(value), Math.ceil(value)]
  return Math.max(error(above) < error(below) ? above : below, 1)
}

function fromPixels({ data, width, height, channels }: Pixels, recipe?: Recipe): RawImage {
  return new RawImage(data, width, height, channels, recipe)
}

async function readHeader(bytes: Buffer, name: string): Promise<{ format: string; width: number; height: number }> {
  if (bytes.length === 0) throw notAnImage(name, 'no bytes')
  const unsupported = unsupportedKind(bytes)
  if (unsupported) throw notAnImage(name, unsupported)
  try {
    const { format, width, height } = await loadSharp()(bytes, { limitInputPixels: false }).metadata()
    return { format, width, height }
  } catch (error) {
    if (error instanceof KandinskyError) throw error
    throw notAnImage(name, describeBytes(bytes), error)
  }
}

async function decode(image: Sharp, name: string, mode: ImageMode): Promise<RawImage> {
  try {
    // libvips converts by a profile where Pillow does plain arithmetic: up to 109/255 apart.
    if ((await image.metadata()).space === 'cmyk')
      throw notAnImage(name, 'a CMYK picture, which is not supported; save it as RGB first')
    const { data, info } = await image
      .autoOrient()
      .toColourspace('srgb')
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true })
    const channels = info.channels as 1 | 2 | 3 | 4
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.length)
    const pixels = channels === 2 ? grayToColour(bytes) : bytes
    const { width, height } = info
    return fromPixels(convertPixels({ data: pixels, width, height, channels: channels === 2 ? 4 : channels }, mode))
  } catch (error) {
    if (error instanceof KandinskyError) throw error
    throw new KandinskyError('BAD_FILE', `Could not decode ${name}: ${(error as Error).message}`, { cause: error })
  }
}

/** Gray and alpha to RGB and alpha. */
function grayToColour(data: Uint8Array): Uint8Array {
  return Uint8Array.from({ length: data.length * 2 }, (_, i) => data[(i >> 2) * 2 + (i % 4 === 3 ? 1 : 0)]!)
}

function isSharp(source: unknown): source is SharpImage {
  const image = source as Partial<Sharp> | null
  return typeof image === 'object' && typeof image?.clone === 'function' && typeof image.metadata === 'function'
}

/** @throws KandinskyError `NATIVE_LOAD_FAILED` */
export function sharpVersion(): string {
  return loadSharp().versions.sharp ?? ''
}

function loadSharp(): typeof sharp {
  try {
    return binaries.loadSharp() as typeof sharp
  } catch (error) {
    throw new KandinskyError('NATIVE_LOAD_FAILED', `Could not load sharp: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

function notAnImage(name: string, what: string, cause?: unknown): KandinskyError {
  const message = `Expected a PNG, JPEG, WebP, AVIF, TIFF or GIF image in ${name} but received ${what}`
  return new KandinskyError('BAD_FILE', message, { cause })
}

/** What bytes look like, never what they are: they may be a key or a password file that a server was pointed at. */
function describeBytes(bytes: Buffer): string {
  const isText = !/[^\t\n\r\x20-\x7e\x80-\xff]/.test(bytes.toString('latin1', 0, 512))
  return `${bytes.length} bytes of ${isText ? 'text' : 'an unknown format'}`
}

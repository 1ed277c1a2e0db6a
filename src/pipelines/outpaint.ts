// A picture with room around it, and the mask for inpainting to fill that room.
//
// Easy to get wrong: the pipelines round sizes up to multiples of 64 and resize what they are given, so a canvas of another
// size would squeeze the picture. The room is filled with the border's own colours: the encoder sees it, too, and what it
// makes of the cells beside a black area would be darker than the picture. Which cells those are need not be said here:
// inpainting itself repaints one latent cell more than the mask shows (images/processing-inpaint.ts).
import { invalid, KandinskyError } from '../errors.js'
import { type ImageInput, loadImage, RawImage } from '../images/image.js'
import { expectInteger, expectOptions, maxSide } from './call/options.js'

const MULTIPLE = 64
const sideNames = ['left', 'right', 'top', 'bottom'] as const

/** What `outpaint` takes. All sides in pixels, default 0. */
export interface OutpaintOptions {
  /** the picture, which keeps its size: several hundred pixels a side suit the published models (`RawImage.thumbnail`) */
  image: ImageInput
  /** room to the left; at least one side must get some */
  left?: number | undefined
  right?: number | undefined
  top?: number | undefined
  bottom?: number | undefined
  /** so much of the picture beside the room is repainted, too, which hides the seam better; default 0 */
  overlap?: number | undefined
  signal?: AbortSignal | undefined
}

/** Options of the inpainting pipelines. */
export interface OutpaintInputs {
  /** the picture on its larger canvas */
  image: RawImage
  /** white where there is to be painted */
  maskImage: RawImage
  /** of the canvas in pixels: multiples of 64 */
  height: number
  width: number
}

/**
 * What inpainting needs to go on with a picture beyond its borders:
 * `pipe.generate({ prompt, ...(await outpaint({ image: 'cat.png', left: 128 })) })`.
 *
 * The canvas is as large as asked for or up to 63 pixels larger: its sides are multiples of 64. What that takes is added to
 * the sides that get room, in halves where both do, and on the right or at the bottom where none does.
 *
 * @throws KandinskyError `INVALID_ARGUMENT`, and those of `loadImage`
 */
export async function outpaint(options: OutpaintOptions): Promise<OutpaintInputs> {
  expectOptions(options, ['image', ...sideNames, 'overlap', 'signal'])
  const pixels = (name: (typeof sideNames)[number] | 'overlap') => expectInteger(name, options[name] ?? 0, 0, maxSide)
  const { image, signal } = options
  const overlap = pixels('overlap')
  const sides = { left: pixels('left'), right: pixels('right'), top: pixels('top'), bottom: pixels('bottom') }
  if (sides.left + sides.right + sides.top + sides.bottom === 0)
    throw new KandinskyError('INVALID_ARGUMENT', 'Expected room on at least one side: left, right, top or bottom')
  const picture = await loadImage(image, { signal })
  const [left, width] = fit('width', sides.left, picture.width, sides.right)
  const [top, height] = fit('height', sides.top, picture.height, sides.bottom)
  // The overlap counts from the room: a side that touches the canvas has none.
  const [right, bottom] = [width - left - picture.width, height - top - picture.height]
  const keptColumns = keptRange(left, picture.width, right, overlap)
  const keptRows = keptRange(top, picture.height, bottom, overlap)
  if (keptColumns[0] >= keptColumns[1] || keptRows[0] >= keptRows[1])
    throw invalid('overlap', `less than leaves nothing of ${picture.width}x${picture.height} pixels`, overlap)
  return {
    image: onCanvas(picture, { left, top, width, height }),
    maskImage: maskOf(width, height, keptColumns, keptRows),
    ...{ height, width },
  }
}

/** Where the picture begins along one axis, and how long the canvas is. */
function fit(name: string, before: number, length: number, after: number): [start: number, total: number] {
  const wanted = before + length + after
  const total = Math.ceil(wanted / MULTIPLE) * MULTIPLE
  if (total > maxSide) throw invalid(name, `a canvas of at most ${maxSide} pixels`, wanted)
  const extra = total - wanted
  const share = before > 0 && after > 0 ? Math.floor(extra / 2) : before > 0 ? extra : 0
  return [before + share, total]
}

function keptRange(before: number, length: number, after: number, overlap: number): [from: number, to: number] {
  return [before + (before > 0 ? overlap : 0), before + length - (after > 0 ? overlap : 0)]
}

interface Canvas {
  left: number
  top: number
  width: number
  height: number
}

/** Each pixel of the room has the colour of the picture's nearest. */
function onCanvas(picture: RawImage, { left, top, width, height }: Canvas): RawImage {
  const data = new Uint8Array(width * height * 3)
  const stride = picture.width * 3
  for (let y = 0; y < height; y++) {
    const row = clamp(y - top, picture.height) * stride
    for (let x = 0; x < left; x++) data.set(picture.data.subarray(row, row + 3), (y * width + x) * 3)
    data.set(picture.data.subarray(row, row + stride), (y * width + left) * 3)
    for (let x = left + picture.width; x < width; x++)
      data.set(picture.data.subarray(row + stride - 3, row + stride), (y * width + x) * 3)
  }
  return new RawImage(data, width, height)
}

function clamp(index: number, length: number): number {
  return Math.min(Math.max(index, 0), length - 1)
}

type Range = readonly [from: number, to: number]

/** White but for the pixels that are kept. */
function maskOf(width: number, height: number, [left, right]: Range, [top, bottom]: Range): RawImage {
  const data = new Uint8Array(width * height).fill(255)
  for (let y = top; y < bottom; y++) data.fill(0, y * width + left, y * width + right)
  return new RawImage(data, width, height, 1)
}

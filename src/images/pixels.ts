import { invalid } from '../errors.js'

/** 8-bit pixels, rows from top to bottom, channels interleaved: 1 gray, 3 RGB, 4 RGB and straight alpha. */
export interface Pixels {
  readonly data: Uint8Array
  readonly width: number
  readonly height: number
  readonly channels: 1 | 3 | 4
}

/** Pillow's names for 1, 3 and 4 channels. */
export type ImageMode = 'L' | 'RGB' | 'RGBA'

const CHANNELS: Record<ImageMode, 1 | 3 | 4> = { L: 1, RGB: 3, RGBA: 4 }

/** `PIL.Image.convert`: alpha is dropped, not blended; missing alpha is opaque; gray is ITU-R 601 luma. */
export function convertPixels(image: Pixels, mode: ImageMode): Pixels {
  if (!Object.hasOwn(CHANNELS, mode)) throw invalid('mode', "'L', 'RGB' or 'RGBA'", mode)
  const { data, width, height, channels: from } = image
  const channels = CHANNELS[mode]
  if (channels === from) return image
  const out = new Uint8Array(width * height * channels).fill(255)
  for (let source = 0, target = 0; source < data.length; source += from, target += channels) {
    const red = data[source]!
    const green = from === 1 ? red : data[source + 1]!
    const blue = from === 1 ? red : data[source + 2]!
    if (channels === 1) {
      out[target] = luma(red, green, blue)
    } else {
      out[target] = red
      out[target + 1] = green
      out[target + 2] = blue
    }
  }
  return { data: out, width, height, channels }
}

/** Pillow's 16-bit fixed point of 0.299 R + 0.587 G + 0.114 B. */
function luma(red: number, green: number, blue: number): number {
  return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
}

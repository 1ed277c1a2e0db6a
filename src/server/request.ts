// What is asked for, whichever API it came through.
import type { HiresFix } from '../pipelines/sampling/hires-fix.js'

/** What every API makes of a request. */
export interface PictureRequest {
  /** the first model without it */
  model?: string | undefined
  /** not beside a mix */
  prompt?: string | undefined
  /** texts and pictures, each with its weight, instead of a prompt */
  mix?: readonly MixPart[] | undefined
  negativePrompt?: string | undefined
  /** pictures (default 1); picture i has the seed + i */
  count?: number | undefined
  /** in pixels; the model's own without it */
  width?: number | undefined
  height?: number | undefined
  steps?: number | undefined
  guidance?: number | undefined
  /** a random one without it */
  seed?: bigint | undefined
  /** a short name or a class's name; the checkpoint's own without it */
  scheduler?: string | undefined
  /** bytes of a file, decoded when its turn comes: what waits should be small */
  image?: Uint8Array | undefined
  /** the same; a picture without a mask may bring its own by being transparent where it is to be repainted */
  mask?: Uint8Array | undefined
  /** what of the mask is repainted (default white) */
  repaint?: 'white' | 'black' | 'transparent' | undefined
  /** 0 .. 1, of a picture without a mask */
  strength?: number | undefined
  /** made small first; of a model that can do that from a text alone */
  hiresFix?: HiresFix | undefined
}

/** One item of a mix: a text, or the bytes of a picture's file. */
export interface MixPart {
  item: string | Uint8Array
  weight: number
}

// How inpainting begins: noise, and for the UNet the known part of the picture. WHITE IS REPAINTED (diffusers before 0.19
// and older scripts had it the other way round).
//
// Easy to get wrong: the UNet sees the known latents and a mask of 1 where to KEEP; that mask is first grown by one
// latent cell on the repainted side. In 2.2 the known region is also put back after every step, with the run's INITIAL
// noise; for a batch the reference puts back that of the first picture, and so does this.
import { KandinskyError } from '../../errors.js'
import { interpolateNearest, type TensorOrImage } from '../../images/processing.js'
import { type InpaintInputs, prepareMask, prepareMaskAndMaskedImage } from '../../images/processing-inpaint.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import { concatChannels, repeatRows, sliceRows, Tensor } from '../../tensor.js'
import { hashesOf, type RecipeSources } from '../call/provenance.js'
import { encodeImages, type Movq } from './autoencoder.js'
import type { CheckedCall } from './decoding.js'
import { initialNoise, type LatentsOption } from './noise-start.js'
import type { Start } from './sample.js'
import { onePerEmbedding, scaledNoise } from './start.js'

export interface InpaintStartOptions extends LatentsOption {
  /**
   * The picture (resized), or a tensor [3, height, width] or [n, 3, height, width] in [-1, 1]; or an array of these. One
   * for all embeddings, or one per embedding; of several, 2.2 puts the known region of the first into all results
   */
  image: TensorOrImage | readonly TensorOrImage[]
  /**
   * WHITE is repainted, black is kept: a picture (resized), or a tensor [height, width], [n, height, width] or
   * [n, 1, height, width] in 0..1, which counts as white from 0.5. As many as images
   */
  maskImage: TensorOrImage | readonly TensorOrImage[]
}

/** A start with the channels that the UNet sees behind the latents, one row per picture. */
export interface InpaintStart extends Start {
  extraChannels: Tensor
}

/**
 * Checks and loads picture and mask of a call; the result encodes them.
 *
 * @param blend whether to put the known region back after every step
 */
export async function inpaintStart(
  movq: Movq,
  options: InpaintStartOptions,
  call: CheckedCall,
  blend: boolean,
): Promise<{ begin: () => Promise<InpaintStart>; inputs: RecipeSources['inputs'] }> {
  const draw = initialNoise(call, options)
  const inputs = await inpaintInputs(options, call)
  const { scheduler, count } = call
  const begin = async () => {
    const { known, keep } = await maskedLatents(movq, inputs, call)
    const masked = new Tensor(multiplyMask(known, keep), known.shape)
    const noise = draw()
    const start: InpaintStart = {
      timesteps: scheduler.timesteps,
      latents: scaledNoise(noise, scheduler),
      extraChannels: repeatRows(concatChannels([masked, keep]), count),
    }
    if (blend) start.afterStep = blendKnown(sliceRows(known, 0, 1), sliceRows(keep, 0, 1), noise, scheduler)
    return start
  }
  return { begin, inputs: { image: hashesOf([inputs.image]), maskImage: hashesOf([inputs.mask]) } }
}

async function inpaintInputs({ image, maskImage }: InpaintStartOptions, call: CheckedCall): Promise<InpaintInputs> {
  const { height, width, embeddings, signal } = call
  const inputs = await prepareMaskAndMaskedImage(image, maskImage, { height, width, signal })
  const [, , h, w] = inputs.image.shape
  if (h !== height || w !== width)
    throw new KandinskyError(
      'SHAPE_MISMATCH',
      `Expected a tensor of shape [n, 3, ${height}, ${width}] for image but received [${inputs.image.shape.join(', ')}]`,
    )
  return {
    image: onePerEmbedding('image', inputs.image, embeddings),
    mask: onePerEmbedding('maskImage', inputs.mask, embeddings),
  }
}

/** The picture's latents, and the mask on their grid: 1 where they are kept. */
async function maskedLatents(movq: Movq, { image, mask }: InpaintInputs, { latentShape, signal }: CheckedCall) {
  const [, , h, w] = latentShape as [number, number, number, number]
  return { known: await encodeImages(movq, [image], signal), keep: prepareMask(interpolateNearest(mask, h, w)) }
}

/** Values [n, c, h, w] times a mask [n, 1, h, w]. */
function multiplyMask(values: Tensor, mask: Tensor): Float32Array {
  const [, channels, height, width] = values.shape as [number, number, number, number]
  const pixels = height * width
  return values.data.map((value, i) => value * mask.data[Math.floor(i / (channels * pixels)) * pixels + (i % pixels)]!)
}

/** Puts the known latents [1, c, h, w] back into every row, as noisy as the loop's own will be at the next timestep. */
function blendKnown(known: Tensor, keep: Tensor, noise: Tensor, scheduler: Scheduler) {
  const rows = noise.shape[0]!
  const clean = repeatRows(known, rows)
  return (latents: Tensor, index: number): Tensor => {
    const next = scheduler.timesteps[index + 1]
    const known = next === undefined ? clean : scheduler.addNoise(clean, noise, [next])
    const pixels = keep.data.length
    const data = latents.data.map((value, i) => (keep.data[i % pixels] === 1 ? known.data[i]! : value))
    return new Tensor(data, latents.shape)
  }
}

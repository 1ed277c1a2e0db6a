// How image-to-image begins: the picture's latents with as much noise as `strength` leaves to remove.
import { KandinskyError } from '../../errors.js'
import type { RawImage } from '../../images/image.js'
import { countImages, preprocessImage, resolveImages, type TensorOrImage } from '../../images/processing.js'
import type { Recipe } from '../../images/recipe.js'
import { randnTensor } from '../../random.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import { repeatRows, sameShape, Tensor, tileRows } from '../../tensor.js'
import { expectOneOrEach } from '../call/options.js'
import { hashesOf, type RecipeSources } from '../call/provenance.js'
import { encodeImages, latentChannels, type Movq } from './autoencoder.js'
import type { CheckedCall } from './decoding.js'
import type { Start } from './sample.js'
import { startAt } from './start.js'

export interface ImageStartOptions {
  /**
   * What to start from: a picture (resized), a tensor [3, h, w] or [n, 3, h, w] in [-1, 1] or in [0, 1], or latents
   * [n, 4, height / 8, width / 8]; or an array of these. One for all embeddings, or one per embedding
   */
  image: TensorOrImage | readonly TensorOrImage[]
  /** how far to go from the picture, 0 to 1: the share of the steps that run; default 0.3 */
  strength?: number | undefined
}

/** A level of noise: that of a timestep in the schedule of a scheduler. */
export interface NoiseLevel {
  scheduler: Scheduler
  timestep: number
}

/**
 * Checks and loads the image of a call; `begin` encodes it and adds noise.
 *
 * Embeddings that share one image share its noise, too, as in the reference (unless every picture has a generator of its
 * own): what differs between their pictures comes from the embeddings.
 *
 * @param noiseLevel how much noise to add; default: what the run's first timestep expects
 */
export async function imageStart(
  movq: Movq,
  { image, strength = 0.3 }: ImageStartOptions,
  call: CheckedCall,
  noiseLevel?: (strength: number) => NoiseLevel,
): Promise<{ begin: () => Promise<Start>; recipe: Recipe; inputs: RecipeSources['inputs'] }> {
  const { count, signal } = call
  const start = noisedStart(call, strength, noiseLevel)
  const images = await resolveImages(image, { signal })
  expectImages(images, call, latentChannels(movq))
  const begin = async () => start.begin(repeatRows(await imageLatents(movq, images, call), count))
  return { begin, recipe: { strength }, inputs: { image: hashesOf(images) } }
}

/**
 * The part of a call's steps that `strength` leaves, from latents with noise; what they are of is not known yet.
 * @param name of the strength, for messages
 * @throws KandinskyError `INVALID_ARGUMENT`
 */
export function noisedStart(
  { scheduler, embeddings, count, steps, generator, latentShape }: CheckedCall,
  strength: number,
  noiseLevel?: (strength: number) => NoiseLevel,
  name?: string,
): { timesteps: readonly number[]; begin: (latents: Tensor) => Start } {
  const index = startAt(steps, strength, scheduler, name)
  scheduler.setBeginIndex(index)
  const timesteps = scheduler.timesteps.slice(index)
  const level = noiseLevel?.(strength) ?? { scheduler, timestep: timesteps[0]! }
  const begin = (latents: Tensor) => {
    const shared = (tensor: Tensor) => tileRows(tensor, (embeddings * count) / tensor.shape[0]!)
    const ownNoise = Array.isArray(generator) && generator.length > 1
    const noise = randnTensor(ownNoise ? latentShape : latents.shape, generator)
    return { timesteps, latents: level.scheduler.addNoise(shared(latents), shared(noise), [level.timestep]) }
  }
  return { timesteps, begin }
}

function expectImages(images: (RawImage | Tensor)[], { embeddings, latentShape }: CheckedCall, channels: number) {
  expectOneOrEach('image', countImages(images), 'embedding', embeddings)
  const shape = latentShape.slice(1)
  for (const image of images)
    if (image instanceof Tensor && image.shape[1] === channels && !sameShape(image.shape.slice(1), shape))
      throw new KandinskyError(
        'SHAPE_MISMATCH',
        `Expected latents of shape [n, ${shape.join(', ')}] for image but received [${image.shape.join(', ')}]`,
      )
}

async function imageLatents(
  movq: Movq,
  images: (RawImage | Tensor)[],
  { height, width, signal }: CheckedCall,
): Promise<Tensor> {
  const inputs = await Promise.all(images.map((image) => preprocessImage(image, { height, width, signal })))
  return encodeImages(movq, inputs, signal)
}

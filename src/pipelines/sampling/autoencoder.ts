// Between pictures and latents: what pipelines ask of MoVQ. No scaling factor: Kandinsky's latents are MoVQ's own.
import type { RawImage } from '../../images/image.js'
import { postprocess, toRawImages } from '../../images/processing.js'
import type { Network } from '../../networks/network.js'
import { type RandomSource, randnTensor } from '../../random.js'
import { concatRows, repeatRows, rowsOf, splitChannels, Tensor } from '../../tensor.js'

export type Movq = Network<'VQModel'>
/** Any network between pictures and latents. */
export type Autoencoder = Network<'VQModel'> | Network<'AutoencoderKL'>

/** `image`: RawImage; `float`: Tensor [n, height, width, 3] in 0..1; `latent`: Tensor [n, 4, h, w] */
export type OutputType = 'image' | 'float' | 'latent'

export function latentChannels(movq: Pick<Autoencoder, 'config'>): number {
  return Number(movq.config.latent_channels)
}

/** MoVQ halves the picture once per level but the last. */
export function movqScaleFactor(movq: Pick<Autoencoder, 'config'>): number {
  const levels = movq.config.block_out_channels
  return 2 ** ((Array.isArray(levels) ? levels.length : 1) - 1)
}

/**
 * Side of the latents for a picture side in pixels: rounded up to a whole number of the UNet's coarsest cells, so 513
 * pixels become 576 (diffusers' downscale_height_and_width; `factor` is MoVQ's, 8 in all published checkpoints).
 */
export function latentSide(pixels: number, factor: number): number {
  return Math.ceil(pixels / factor ** 2) * factor
}

/**
 * MoVQ latents of pictures [n, 3, h, w] in [-1, 1], encoded one at a time; one that repeats its predecessor is not
 * encoded again, and latents stay as they are.
 */
export async function encodeImages(movq: Movq, pictures: readonly Tensor[], signal?: AbortSignal): Promise<Tensor> {
  const latents: Tensor[] = []
  let previous: Tensor | undefined
  for (const sample of pictures.flatMap(rowsOf)) {
    if (sample.shape[1] === latentChannels(movq)) latents.push(sample)
    else if (previous && sameBytes(previous.data, sample.data)) latents.push(latents.at(-1)!)
    else latents.push((await movq.run('encode', { sample }, { signal })).latents)
    previous = sample
  }
  return concatRows(latents)
}

/** Latents of pictures [n, 3, h, w]: MoVQ's, or the means of an autoencoder that gives distributions. */
export async function encodeToMeans(autoencoder: Autoencoder, sample: Tensor): Promise<Tensor> {
  if (autoencoder.className !== 'AutoencoderKL') return (await (autoencoder as Movq).run('encode', { sample })).latents
  const { moments } = await (autoencoder as Network<'AutoencoderKL'>).run('encode', { sample })
  return splitChannels(moments, latentChannels(autoencoder))[0]
}

/**
 * Latents [n * count, C, h, w] of pictures [1, 3, h, w] in [-1, 1] from an autoencoder that gives distributions: mean +
 * deviation * noise (diffusers' DiagonalGaussianDistribution). One draw serves the `count` results of a picture, unless
 * each has a generator of its own.
 */
export async function sampleLatents(
  vae: Network<'AutoencoderKL'>,
  pictures: readonly Tensor[],
  {
    count,
    generator,
    signal,
  }: { count: number; generator: RandomSource | RandomSource[]; signal?: AbortSignal | undefined },
): Promise<Tensor> {
  const encoded: Tensor[] = []
  for (const sample of pictures) encoded.push((await vae.run('encode', { sample }, { signal })).moments)
  const drawn = Array.isArray(generator) && generator.length > 1 ? count : 1
  const [means, logarithms] = splitChannels(repeatRows(concatRows(encoded), drawn), latentChannels(vae))
  const noise = randnTensor(means.shape, generator)
  const data = means.data.map((mean, i) => {
    const logarithm = Math.min(Math.max(logarithms.data[i]!, -30), 20)
    return mean + Math.fround(Math.exp(Math.fround(0.5 * logarithm))) * noise.data[i]!
  })
  return repeatRows(new Tensor(data, means.shape), count / drawn)
}

function sameBytes(a: Float32Array, b: Float32Array): boolean {
  const bytes = (array: Float32Array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength)
  return bytes(a).equals(bytes(b))
}

/** Latents to the wanted form of output. */
export async function decodeImages(
  movq: Autoencoder,
  latents: Tensor,
  outputType: OutputType,
  signal?: AbortSignal,
): Promise<RawImage[] | Tensor> {
  if (outputType === 'latent') return latents
  const decoded: Tensor[] = []
  // One picture at a time: MoVQ's activations are by far the largest of the pipeline.
  for (const row of rowsOf(latents))
    decoded.push((await (movq as Movq).run('decode', { latents: row }, { signal })).sample)
  const float = postprocess(concatRows(decoded))
  return outputType === 'float' ? float : toRawImages(float)
}

// Cheap pictures of latents: a linear map from a latent cell to one RGB pixel, fitted to the checkpoint at hand.
//
// The fit is least squares over the cells of a colour chart: MoVQ encodes the chart and decodes it again, and the map
// goes from its latents to the decoded colours, averaged over each cell. That costs one pass over 128 x 128 pixels, once
// per checkpoint; a preview then costs a few multiplications per cell. Measured on pictures with the demo model's MoVQ
// (265 steps into its training): the map explains 97 % of the decoded colours' variance, the best linear one 98 %; fitted
// to random latents instead it is 86 %, and a MoVQ decode of the latents averaged 2 x 2, far dearer, comes to 88 %.
import type { RawImage } from '../../images/image.js'
import { postprocess, toRawImages } from '../../images/processing.js'
import { solve } from '../../math.js'
import { Tensor } from '../../tensor.js'
import { type Autoencoder, encodeToMeans, type Movq, movqScaleFactor } from './autoencoder.js'

/** Per colour: one coefficient per latent channel, and a constant. */
type Projection = readonly (readonly number[])[]

const projections = new WeakMap<Autoencoder, Promise<Projection>>()

/** What makes pictures of latents [n, c, h, w], with one pixel per cell; the map is fitted at the first call. */
export async function previewer(movq: Autoencoder): Promise<(latents: Tensor) => RawImage[]> {
  let fitted = projections.get(movq)
  if (!fitted) {
    // Calls that come meanwhile share the fit, so no single one may abort it.
    fitted = fit(movq)
    projections.set(movq, fitted)
    fitted.catch(() => projections.delete(movq))
  }
  const projection = await fitted
  return (latents) => toRawImages(postprocess(project(latents, projection)))
}

function project(latents: Tensor, projection: Projection): Tensor {
  const [rows, channels, height, width] = latents.shape as [number, number, number, number]
  const pixels = height * width
  const out = new Float32Array(rows * projection.length * pixels)
  let position = 0
  for (let row = 0; row < rows; row++)
    for (const coefficients of projection)
      for (let i = 0; i < pixels; i++) {
        let sum = coefficients[channels]!
        for (let channel = 0; channel < channels; channel++)
          sum += coefficients[channel]! * latents.data[(row * channels + channel) * pixels + i]!
        out[position++] = sum
      }
  return new Tensor(out, [rows, projection.length, height, width])
}

async function fit(autoencoder: Autoencoder): Promise<Projection> {
  const latents = await encodeToMeans(autoencoder, colourChart())
  const decoded = (await (autoencoder as Movq).run('decode', { latents })).sample
  const [, channels, height, width] = latents.shape as [number, number, number, number]
  const pixels = height * width
  const cells = Array.from({ length: pixels }, (_, i) => [
    ...Array.from({ length: channels }, (_, channel) => latents.data[channel * pixels + i]!),
    1,
  ])
  return colourMeans(decoded, movqScaleFactor(autoencoder)).map((means) => leastSquares(cells, means))
}

/** 64 patches of 16 x 16 pixels: four levels of each colour in every combination, as [1, 3, 128, 128] in [-1, 1]. */
function colourChart(): Tensor {
  const side = 128
  const data = new Float32Array(3 * side * side)
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++) {
      // 29 is odd, so that every patch gets another colour, and far enough from 1 that neighbours differ in all three.
      const patch = ((y >> 4) * 8 + (x >> 4)) * 29
      for (let colour = 0; colour < 3; colour++)
        data[(colour * side + y) * side + x] = (((patch >> (2 * colour)) & 3) * 2) / 3 - 1
    }
  return new Tensor(data, [1, 3, side, side])
}

/** Averages over cells of `factor` x `factor` pixels, one array per colour of [1, colours, h, w]. */
function colourMeans({ data, shape }: Tensor, factor: number): Float64Array[] {
  const [, colours, height, width] = shape as [number, number, number, number]
  const cellsAcross = width / factor
  return Array.from({ length: colours }, (_, colour) => {
    const means = new Float64Array((height / factor) * cellsAcross)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        const cell = Math.floor(y / factor) * cellsAcross + Math.floor(x / factor)
        means[cell] = means[cell]! + data[(colour * height + y) * width + x]! / factor ** 2
      }
    return means
  })
}

/** The coefficients that map rows of `inputs` closest to `targets`, by the normal equations. */
function leastSquares(inputs: readonly number[][], targets: Float64Array): number[] {
  const size = inputs[0]!.length
  const sumOver = (value: (cell: number[], n: number) => number) =>
    inputs.reduce((sum, cell, n) => sum + value(cell, n), 0)
  const matrix = Array.from({ length: size }, (_, i) => {
    const products = Array.from({ length: size }, (_, j) => sumOver((cell) => cell[i]! * cell[j]!))
    // A little ridge keeps the equations solvable where a channel is constant.
    products[i] = products[i]! * (1 + 1e-6) + 1e-6
    return products
  })
  const right = Array.from({ length: size }, (_, i) => sumOver((cell, n) => cell[i]! * targets[n]!))
  return solve(matrix, right)
}

import { Tensor } from '../../dist/tensor.js'

/**
 * A random source that plays recorded draws in order and checks that the same shapes are asked for.
 *
 * @param {{ data: Float32Array, shape: readonly number[] }[]} draws
 * @returns `randn`, and `remaining`, the number of draws not asked for yet
 */
export function replay(draws) {
  let next = 0
  return {
    get remaining() {
      return draws.length - next
    },
    randn(shape) {
      const draw = draws[next]
      if (draw === undefined) throw new Error(`draw ${next} of shape [${shape}] was asked for, ${next} are recorded`)
      if (String(draw.shape) !== String(shape))
        throw new Error(`draw ${next} was asked for with shape [${shape}], recorded is [${draw.shape}]`)
      next++
      return new Tensor(draw.data.slice(), draw.shape)
    },
  }
}

import { invalid, KandinskyError } from './errors.js'

/** Anything with float32 data and a shape in the reference's order (NCHW). */
export class Tensor {
  readonly data: Float32Array
  readonly shape: readonly number[]

  /**
   * @param data row-major values
   * @param shape outermost dimension first; its product must equal `data.length`
   * @throws KandinskyError `SHAPE_MISMATCH` if it does not
   */
  constructor(data: Float32Array, shape: readonly number[]) {
    if (!(data instanceof Float32Array)) throw invalid('data', 'a Float32Array', data)
    if (!Array.isArray(shape) || !shape.every((n) => Number.isSafeInteger(n) && n >= 0))
      throw invalid('shape', 'an array of non-negative integers', shape)
    const count = elementCount(shape)
    if (count !== data.length)
      throw new KandinskyError(
        'SHAPE_MISMATCH',
        `Expected ${count} values for shape [${shape.join(', ')}] but received ${data.length}`,
      )
    this.data = data
    this.shape = Object.freeze([...shape])
  }
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1)
}

import { invalid, KandinskyError } from './errors.js'
import { isFloat32Array, recognise } from './realms.js'

/** A tensor as JSON holds it. */
export interface TensorJson {
  shape: readonly number[]
  /** little-endian float32 values in base64, so that nothing is rounded */
  data: string
}

/** Anything with float32 data and a shape in the reference's order (NCHW). */
export class Tensor {
  readonly data: Float32Array
  readonly shape: readonly number[]

  static {
    recognise(Tensor, 'Tensor')
  }

  /**
   * @param data row-major values
   * @param shape outermost dimension first; its product must equal `data.length`
   * @throws KandinskyError `SHAPE_MISMATCH` if it does not
   */
  constructor(data: Float32Array, shape: readonly number[]) {
    if (!isFloat32Array(data)) throw invalid('data', 'a Float32Array', data)
    const count = elementCount(shape)
    if (count !== data.length)
      throw new KandinskyError(
        'SHAPE_MISMATCH',
        `Expected ${count} values for shape [${shape.join(', ')}] but received ${data.length}`,
      )
    this.data = data
    this.shape = Object.freeze([...shape])
  }

  /**
   * A tensor from its JSON, or from what `structuredClone`, a worker message or a database makes of one; the values are
   * copied.
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`
   */
  static from(value: TensorJson | { shape: readonly number[]; data: Float32Array | readonly number[] }): Tensor {
    if (value === null || typeof value !== 'object') throw invalid('value', 'an object with data and shape', value)
    const { data, shape } = value
    if (typeof data === 'string') return new Tensor(fromBase64(data), shape)
    if (!isFloat32Array(data) && !(Array.isArray(data) && data.every((item) => typeof item === 'number')))
      throw invalid('data', 'base64 text, a Float32Array or an array of numbers', data)
    return new Tensor(Float32Array.from(data), shape)
  }

  /** One value, of shape [1]. */
  static scalar(value: number): Tensor {
    return new Tensor(new Float32Array([value]), [1])
  }

  /** What `JSON.stringify` writes; `Tensor.from(JSON.parse(text))` reads it. */
  toJSON(): TensorJson {
    const bytes = new DataView(new ArrayBuffer(this.data.length * 4))
    for (const [i, value] of this.data.entries()) bytes.setFloat32(i * 4, value, true)
    return { shape: this.shape, data: Buffer.from(bytes.buffer).toString('base64') }
  }
}

function fromBase64(text: string): Float32Array {
  const bytes = Buffer.from(text, 'base64')
  if (bytes.length % 4 !== 0) throw invalid('data', 'base64 text of float32 values', text)
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(i * 4))
}

/** @throws KandinskyError `INVALID_ARGUMENT` if `shape` is no array of non-negative integers */
export function elementCount(shape: readonly number[]): number {
  if (!Array.isArray(shape) || !shape.every((n) => Number.isSafeInteger(n) && n >= 0))
    throw invalid('shape', 'an array of non-negative integers', shape)
  return shape.reduce((product, n) => product * n, 1)
}

/** Joins tensors along the first dimension; the others must agree. */
export function concatRows(tensors: readonly Tensor[]): Tensor {
  const first = tensors[0]
  if (!first) throw new KandinskyError('INTERNAL', 'concatRows of nothing')
  const rest = first.shape.slice(1)
  for (const { shape } of tensors)
    if (shape.length !== first.shape.length || shape.slice(1).some((n, i) => n !== rest[i]))
      throw new KandinskyError(
        'SHAPE_MISMATCH',
        `Expected tensors of shape [n, ${rest.join(', ')}] but received [${shape.join(', ')}]`,
      )
  const data = new Float32Array(tensors.reduce((length, tensor) => length + tensor.data.length, 0))
  let offset = 0
  for (const tensor of tensors) {
    data.set(tensor.data, offset)
    offset += tensor.data.length
  }
  return new Tensor(data, [tensors.reduce((rows, { shape }) => rows + shape[0]!, 0), ...rest])
}

/** Rows `start` (inclusive) to `end` (exclusive) of the first dimension, copied. */
export function sliceRows(tensor: Tensor, start: number, end: number): Tensor {
  const [rows = 0, ...rest] = tensor.shape
  const size = rows === 0 ? 0 : tensor.data.length / rows
  return new Tensor(tensor.data.slice(start * size, end * size), [end - start, ...rest])
}

/** Every row as a tensor [1, ...] of its own. */
export function rowsOf(tensor: Tensor): Tensor[] {
  return Array.from({ length: tensor.shape[0] ?? 0 }, (_, i) => sliceRows(tensor, i, i + 1))
}

/** Each row `times` times in place (torch's repeat_interleave on dimension 0): a b -> a a b b. */
export function repeatRows(tensor: Tensor, times: number): Tensor {
  if (times === 1) return tensor
  return concatRows(rowsOf(tensor).flatMap((row) => Array<Tensor>(times).fill(row)))
}

/** The whole batch `times` times (torch's repeat on dimension 0): a b -> a b a b. */
export function tileRows(tensor: Tensor, times: number): Tensor {
  return times === 1 ? tensor : concatRows(Array<Tensor>(times).fill(tensor))
}

/** The first `channels` channels of every row and the remaining ones, as two tensors [n, c, ...]. */
export function splitChannels(tensor: Tensor, channels: number): [Tensor, Tensor] {
  const [rows, all, ...rest] = tensor.shape as [number, number, ...number[]]
  const pixels = elementCount(rest)
  const head = new Float32Array(rows * channels * pixels)
  const tail = new Float32Array(rows * (all - channels) * pixels)
  for (let row = 0; row < rows; row++) {
    const start = row * all * pixels
    head.set(tensor.data.subarray(start, start + channels * pixels), row * channels * pixels)
    tail.set(tensor.data.subarray(start + channels * pixels, start + all * pixels), row * (all - channels) * pixels)
  }
  return [new Tensor(head, [rows, channels, ...rest]), new Tensor(tail, [rows, all - channels, ...rest])]
}

/** Joins tensors [n, c, ...] along the channels. */
export function concatChannels(tensors: readonly Tensor[]): Tensor {
  const [rows, , ...rest] = tensors[0]!.shape as [number, number, ...number[]]
  const joined = Array.from({ length: rows }, (_, row) =>
    concatRows(
      tensors.map((tensor) => {
        const one = sliceRows(tensor, row, row + 1)
        return new Tensor(one.data, one.shape.slice(1))
      }),
    ),
  )
  return new Tensor(concatRows(joined).data, [rows, joined[0]!.shape[0]!, ...rest])
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i])
}

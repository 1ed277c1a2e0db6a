// Which type each weight gets when a checkpoint is loaded or converted with quantized weights.
//
// The large matrices become what was asked for. What needs more, the network says where it asks for the weight
// (native/models/): few in bytes, large in effect.
import { invalid, KandinskyError } from '../errors.js'
import type { Precision, SourceType, WeightType } from '../native.js'

/** Every type that `weights` and rules take, from exact to small. */
export const WEIGHT_TYPES = ['f32', 'f16', 'bf16', 'q8_0', 'q6_K', 'q5_K', 'q5_0', 'q4_K', 'q4_0'] as const

/** A user's exception for matrices: the first whose pattern is found in "<component>.<tensor name>" decides. */
export interface Rule {
  pattern: RegExp
  type: WeightType
}

/** Hears of a matrix that gets another type than was asked for, because its rows are no whole number of blocks. */
export type FallbackListener = (wanted: WeightType, given: WeightType) => void

/** What a type falls to where a row is no whole number of its blocks: K-quants take 256 values, legacy ones 32. */
const FALLBACK: Partial<Record<WeightType, WeightType>> = {
  q6_K: 'q8_0',
  q5_K: 'q5_0',
  q4_K: 'q4_0',
  q8_0: 'f16',
  q5_0: 'f16',
  q4_0: 'f16',
}

/**
 * The type that a stored tensor shall have in memory or in our GGUF.
 *
 * @param component the network's name in the checkpoint, e.g. "unet"
 * @param tensor name without the component's prefix, shape and type as stored
 * @param precision what the network needs of it
 * @param weights the wanted type of large matrices; undefined keeps what the file has
 * @param rules exceptions that go before all others; vectors stay f32 nonetheless
 * @throws KandinskyError `INVALID_ARGUMENT` if a rule's type does not fit the tensor's rows
 */
export function targetType(
  component: string,
  tensor: { name: string; shape: readonly number[]; type: SourceType; transposed?: boolean },
  precision: Precision,
  weights?: WeightType,
  rules: readonly Rule[] = [],
  onFallback?: FallbackListener,
): WeightType {
  const { name, shape, type } = tensor
  if (isVector(shape)) return 'f32'
  const row = matrixShape(shape, tensor.transposed).at(-1) ?? 1
  const rule = rules.find(({ pattern }) => `${component}.${name}`.search(pattern) >= 0)
  if (rule) {
    if (row % blockLength(rule.type) !== 0)
      throw new KandinskyError(
        'INVALID_ARGUMENT',
        `Expected a type whose blocks fit rows of ${row} values for ${component}.${name} but rule ` +
          `${rule.pattern.source}=${rule.type} needs a multiple of ${blockLength(rule.type)}`,
      )
    return rule.type
  }
  if (precision === 'exact') return 'f32'
  if (weights === undefined) return isWeightType(type) ? type : 'f32'
  if (isFloat(weights)) return weights
  if (precision === 'half') return 'f16'
  const given = fitToRow(precision === 'q8_0' ? 'q8_0' : weights, row)
  if (row % blockLength(weights) !== 0) onFallback?.(weights, given)
  return given
}

/** Norms, biases and the like: widening them is exact, and element-wise kernels want float32. */
export function isVector(shape: readonly number[]): boolean {
  return shape.filter((n) => n !== 1).length < 2
}

/**
 * The shape that a weight has in our files: convolution kernels [out, in, kh, kw] are matrices [out, kh*kw*in], those of
 * transposed convolutions, [in, out, kh, kw], are [kh*kw*out, in]. Mirrors native/core/types.h. Kernels over frames,
 * [out, in, frames, kh, kw], are matrices as they lie: their patches do not overlap.
 */
export function matrixShape(shape: readonly number[], transposed = false): readonly number[] {
  if (shape.length === 5) return [shape[0]!, shape.slice(1).reduce((product, n) => product * n, 1)]
  if (shape.length !== 4) return shape
  const [first, second, height, width] = shape as [number, number, number, number]
  const inner = second * height * width
  return transposed ? [inner, first] : [first, inner]
}

function fitToRow(type: WeightType, row: number): WeightType {
  return row % blockLength(type) === 0 ? type : fitToRow(FALLBACK[type]!, row)
}

function blockLength(type: WeightType): number {
  if (isFloat(type)) return 1
  return type.endsWith('_K') ? 256 : 32
}

/** Bytes of ggml's blocks, as native/core/types.h has them. */
const BLOCK_BYTES: Record<WeightType, number> = {
  ...{ f32: 4, f16: 2, bf16: 2, q8_0: 34, q5_0: 22, q4_0: 18 },
  ...{ q6_K: 210, q5_K: 176, q4_K: 144 },
}

/** What values of a type take, in bytes. */
export function weightBytes(type: WeightType, shape: readonly number[]): number {
  return (shape.reduce((product, n) => product * n, 1) / blockLength(type)) * BLOCK_BYTES[type]
}

export function isFloat(type: WeightType): boolean {
  return type === 'f32' || type === 'f16' || type === 'bf16'
}

function isWeightType(type: unknown): type is WeightType {
  return (WEIGHT_TYPES as readonly unknown[]).includes(type)
}

/** Checks an option that names a weight type; undefined passes. */
export function checkWeightType(value: unknown, what = 'weights'): WeightType | undefined {
  if (value !== undefined && !isWeightType(value)) throw invalid(what, `one of ${WEIGHT_TYPES.join(', ')}`, value)
  return value
}

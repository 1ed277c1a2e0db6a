import type { SourceType, TensorSource } from '../../native.js'

/** A tensor as it lies in a file: everything of a TensorSource but what it shall become. */
export type StoredTensor = Omit<TensorSource, 'target' | 'random'>

/** Bytes per element of the types that safetensors and PyTorch files hold. */
export const ELEMENT_BYTES = {
  f64: 8,
  f32: 4,
  f16: 2,
  bf16: 2,
  i64: 8,
  i32: 4,
  i16: 2,
  i8: 1,
  u8: 1,
  bool: 1,
  f8_e4m3: 1,
  f8_e5m2: 1,
} as const satisfies Partial<Record<SourceType, number>>

export type ElementType = keyof typeof ELEMENT_BYTES

/** Number of elements, or undefined for a shape whose product is not an exact number. */
export function countElements(shape: readonly number[]): number | undefined {
  const count = shape.reduce((product, n) => product * n, 1)
  return shape.every((n) => Number.isSafeInteger(n) && n >= 0) && Number.isSafeInteger(count) ? count : undefined
}

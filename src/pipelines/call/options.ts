// Checks of the options that pipelines share. Everything is checked before anything is computed.
import { invalid, KandinskyError, suggestion } from '../../errors.js'
import { type RandomSource, seededGenerators } from '../../random.js'
import { Tensor } from '../../tensor.js'

/**
 * The given options, where a name that `Allowed` does not have is a type error. Plain parameters of a generic type let
 * such names pass, and an option that is ignored costs its user a picture.
 */
export type Exact<Allowed, Given extends Allowed> = Given & Record<Exclude<keyof Given, KeysOf<Allowed>>, never>
type KeysOf<T> = T extends unknown ? keyof T : never

/**
 * Refuses misspelled options by name: an option that is silently ignored costs its user an image. What is undefined is
 * not given.
 */
export function expectOptions(options: unknown, allowed: readonly string[]): void {
  if (options === null || typeof options !== 'object') throw invalid('options', 'an object', options)
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || allowed.includes(name)) continue
    throw new KandinskyError('INVALID_ARGUMENT', `Unknown option ${name}${suggestion(name, allowed)}`)
  }
}

export function expectInteger(name: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max)
    throw invalid(name, `an integer from ${min} to ${max}`, value)
  return value
}

export function expectNumber(name: string, value: unknown, min = -Infinity, max = Infinity): number {
  if (typeof value !== 'number' || !Number.isFinite(Math.fround(value)) || value < min || value > max) {
    const range = min > -Infinity || max < Infinity ? ` from ${min} to ${max}` : ''
    throw invalid(name, `a finite number${range}`, value)
  }
  return value
}

export function expectOneOf<T extends string>(name: string, value: unknown, allowed: readonly T[]): T {
  if (!allowed.includes(value as T))
    throw invalid(name, `one of ${allowed.map((item) => `'${item}'`).join(', ')}`, value)
  return value as T
}

export function expectBoolean(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw invalid(name, 'true or false', value)
  return value
}

/** A string or a non-empty array of strings, as an array. */
export function expectPrompts(name: string, value: unknown): string[] {
  const prompts = typeof value === 'string' ? [value] : value
  if (!Array.isArray(prompts) || prompts.length === 0 || !prompts.every((prompt) => typeof prompt === 'string'))
    throw invalid(name, 'a string or a non-empty array of strings', value)
  return prompts
}

/** A tensor, or an array of tensors to be joined, whose dimensions match `shape` (null: any size from 1). */
export function expectTensor(name: string, value: unknown, shape: readonly (number | null)[]): Tensor {
  const wanted = `a Tensor of shape [${shape.map((n) => n ?? 'n').join(', ')}]`
  if (!(value instanceof Tensor)) throw invalid(name, wanted, value)
  const fits =
    value.shape.length === shape.length &&
    shape.every((n, i) => value.shape[i] === n || (n === null && value.shape[i]! > 0))
  if (!fits)
    throw new KandinskyError(
      'SHAPE_MISMATCH',
      `Expected ${wanted} for ${name} but received [${value.shape.join(', ')}]`,
    )
  if (!value.data.every(Number.isFinite))
    throw new KandinskyError('INVALID_ARGUMENT', `Expected finite values in ${name} but found NaN or infinity`)
  return value
}

/**
 * One for all, or one each.
 * @param each what `wanted` counts, e.g. `embedding`
 * @throws KandinskyError `SHAPE_MISMATCH` for any other number
 */
export function expectOneOrEach(name: string, given: number, each: string, wanted: number): void {
  if (given === 1 || given === wanted) return
  throw new KandinskyError(
    'SHAPE_MISMATCH',
    `Expected one ${name} or one per ${each} (${wanted}) but received ${given}`,
  )
}

/** Where the noise of a call comes from. */
export interface NoiseOptions {
  /**
   * Picture i is made from noise of its own, that of `seed + i`, and can be made again without the others: what its recipe
   * says. Default: a random one. An integer from -2^63 to 2^64 - 1, beyond 2^53 as a bigint
   */
  seed?: number | bigint | undefined
  /**
   * Instead of a seed, as in the reference: one source of noise, whose one stream the pictures of a call share, or one per
   * picture
   */
  generator?: RandomSource | RandomSource[] | undefined
}

/**
 * @param pictures of the call
 * @param rows of the batch that they are made from: a multiple of the pictures. Of generators for each picture, each draws
 *   for all rows of its own
 * @throws KandinskyError `INVALID_ARGUMENT`
 */
export function expectNoise(
  { generator: value, seed }: NoiseOptions,
  pictures: number,
  rows = pictures,
): RandomSource | RandomSource[] {
  if (value === undefined) return repeatList(seededGenerators(seed, pictures), rows / pictures)
  if (seed !== undefined) throw invalid('seed', 'nothing beside a generator', seed)
  const sources = Array.isArray(value) ? value : [value]
  if (!sources.every((source) => typeof source?.randn === 'function'))
    throw invalid('generator', 'an object with a randn method, or an array of them', value)
  if (sources.length === pictures && Array.isArray(value)) return repeatList(value, rows / pictures)
  if (sources.length !== 1 && sources.length !== rows)
    throw invalid('generator', `one generator or an array of ${rows}, one per row`, value)
  return value
}

function repeatList<T>(list: readonly T[], times: number): T[] {
  return Array.from({ length: times }, () => list).flat()
}

/** Largest side in pixels that a size option may ask for; beyond it even the latents are absurd. */
export const maxSide = 16384
/** Largest number of rows (prompts times images per prompt) of one call. */
export const maxImages = 1024

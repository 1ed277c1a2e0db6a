// Reads a diffusers scheduler_config.json: which keys a class knows, their defaults, which values are valid.
import { invalid, KandinskyError, suggestion } from '../errors.js'

export interface Field<T> {
  readonly default: T
  /** completes "Expected … for key" */
  readonly expected: string
  accepts(value: unknown): boolean
}

export type Fields = Readonly<Record<string, Field<unknown>>>

/** The values of a config, under the keys of the JSON file. */
export type ConfigOf<F extends Fields> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never }

export function flag(value: boolean): Field<boolean> {
  return { default: value, expected: 'true or false', accepts: (v) => typeof v === 'boolean' }
}

export function integer(value: number, minimum: number, maximum = Number.MAX_SAFE_INTEGER): Field<number> {
  const accepts = (v: unknown) => Number.isSafeInteger(v) && (v as number) >= minimum && (v as number) <= maximum
  const range = maximum === Number.MAX_SAFE_INTEGER ? `of at least ${minimum}` : `from ${minimum} to ${maximum}`
  return { default: value, expected: `an integer ${range}`, accepts }
}

/** A finite number greater than `above` and at most `maximum`. */
export function number(value: number, above: number, maximum = Number.MAX_VALUE): Field<number> {
  const accepts = (v: unknown) => typeof v === 'number' && v > above && v <= maximum
  const limit = maximum === Number.MAX_VALUE ? '' : ` and at most ${maximum}`
  return { default: value, expected: `a finite number above ${above}${limit}`, accepts }
}

/** A finite number greater than `above`, or null, the default. */
export function optionalNumber(above: number): Field<number | null> {
  const accepts = (v: unknown) => v === null || (Number.isFinite(v) && (v as number) > above)
  return { default: null, expected: `null or a finite number above ${above}`, accepts }
}

/** A lower limit, by default none; Python writes that as -Infinity, which JSON does not know. */
export function lowerLimit(): Field<number> {
  const accepts = (v: unknown) => typeof v === 'number' && v < Number.POSITIVE_INFINITY
  return { default: Number.NEGATIVE_INFINITY, expected: 'a finite number or -Infinity', accepts }
}

/** An array of step indices, by default empty. */
export function indices(): Field<readonly number[]> {
  const accepts = (v: unknown) => Array.isArray(v) && v.every((i) => Number.isSafeInteger(i) && i >= 0)
  return { default: [], expected: 'an array of integers of at least 0', accepts }
}

/** A key of the reference's class of which only this value is supported. */
export function only<const T>(value: T): Field<T> {
  return { default: value, expected: JSON.stringify(value), accepts: (v) => v === value }
}

export function oneOf<const T extends string>(value: NoInfer<T>, values: readonly T[]): Field<T> {
  return { default: value, expected: values.join(', '), accepts: (v) => values.includes(v as T) }
}

/** `trained_betas`: one beta per training timestep, in place of a schedule. */
export function betaArray(): Field<readonly number[] | null> {
  const accepts = (v: unknown) =>
    v === null || (Array.isArray(v) && v.every((beta) => typeof beta === 'number' && beta > 0 && beta <= 1))
  return { default: null, expected: 'null or an array of numbers above 0 and at most 1', accepts }
}

/**
 * Under which a config carries what it was made from, without defaults but with the keys that its class does not know.
 * A symbol goes along where a config is spread into a new object, and nobody sees it in the keys.
 */
const ORIGIN = Symbol('origin')

interface Origin {
  readonly given: Readonly<Record<string, unknown>>
  /** with defaults, to tell what was changed since */
  readonly complete: Readonly<Record<string, unknown>>
}

/** What was given of a config: all of it, or where it came from a scheduler what that was given and what differs now. */
function givenOf(config: object): Record<string, unknown> {
  const values = Object.entries(config).filter(([, value]) => value !== null)
  const origin = (config as { [ORIGIN]?: Origin })[ORIGIN]
  if (!origin) return Object.fromEntries(values)
  const { given, complete } = origin
  const kept = Object.entries(given).filter(([key]) => !Object.hasOwn(complete, key) || Object.hasOwn(config, key))
  const changed = values.filter(([key, value]) => !Object.hasOwn(complete, key) || complete[key] !== value)
  return Object.fromEntries([...kept, ...changed])
}

/**
 * Completes `config` with the defaults of `fields`; null stands for the default, as an absent key does.
 *
 * @throws KandinskyError `INVALID_ARGUMENT` naming key and value
 */
export function readConfig<F extends Fields>(className: string, fields: F, config: object): ConfigOf<F> {
  const values: Record<string, unknown> = {}
  for (const [key, field] of Object.entries(fields)) {
    const value = (config as Record<string, unknown>)[key] ?? field.default
    if (!field.accepts(value)) throw invalid(`${key} of ${className}`, field.expected, value)
    values[key] = value
  }
  for (const key of Object.keys(config)) expectKey(className, fields, key)
  const complete = { ...values }
  return Object.freeze({ ...values, [ORIGIN]: { given: givenOf(config), complete } }) as unknown as ConfigOf<F>
}

function expectKey(className: string, fields: Fields, key: string): void {
  if (!Object.hasOwn(fields, key))
    throw new KandinskyError(
      'INVALID_ARGUMENT',
      `Expected the keys of ${className} but received ${JSON.stringify(key)}${suggestion(key, Object.keys(fields))}`,
    )
}

/**
 * The part of a config that a class knows, as diffusers' `from_config` takes it. A config may come from a file, with
 * bookkeeping (`_class_name`, `_diffusers_version`), or from a scheduler of another class. From that come only the values
 * that it was given itself, or its predecessors, if it was made from another scheduler in turn: where a checkpoint says
 * nothing of `timestep_spacing`, DDPM takes `leading`, but Euler made from it `linspace`.
 *
 * @param scheduler.foreign values that only other classes know, under the keys they share with this one; the default
 *   stands in
 * @param overrides values of the class itself, which must know them
 */
export function knownPart(
  { name, fields, foreign }: { name: string; fields: Fields; foreign: Readonly<Record<string, readonly string[]>> },
  config: object,
  overrides: object,
): object {
  for (const [what, value] of Object.entries({ 'scheduler config': config, overrides }))
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw invalid(what, 'an object with the keys of scheduler_config.json', value)
  for (const key of Object.keys(overrides)) expectKey(name, fields, key)
  const given = { ...givenOf(config), ...overrides }
  const applies = ([key, value]: [string, unknown]) =>
    Object.hasOwn(fields, key) && !foreign[key]?.includes(value as string)
  const part = Object.fromEntries(Object.entries(given).filter(applies))
  // What another class made from the result shall know: nothing of it is a default.
  return { ...part, [ORIGIN]: { given, complete: part } }
}

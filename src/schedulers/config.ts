// Reads a diffusers scheduler_config.json: which keys a class knows, their defaults, which values are valid.
import { invalid, KandinskyError } from '../errors.js'

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

/** What a config was made from: no defaults, but also the keys that its class does not know. */
const sources = new WeakMap<object, Readonly<Record<string, unknown>>>()

function sourceOf(config: object): Readonly<Record<string, unknown>> {
  return sources.get(config) ?? Object.fromEntries(Object.entries(config).filter(([, value]) => value !== null))
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
  for (const key of Object.keys(config))
    if (!Object.hasOwn(fields, key))
      throw new KandinskyError(
        'INVALID_ARGUMENT',
        `Expected the keys of ${className} to be among ${Object.keys(fields).join(', ')} but received ${JSON.stringify(key)}`,
      )
  sources.set(values, sourceOf(config))
  return Object.freeze(values) as ConfigOf<F>
}

/**
 * The part of a config that a class knows, as diffusers' `from_config` takes it. A config may come from a file, with
 * bookkeeping (`_class_name`, `_diffusers_version`), or from a scheduler of another class. From that come only the values
 * that it was given itself, or its predecessors, if it was made from another scheduler in turn: where a checkpoint says
 * nothing of `timestep_spacing`, DDPM takes `leading`, but Euler made from it `linspace`.
 *
 * @param foreign values that only other classes know, under the keys they share with this one; the default stands in
 */
export function knownPart(
  fields: Fields,
  config: object,
  foreign: Readonly<Record<string, readonly string[]>> = {},
): object {
  if (typeof config !== 'object' || config === null || Array.isArray(config))
    throw invalid('scheduler config', 'an object with the keys of scheduler_config.json', config)
  const source = sourceOf(config)
  const applies = ([key, value]: [string, unknown]) =>
    Object.hasOwn(fields, key) && !foreign[key]?.includes(value as string)
  const part = Object.fromEntries(Object.entries(source).filter(applies))
  sources.set(part, source)
  return part
}

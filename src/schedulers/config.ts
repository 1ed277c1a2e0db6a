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

export function integer(value: number, minimum: number): Field<number> {
  const accepts = (v: unknown) => Number.isSafeInteger(v) && (v as number) >= minimum
  return { default: value, expected: `an integer of at least ${minimum}`, accepts }
}

/** A finite number greater than `above` and at most `maximum`. */
export function number(value: number, above: number, maximum = Number.MAX_VALUE): Field<number> {
  const accepts = (v: unknown) => typeof v === 'number' && v > above && v <= maximum
  const limit = maximum === Number.MAX_VALUE ? '' : ` and at most ${maximum}`
  return { default: value, expected: `a finite number above ${above}${limit}`, accepts }
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
  return Object.freeze(values) as ConfigOf<F>
}

/**
 * The part of a stored config that a class knows, as diffusers' `from_config` takes it. A config may come from another
 * scheduler class and holds bookkeeping (`_class_name`, `_diffusers_version`).
 */
export function knownPart(fields: Fields, config: object): object {
  if (typeof config !== 'object' || config === null || Array.isArray(config))
    throw invalid('scheduler config', 'an object with the keys of scheduler_config.json', config)
  return Object.fromEntries(Object.entries(config).filter(([key]) => Object.hasOwn(fields, key)))
}

// What the commands share of their flags: the table that --help and shell completion are made of, and its values.
import type { WeightType } from '../native.js'
import { WEIGHT_TYPES } from '../networks/policy.js'
import { table } from './terminal.js'

/** What completes a word: names of files, those and names of models, names of pulled models, or one of these words. */
export type Completion = 'file' | 'model' | 'pulled' | readonly string[]

export interface CliOption {
  type: 'string' | 'boolean'
  short?: string
  multiple?: boolean
  /** shown in --help after the name, e.g. `N` */
  value?: string
  description: string
  /** what the API calls it, where that differs; its messages are shown with the flag instead */
  api?: string
  completion?: Completion
}

export interface Invocation {
  values: Record<string, string | boolean | (string | boolean)[] | undefined>
  positionals: string[]
  signal: AbortSignal
  /** print JSON lines instead of text */
  json: boolean
  /** print results only, no progress and no notes */
  quiet: boolean
}

export interface Command {
  summary: string
  usage: string
  options: Record<string, CliOption>
  /** of what stands without a flag */
  completion?: Completion
  run(invocation: Invocation): Promise<void>
}

/** Flags that mean the same with several commands. */
export const shared = {
  model: {
    type: 'string',
    short: 'm',
    value: 'SOURCE',
    completion: 'model',
    description: 'the model, as it may also stand without a flag: file, folder, name of a pulled model or hub id',
  },
  type: {
    type: 'string',
    api: 'weights',
    value: 'TYPE',
    completion: WEIGHT_TYPES,
    description: `type of the large matrices: ${WEIGHT_TYPES.join(', ')} (default: as stored)`,
  },
  variant: { type: 'string', value: 'NAME', description: 'weight files of a folder to read, e.g. fp16' },
  threads: { type: 'string', value: 'N', description: 'CPU threads (default: one per core)' },
  json: { type: 'boolean', description: 'print JSON lines' },
  quiet: { type: 'boolean', short: 'q', description: 'print results only: no progress, no notes' },
} as const satisfies Record<string, CliOption>

/** The command line itself is wrong: exit code 2. */
export class UsageError extends Error {}

/** A message of the API that names the flags as they were typed; where values are refused, beside the API's own name. */
export function withFlags(message: string, options: Record<string, CliOption>): string {
  let text = message
  for (const [flag, { api = flag }] of Object.entries(options)) {
    // Names that are also words stand for the option where the API's messages name one.
    const context = /[A-Z]/.test(api) ? '\\b' : '(?<=^|\\b(?:for|of|needs|and|no) )'
    const end = /[A-Z]/.test(api) ? '\\b' : '(?=$|,| (?:but|needs|and|or) )'
    text = text
      .replace(new RegExp(`\\bfor ${api}${end}`, 'g'), `for --${flag}${api === flag ? '' : ` (${api})`}`)
      .replace(new RegExp(`${context}(?<!\\()${api}${end}`, 'g'), `--${flag}`)
  }
  return text
}

/** One row per option; on narrow terminals the descriptions stand below the names. */
export function optionHelp(options: Record<string, CliOption>, columns: number): string {
  const rows = Object.entries(options).map(([name, option]) => {
    const short = option.short ? `-${option.short}, ` : '    '
    return [`  ${short}--${name}${option.value ? ` ${option.value}` : ''}`, option.description] as const
  })
  return table([...rows, ['  -h, --help', 'show this help']], columns)
}

/** What stands without a flag, behind the model that `-m` names where it does. */
export function withModel({ values, positionals }: Pick<Invocation, 'values' | 'positionals'>): string[] {
  const model = textOption(values, 'model')
  return model === undefined ? positionals : [model, ...positionals]
}

/** @throws UsageError for what no flag introduces, where a command takes nothing of the kind */
export function expectNothing(positionals: readonly string[]): void {
  if (positionals.length > 0)
    throw new UsageError(`expected no more than options but received ${positionals.join(' ')}`)
}

/** What a number must be beyond what every network and task allows; anything finite by default. */
export interface NumberRange {
  integer?: boolean
  min?: number
  max?: number
}

/** A numeric option, checked before anything is loaded. What depends on the model is checked by the API. */
export function numberOption(
  values: Invocation['values'],
  name: string,
  { integer = false, min = -Infinity, max = Infinity }: NumberRange = {},
): number | undefined {
  const text = values[name]
  if (text === undefined) return undefined
  const value = typeof text === 'string' && text.trim() !== '' ? Number(text) : Number.NaN
  if (Number.isFinite(value) && value >= min && value <= max && (!integer || Number.isSafeInteger(value))) return value
  const range = max < Infinity ? ` from ${min} to ${max}` : min > -Infinity ? ` of at least ${min}` : ''
  throw new UsageError(
    `expected ${integer ? 'a whole' : 'a'} number${range} for --${name} but received ${String(text)}`,
  )
}

/** A seed of up to 64 bits, which a number does not hold; undefined for -1, which other programs take for "random". */
export function seedOption(values: Invocation['values'], name: string): number | bigint | undefined {
  const text = textOption(values, name)?.trim()
  if (text === undefined || text === '-1') return undefined
  if (!/^[-+]?\d{1,20}$/.test(text) || BigInt(text) < -(2n ** 63n) || BigInt(text) >= 2n ** 64n)
    throw new UsageError(`expected a whole number from -2^63 to 2^64 - 1 for --${name} but received ${text}`)
  return Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text)
}

/** Numbers with commas between them. */
export function numberList(values: Invocation['values'], name: string): number[] | undefined {
  const text = textOption(values, name)
  const numbers = text?.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)))
  if (numbers?.every(Number.isFinite) === false)
    throw new UsageError(`expected numbers with commas between them for --${name} but received ${text}`)
  return numbers
}

export function textOption(values: Invocation['values'], name: string): string | undefined {
  const value = values[name]
  return typeof value === 'string' ? value : undefined
}

/** A weight type in any case, as other programs write them: Q8_0. What is none of them is refused by the API. */
export function weightType(name: string): WeightType {
  return WEIGHT_TYPES.find((type) => type.toLowerCase() === name.toLowerCase()) ?? (name as WeightType)
}

export function weightTypeOption(values: Invocation['values'], name: string): WeightType | undefined {
  const text = textOption(values, name)
  return text === undefined ? undefined : weightType(text)
}

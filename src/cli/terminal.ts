// What the commands share: option parsing, progress on a terminal, JSON lines for machines.

export interface CliOption {
  type: 'string' | 'boolean'
  short?: string
  multiple?: boolean
  /** shown in --help after the name, e.g. `N` */
  value?: string
  description: string
  /** what the API calls it, where that differs; its messages are shown with the flag instead */
  api?: string
}

export interface Invocation {
  values: Record<string, string | boolean | (string | boolean)[] | undefined>
  positionals: string[]
  signal: AbortSignal
  /** print JSON lines instead of text */
  json: boolean
}

export interface Command {
  summary: string
  usage: string
  options: Record<string, CliOption>
  run(invocation: Invocation): Promise<void>
}

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

export function optionHelp(options: Record<string, CliOption>): string {
  const rows = Object.entries(options).map(([name, option]) => {
    const short = option.short ? `-${option.short}, ` : '    '
    return [`  ${short}--${name}${option.value ? ` ${option.value}` : ''}`, option.description] as const
  })
  const width = Math.max(...rows.map(([left]) => left.length))
  return [...rows, ['  -h, --help', 'show this help'] as const]
    .map(([left, right]) => `${left.padEnd(width)}  ${right}`)
    .join('\n')
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

export function textOption(values: Invocation['values'], name: string): string | undefined {
  const value = values[name]
  return typeof value === 'string' ? value : undefined
}

/** A bar that redraws on a terminal; elsewhere a line at every tenth. Silent when `json` asks for events instead. */
export class ProgressBar {
  #tenth = -1
  #label = ''
  #drawn = false

  constructor(private readonly json: boolean) {}

  update(label: string, done: number, total: number, detail = ''): void {
    if (this.json || total <= 0) return
    const fraction = Math.min(1, done / total)
    if (process.stderr.isTTY) {
      if (this.#drawn && label !== this.#label) process.stderr.write('\n')
      process.stderr.write(`\r\x1b[K${progressLine(label, fraction, detail, process.stderr.columns)}`)
      this.#drawn = true
    } else {
      const tenth = Math.floor(fraction * 10)
      if (label !== this.#label || tenth !== this.#tenth) console.error(`${label} ${tenth * 10}% ${detail}`.trimEnd())
      this.#tenth = tenth
    }
    this.#label = label
  }

  /** Leaves the finished bar standing. */
  end(): void {
    if (this.#drawn) process.stderr.write('\n')
    this.#drawn = false
  }

  /** Messages of errors stand on a line of their own. */
  [Symbol.dispose](): void {
    this.end()
  }
}

/** A line that fits a terminal of so many columns: a longer one would wrap, and each update stay on the screen. */
export function progressLine(label: string, fraction: number, detail: string, columns = 80): string {
  const before = `${label.padEnd(10)} `
  const behind = ` ${String(Math.round(fraction * 100)).padStart(3)}% ${detail}`
  const cells = Math.max(0, Math.min(30, columns - 1 - before.length - behind.length))
  const filled = Math.round(fraction * cells)
  return `${before}${'█'.repeat(filled)}${'░'.repeat(cells - filled)}${behind}`.slice(0, Math.max(0, columns - 1))
}

export function formatBytes(bytes: number): string {
  for (const [unit, size] of [
    ['GB', 1e9],
    ['MB', 1e6],
    ['kB', 1e3],
  ] as const)
    if (bytes >= size) return `${(bytes / size).toFixed(bytes >= 10 * size ? 0 : 1)} ${unit}`
  return `${bytes} B`
}

export function formatDuration(ms: number): string {
  const seconds = Math.round(ms / 1000)
  if (seconds < 60) return `${seconds} s`
  return seconds < 3600
    ? `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')} min`
    : `${Math.floor(seconds / 3600)}:${String(Math.floor(seconds / 60) % 60).padStart(2, '0')} h`
}

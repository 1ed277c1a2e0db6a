// What the commands show: progress, notes, sizes and times, in the width of the terminal at hand.

/** A bar that redraws on a terminal; elsewhere a line at every tenth. `--json` asks for events instead, `--quiet` for none. */
export class ProgressBar {
  readonly #silent: boolean
  #tenth = -1
  #label = ''
  #drawn = false

  constructor({ json, quiet }: { json: boolean; quiet: boolean }) {
    this.#silent = json || quiet
  }

  update(label: string, done: number, total: number, detail = ''): void {
    if (this.#silent || total <= 0) return
    const fraction = Math.min(1, done / total)
    if (process.stderr.isTTY) {
      if (this.#drawn && label !== this.#label) process.stderr.write('\n')
      process.stderr.write(`\r\x1b[K${progressLine(label, fraction, detail, process.stderr.columns || undefined)}`)
      this.#drawn = true
    } else {
      const tenth = Math.floor(fraction * 10)
      if (label !== this.#label || tenth !== this.#tenth) console.error(`${label} ${tenth * 10}% ${detail}`.trimEnd())
      this.#tenth = tenth
    }
    this.#label = label
  }

  /** What is worth knowing, on a line of its own. */
  note(text: string): void {
    this.end()
    if (!this.#silent) console.error(fitted(text, process.stderr))
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

/** What is there of how much: `1.2/3.3 GB`. */
export function formatShare(done: number, total: number): string {
  const whole = formatBytes(total)
  const [, unit] = whole.split(' ')
  const size = { GB: 1e9, MB: 1e6, kB: 1e3 }[unit!] ?? 1
  const digits = unit === 'GB' ? 1 : (/\.(\d+)/.exec(whole)?.[1]?.length ?? 0)
  return `${(done / size).toFixed(digits)}/${whole}`
}

/** Tells how long something takes from how long it took so far; '' for the first seconds, which tell little. */
export function remaining(): (done: number, total: number) => string {
  const started = performance.now()
  let first: number | undefined
  return (done, total) => {
    first ??= done // what was there before took no time
    const elapsed = performance.now() - started
    if (elapsed < 2000 || done <= first || done >= total) return ''
    return `, ${formatDuration((elapsed * (total - done)) / (done - first))} left`
  }
}

export function formatDuration(ms: number): string {
  const seconds = Math.round(ms / 1000)
  if (seconds < 60) return `${seconds} s`
  return seconds < 3600
    ? `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')} min`
    : `${Math.floor(seconds / 3600)}:${String(Math.floor(seconds / 60) % 60).padStart(2, '0')} h`
}

/** The width to write for: that of the terminal, within what is pleasant to read. */
export function columnsOf(stream: { columns?: number }): number {
  return Math.max(20, Math.min(stream.columns || 100, 100))
}

/** Two columns, the second wrapped; where little room is left for it, below the first. */
export function table(rows: readonly (readonly [string, string])[], columns: number): string {
  const left = Math.max(...rows.map(([name]) => name.length)) + 2
  if (columns - left >= 22) return rows.map(([name, text]) => name.padEnd(left) + wrap(text, columns, left)).join('\n')
  const indent = 10
  return rows.map(([name, text]) => `${name}\n${' '.repeat(indent)}${wrap(text, columns, indent)}`).join('\n')
}

/** Prints a result for people. */
export function say(text: string): void {
  console.log(fitted(text, process.stdout))
}

/** A text as it is, or on a terminal broken between words: terminals break within them. */
export function fitted(text: string, { isTTY, columns }: { isTTY?: boolean; columns?: number }): string {
  if (!isTTY || !columns) return text
  return text
    .split('\n')
    .map((line) => {
      const [space = ''] = /^ */.exec(line)!
      return space + wrap(line.slice(space.length), columns, space.length)
    })
    .join('\n')
}

/** Breaks a text between words into lines of a width, all but the first indented. A longer word keeps its line. */
export function wrap(text: string, columns: number, indent = 0): string {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const line = lines.at(-1)
    if (line !== undefined && indent + line.length + 1 + word.length < columns)
      lines[lines.length - 1] = `${line} ${word}`
    else lines.push(word)
  }
  return lines.join(`\n${' '.repeat(indent)}`)
}

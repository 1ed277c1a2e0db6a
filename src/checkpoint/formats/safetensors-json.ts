// The JSON subset of safetensors headers: objects, arrays, strings, non-negative integers and null.
//
// JSON.parse does not do here: of duplicate keys it silently keeps the last, "__proto__" sets no key, and integers
// above 2^53 lose digits. Objects become Maps, so that every string is an ordinary key.
import { badFile } from '../../files.js'

type Value = string | number | null | Value[] | Map<string, Value>

/** A header is an object of tensor entries, whose fields are at most lists. */
const MAX_DEPTH = 3
/** Seven per tensor, of which the largest network has 2000. */
const MAX_VALUES = 500_000

/** Parses a header that must be one object. `path` names the file in errors. */
export function parseHeader(bytes: Uint8Array, path: string): Map<string, Value> {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw badFile(path, 'has a header that is not valid UTF-8', { cause })
  }
  return new Parser(text, path).header()
}

class Parser {
  readonly #text: string
  readonly #path: string
  #at = 0
  #values = 0

  constructor(text: string, path: string) {
    this.#text = text
    this.#path = path
  }

  header(): Map<string, Value> {
    const value = this.#object(1)
    this.#skipSpace()
    if (this.#at !== this.#text.length) throw this.#unexpected()
    return value
  }

  #value(depth: number): Value {
    if (++this.#values > MAX_VALUES) throw this.#fail(`holds more than ${MAX_VALUES} values`)
    this.#skipSpace()
    const next = this.#text[this.#at]
    if ((next === '{' || next === '[') && depth > MAX_DEPTH) throw this.#fail('is nested too deeply')
    if (next === '{') return this.#object(depth)
    if (next === '[') return this.#array(depth)
    if (next === '"') return this.#string()
    return this.#text.startsWith('null', this.#at) ? this.#null() : this.#integer()
  }

  #object(depth: number): Map<string, Value> {
    const object = new Map<string, Value>()
    this.#list('{', '}', () => {
      this.#skipSpace()
      const key = this.#string()
      if (object.has(key)) throw this.#fail(`has the key ${JSON.stringify(key)} twice`)
      this.#expect(':')
      object.set(key, this.#value(depth + 1))
    })
    return object
  }

  #array(depth: number): Value[] {
    const array: Value[] = []
    this.#list('[', ']', () => array.push(this.#value(depth + 1)))
    return array
  }

  #list(open: string, close: string, item: () => void): void {
    this.#expect(open)
    if (this.#accept(close)) return
    do item()
    while (this.#accept(','))
    this.#expect(close)
  }

  #string(): string {
    if (this.#text[this.#at] !== '"') throw this.#unexpected()
    const start = this.#at++
    for (;;) {
      const next = this.#text[this.#at++]
      if (next === undefined) throw this.#fail('ends inside a string')
      if (next === '"') break
      if (next === '\\') this.#at++
    }
    try {
      return JSON.parse(this.#text.slice(start, this.#at)) // escapes and control characters
    } catch (cause) {
      throw badFile(this.#path, `has a header with a malformed string at character ${start}`, { cause })
    }
  }

  #null(): null {
    this.#at += 'null'.length
    return null
  }

  #integer(): number {
    const pattern = /(?:0|[1-9]\d{0,15})(?![\d.eE])/y
    pattern.lastIndex = this.#at
    const digits = pattern.exec(this.#text)?.[0]
    if (digits === undefined || !Number.isSafeInteger(Number(digits))) throw this.#unexpected()
    this.#at += digits.length
    return Number(digits)
  }

  #accept(character: string): boolean {
    this.#skipSpace()
    if (this.#text[this.#at] !== character) return false
    this.#at++
    return true
  }

  #expect(character: string): void {
    if (!this.#accept(character)) throw this.#unexpected()
  }

  #skipSpace(): void {
    while (' \t\r\n'.includes(this.#text[this.#at] ?? '-')) this.#at++
  }

  #unexpected(): Error {
    const found = JSON.stringify(this.#text.slice(this.#at, this.#at + 20))
    return this.#fail(`is malformed at character ${this.#at}: ${found}`)
  }

  #fail(problem: string): Error {
    return badFile(this.#path, `has a header that ${problem}`)
  }
}

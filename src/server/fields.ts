// Fields of a request, from JSON or a form, checked one by one: messages name the field as the client spelled it.
import { suggestion } from '../errors.js'

/** What a request gets instead of what it asked for. */
export class RequestError extends Error {
  /**
   * @param status of HTTP
   * @param code for programs, as OpenAI's API has them
   * @param field that is wrong
   */
  constructor(
    readonly status: 400 | 401 | 403 | 404 | 409 | 413 | 429 | 499 | 500 | 503,
    message: string,
    readonly code: string | null = null,
    readonly field: string | null = null,
  ) {
    super(message)
  }
}

/** What a number must be; any finite one by default. */
export interface NumberRange {
  integer?: boolean
  min?: number
  max?: number
}

const MAX_TEXT = 100_000
/** Beyond any client's; a million of them would take seconds. */
const MAX_FIELDS = 1000
const MAX_QUOTED = 40

export class Fields {
  readonly #given: Record<string, unknown>

  /** @throws RequestError for what is no JSON object */
  constructor(given: unknown) {
    if (typeof given !== 'object' || given === null || Array.isArray(given))
      throw new RequestError(400, 'Expected a JSON object in the body')
    if (Object.keys(given).length > MAX_FIELDS) throw new RequestError(400, `Expected at most ${MAX_FIELDS} fields`)
    this.#given = given as Record<string, unknown>
  }

  get names(): string[] {
    return Object.keys(this.#given).filter((name) => this.get(name) !== undefined)
  }

  /** null is not given, as clients send what they leave open. */
  get(name: string): unknown {
    return Object.hasOwn(this.#given, name) ? (this.#given[name] ?? undefined) : undefined
  }

  /** Refuses misspelled fields: what is silently ignored costs its user a picture. */
  expect(allowed: readonly string[]): void {
    for (const name of this.names)
      if (!allowed.includes(name))
        throw new RequestError(
          400,
          `Unknown field ${quoted(name)}${suggestion(name, allowed)}`,
          'unknown_parameter',
          name.slice(0, MAX_QUOTED),
        )
  }

  text(name: string): string | undefined {
    const value = this.get(name)
    if (value === undefined) return undefined
    if (typeof value !== 'string' || value.length > MAX_TEXT)
      throw this.wrong(name, `a text of at most ${MAX_TEXT} characters`)
    return value
  }

  oneOf<T extends string>(name: string, allowed: readonly T[]): T | undefined {
    const value = this.get(name)
    if (value === undefined || allowed.includes(value as T)) return value as T | undefined
    throw this.wrong(name, `one of ${allowed.join(', ')}`)
  }

  /** Forms have texts only. */
  number(name: string, { integer = false, min = -Infinity, max = Infinity }: NumberRange = {}): number | undefined {
    const given = this.get(name)
    if (given === undefined) return undefined
    const value = typeof given === 'string' && given.trim() !== '' ? Number(given) : given
    const fits = typeof value === 'number' && Number.isFinite(value) && value >= min && value <= max
    if (fits && (!integer || Number.isSafeInteger(value))) return value
    const range = max < Infinity ? ` from ${min} to ${max}` : min > -Infinity ? ` of at least ${min}` : ''
    throw this.wrong(name, `${integer ? 'an integer' : 'a number'}${range}`)
  }

  flag(name: string): boolean | undefined {
    const value = this.get(name)
    if (value === undefined || typeof value === 'boolean') return value
    if (value === 'true' || value === 'false') return value === 'true'
    throw this.wrong(name, 'true or false')
  }

  /** Of 64 bits, beyond 2^53 as a text; undefined for -1, which programs send for "random". */
  seed(name: string): bigint | undefined {
    const value = this.get(name)
    const text = typeof value === 'number' && Number.isSafeInteger(value) ? String(value) : value
    if (text === undefined || text === '-1') return undefined
    if (typeof text !== 'string' || !/^-?\d{1,20}$/.test(text) || !isSeed(BigInt(text)))
      throw this.wrong(name, 'an integer from -2^63 to 2^64 - 1, beyond 2^53 as a text')
    return BigInt(text)
  }

  /** The bytes of a picture: base64, or a data URL. Names of files and other URLs are for the client to read. */
  picture(name: string): Uint8Array | undefined {
    const value = this.get(name)
    if (value === undefined || value instanceof Uint8Array) return value
    const text = typeof value === 'string' ? value.replace(/^data:[\w/+.-]*;base64,/, '').replace(/\s/g, '') : ''
    // Padded, as all clients write it: a path has letters of base64, too.
    if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(text))
      throw this.wrong(name, 'a picture as base64 or as a data URL')
    return Buffer.from(text, 'base64')
  }

  wrong(name: string, expected: string): RequestError {
    return new RequestError(
      400,
      `Expected ${expected} for ${name} but received ${describe(this.get(name))}`,
      null,
      name,
    )
  }
}

function isSeed(seed: bigint): boolean {
  return seed >= -(2n ** 63n) && seed < 2n ** 64n
}

function describe(value: unknown): string {
  if (typeof value === 'string') return quoted(value)
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'a list' : 'an object'
  return String(value)
}

function quoted(text: string): string {
  return text.length > MAX_QUOTED ? `${JSON.stringify(text.slice(0, MAX_QUOTED))}…` : JSON.stringify(text)
}

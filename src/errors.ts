import { closest, distance } from 'fastest-levenshtein'
import { recognise } from './realms.js'

/** The only list of codes on this side; native/core/error.h has those that the engine throws. */
export const kandinskyErrorCodes = [
  'INVALID_ARGUMENT',
  'FILE_NOT_FOUND',
  'BAD_FILE',
  'UNSUPPORTED_MODEL',
  'SHAPE_MISMATCH',
  'OUT_OF_MEMORY',
  'DEVICE_UNAVAILABLE',
  'DISPOSED',
  'NATIVE_LOAD_FAILED',
  'WORKER_DIED',
  'INTERNAL',
] as const
/** What kind of error it is, for programs; the message is for people. */
export type KandinskyErrorCode = (typeof kandinskyErrorCodes)[number]

/** The only error class this package throws. Aborts reject with `signal.reason` instead. */
export class KandinskyError extends Error {
  readonly code: KandinskyErrorCode

  static {
    recognise(KandinskyError, 'KandinskyError')
  }

  constructor(code: KandinskyErrorCode, message: string, options?: ErrorOptions) {
    super(printable(message), options)
    this.name = 'KandinskyError'
    this.code = code
  }
}

/**
 * Names from files and from callers end up in messages, and messages on terminals: control characters are escaped, and what
 * is longer than any name is shortened.
 */
function printable(message: string): string {
  return message
    .replace(/\S{600,}/g, (word) => `${word.slice(0, 200)}…${word.slice(-50)}`)
    .replace(/[^\P{Cc}\n\t]/gu, (character) =>
      JSON.stringify(character)
        .slice(1, -1)
        .replace(/[\x7f-\x9f]/, hex),
    )
}

function hex(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}

/** "Expected {expected} for {what} but received {value}". */
export function invalid(what: string, expected: string, value: unknown): KandinskyError {
  return new KandinskyError('INVALID_ARGUMENT', `Expected ${expected} for ${what} but received ${describe(value)}`)
}

/** A text as it is, a URL without what it may carry in secret: user, password, query, fragment, and the data of a data URL. */
export function withoutSecrets(text: string): string {
  if (/^data:/i.test(text)) return `${text.slice(0, Math.min(40, (text.indexOf(',') + 1 || 6) - 1))},…`
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) return text
  if (!URL.canParse(text)) return '(a URL)'
  const { protocol, host, pathname } = new URL(text)
  return `${protocol}//${host}${pathname}`
}

function describe(value: unknown): string {
  if (typeof value === 'string') {
    const text = withoutSecrets(value)
    return text.length > 80 ? `${JSON.stringify(text.slice(0, 80))}…` : JSON.stringify(text)
  }
  if (value === null || ['number', 'boolean', 'bigint', 'undefined'].includes(typeof value)) return String(value)
  if (Array.isArray(value)) return `an array of length ${value.length}`
  if (typeof value === 'function') return 'a function'
  return `an object of type ${(value as object).constructor?.name ?? 'Object'}`
}

/** ": did you mean X?" where a known name is near to one that is not known, otherwise ": expected one of …". */
export function suggestion(name: string, known: readonly string[]): string {
  const plain = (text: string) => text.toLowerCase().replace(/[-_ ]/g, '')
  const same = known.find((candidate) => plain(candidate) === plain(name))
  const near = same ?? (known.length > 0 && name.length <= 64 ? closest(name, known) : undefined)
  const isNear = near !== undefined && (same || distance(name, near) <= Math.max(1, Math.floor(near.length / 3)))
  return isNear ? `: did you mean ${near}?` : `: expected one of ${known.join(', ')}`
}

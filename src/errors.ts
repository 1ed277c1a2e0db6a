export type KandinskyErrorCode =
  | 'INVALID_ARGUMENT'
  | 'FILE_NOT_FOUND'
  | 'BAD_FILE'
  | 'UNSUPPORTED_MODEL'
  | 'SHAPE_MISMATCH'
  | 'OUT_OF_MEMORY'
  | 'DEVICE_UNAVAILABLE'
  | 'DISPOSED'
  | 'NATIVE_LOAD_FAILED'
  | 'INTERNAL'

/** The only error class this package throws. Aborts reject with `signal.reason` instead. */
export class KandinskyError extends Error {
  readonly code: KandinskyErrorCode

  constructor(code: KandinskyErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'KandinskyError'
    this.code = code
  }
}

/** "Expected {expected} for {what} but received {value}". */
export function invalid(what: string, expected: string, value: unknown): KandinskyError {
  return new KandinskyError('INVALID_ARGUMENT', `Expected ${expected} for ${what} but received ${describe(value)}`)
}

function describe(value: unknown): string {
  if (typeof value === 'string')
    return value.length > 80 ? `${JSON.stringify(value.slice(0, 80))}…` : JSON.stringify(value)
  if (value === null || ['number', 'boolean', 'bigint', 'undefined'].includes(typeof value)) return String(value)
  if (Array.isArray(value)) return `an array of length ${value.length}`
  if (typeof value === 'function') return 'a function'
  return `an object of type ${(value as object).constructor?.name ?? 'Object'}`
}

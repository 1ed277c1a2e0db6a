// What a value is, whoever's constructor made it. Jest, vitest's vmThreads and `vm` run the package in a realm with
// constructors of its own, so that `instanceof` knows nothing that Node or the addon made; and of two copies of the package
// in one process neither knows the other's classes.

const tagOf = (value: unknown): string => Object.prototype.toString.call(value).slice(8, -1)

export function isFloat32Array(value: unknown): value is Float32Array {
  return ArrayBuffer.isView(value) && tagOf(value) === 'Float32Array'
}

/** A Buffer is one, too. */
export function isUint8Array(value: unknown): value is Uint8Array {
  return ArrayBuffer.isView(value) && tagOf(value) === 'Uint8Array'
}

export function isArrayBuffer(value: unknown): value is ArrayBuffer {
  return tagOf(value) === 'ArrayBuffer'
}

export function isRegExp(value: unknown): value is RegExp {
  return tagOf(value) === 'RegExp'
}

export function isError(value: unknown): value is Error {
  return value instanceof Error || ['Error', 'DOMException'].includes(tagOf(value))
}

/** The test that Node's own functions make. */
export function isUrl(value: unknown): value is URL {
  const url = value as Partial<URL> | null
  return typeof url === 'object' && typeof url?.href === 'string' && typeof url.protocol === 'string'
}

/** A signal that aborts with the first of `signals`. `AbortSignal.any` takes none of another realm. */
export function firstOf(signals: readonly AbortSignal[]): AbortSignal {
  if (signals.every((signal) => signal instanceof AbortSignal)) return AbortSignal.any([...signals])
  const first = new AbortController()
  for (const signal of signals) {
    const abort = () => first.abort(signal.reason)
    if (signal.aborted) abort()
    else signal.addEventListener('abort', abort, { once: true })
  }
  return first.signal
}

/**
 * Makes `instanceof` true for the objects of every copy of a class; derived classes keep the usual meaning. Call it in a
 * static block: `static { recognise(Tensor, 'Tensor') }`.
 */
export function recognise(Class: abstract new (...args: never[]) => object, name: string): void {
  const brand = Symbol.for(`node-kandinsky.${name}`)
  Object.defineProperty(Class.prototype, brand, { value: true })
  Object.defineProperty(Class, Symbol.hasInstance, {
    value(this: unknown, value: unknown): boolean {
      if (this !== Class) return Function.prototype[Symbol.hasInstance].call(this as typeof Class, value)
      return typeof value === 'object' && value !== null && brand in value
    },
  })
}

// What travels between a program and its worker process: calls, events and results as bytes of V8's structured clone, so
// that pixels and tensors are copied as they are, never as text. Both sides put their own objects (tensors, pictures,
// generators, schedulers, functions, signals) into marked plain ones and back.
import { deserialize, serialize } from 'node:v8'
import { KandinskyError, type KandinskyErrorCode, kandinskyErrorCodes } from '../errors.js'
import { RawImage } from '../images/image.js'
import type { Recipe } from '../images/recipe.js'
import { Generator, type GeneratorAlgorithm, type GeneratorPosition } from '../random.js'
import { isError, isUrl } from '../realms.js'
import { schedulerByName } from '../schedulers/registry.js'
import { Tensor } from '../tensor.js'

/** To the worker. `target` is a class of pipelines, or the id of the call that loaded one. */
export type Request =
  | { type: 'call'; id: number; target: string | number; method: string; args: unknown[] }
  | { type: 'abort'; id: number; reason: string }
  | { type: 'answer'; question: number; value: unknown; error?: PlainError }

/** To the program. `generators` says where those of the call are now. */
export type Reply =
  | { type: 'ready' }
  | { type: 'event'; id: number; callback: number; question?: number; args: unknown[] }
  | { type: 'done'; id: number; value?: unknown; error?: PlainError; generators: GeneratorPosition[] }

export interface PlainError {
  name: string
  message: string
  code?: string
  stack?: string
}

export const toBytes = (message: Request | Reply): Uint8Array => serialize(message)
export const fromBytes = <Message>(bytes: Uint8Array): Message => deserialize(bytes) as Message

const MARK = '\0kandinsky'
type Marked =
  | { [MARK]: 'tensor'; data: Float32Array; shape: readonly number[] }
  | {
      [MARK]: 'image'
      data: Uint8Array
      width: number
      height: number
      channels: 1 | 3 | 4
      recipe?: Recipe | undefined
    }
  | { [MARK]: 'scheduler'; name: string; config: object }
  | {
      [MARK]: 'generator'
      index: number
      seed: number | bigint
      algorithm: GeneratorAlgorithm
      position: GeneratorPosition
    }
  | { [MARK]: 'function'; index: number; name: string }
  | { [MARK]: 'signal'; aborted: boolean }

/** What of a call stays on its side and is meant by an index. */
export interface Held {
  generators: Generator[]
  functions: ((...args: unknown[]) => unknown)[]
  signals: AbortSignal[]
}

export const nothingHeld = (): Held => ({ generators: [], functions: [], signals: [] })

/** @throws KandinskyError `INVALID_ARGUMENT` for what cannot be sent to another process */
export function pack(value: unknown, held: Held, name = 'value'): unknown {
  if (typeof value === 'function')
    return { [MARK]: 'function', index: hold(held.functions, value as Held['functions'][number]), name }
  if (typeof value === 'symbol') throw unsendable(name, 'a symbol')
  if (typeof value !== 'object' || value === null) return value
  const marked = mark(value, held, name)
  if (marked) return marked
  if (isUrl(value)) return value.href
  if (Array.isArray(value)) return value.map((item, i) => pack(item, held, `${name}[${i}]`))
  // Buffers, typed arrays, patterns and dates are cloned as they are.
  if (Object.prototype.toString.call(value) !== '[object Object]') return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, pack(item, held, key)]))
}

function mark(value: object, held: Held, name: string): Marked | undefined {
  if (value instanceof Tensor) return { [MARK]: 'tensor', data: value.data, shape: value.shape }
  if (value instanceof RawImage) {
    const { data, width, height, channels, recipe } = value
    return { [MARK]: 'image', data, width, height, channels, recipe }
  }
  if (value instanceof Generator) {
    const { seed, algorithm, position } = value
    return { [MARK]: 'generator', index: hold(held.generators, value), seed, algorithm, position }
  }
  const { setTimesteps, config, throwIfAborted, aborted, randn, clone, metadata } = value as Record<string, unknown>
  if (typeof setTimesteps === 'function')
    return { [MARK]: 'scheduler', name: value.constructor.name, config: config as object }
  if (typeof throwIfAborted === 'function') {
    hold(held.signals, value as AbortSignal)
    return { [MARK]: 'signal', aborted: aborted === true }
  }
  if (typeof randn === 'function') throw unsendable(name, 'a random source other than a Generator')
  if (typeof clone === 'function' && typeof metadata === 'function')
    throw unsendable(name, 'a sharp object (pass what loadImage makes of it)')
  return undefined
}

function unsendable(name: string, what: string): KandinskyError {
  return new KandinskyError(
    'INVALID_ARGUMENT',
    `Expected what another process can take for ${name} but received ${what}`,
  )
}

function hold<Item>(list: Item[], item: Item): number {
  const index = list.indexOf(item)
  return index >= 0 ? index : list.push(item) - 1
}

/** The other side of `pack`. Functions and signals become what `stand` makes for them. */
export function unpack(
  value: unknown,
  generators: Generator[],
  stand: { forFunction(index: number, name: string): unknown; forSignal(aborted: boolean): AbortSignal },
): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map((item) => unpack(item, generators, stand))
  if (!(MARK in value)) {
    if (Object.prototype.toString.call(value) !== '[object Object]') return value
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unpack(item, generators, stand)]))
  }
  const marked = value as Marked
  switch (marked[MARK]) {
    case 'tensor':
      return new Tensor(marked.data, marked.shape)
    case 'image':
      return new RawImage(marked.data, marked.width, marked.height, marked.channels, marked.recipe)
    case 'scheduler':
      return schedulerByName(marked.name, marked.config)
    case 'generator':
      generators[marked.index] ??= generatorAt(marked)
      return generators[marked.index]
    case 'function':
      return stand.forFunction(marked.index, marked.name)
    case 'signal':
      return stand.forSignal(marked.aborted)
  }
}

function generatorAt({ seed, algorithm, position }: Pick<Generator, 'seed' | 'algorithm' | 'position'>): Generator {
  const generator = new Generator(seed, algorithm)
  generator.position = position
  return generator
}

export function plainError(error: unknown): PlainError {
  if (!isError(error)) return { name: 'Error', message: String(error) }
  const { name, message, stack } = error
  const { code } = error as { code?: unknown }
  return { name, message, ...(typeof code === 'string' && { code }), ...(stack !== undefined && { stack }) }
}

export function errorFrom({ name, message, code, stack }: PlainError): Error {
  const isOurs = name === 'KandinskyError' && kandinskyErrorCodes.includes(code as KandinskyErrorCode)
  const error = isOurs ? new KandinskyError(code as KandinskyErrorCode, message) : new Error(message)
  if (!isOurs) error.name = name
  // where it happened, in the worker
  if (stack !== undefined) error.stack = stack
  return error
}

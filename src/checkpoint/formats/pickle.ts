// A pickle machine that can only describe tensors.
//
// A pickle is a program: its GLOBAL and REDUCE instructions may import and call anything. This machine knows the
// instructions that torch.save uses (protocol 2), and a global is never looked up: the few names that occur in a
// state dict are values of their own here, and everything else is refused. Nothing is executed or allocated on behalf
// of the file except lists as long as the file itself.
// Source: Python's pickletools.py (instructions), torch/_utils.py and torch/serialization.py (what they build).
import { badFile } from '../../files.js'
import { TORCH_LEGACY_HEAD } from './file.js'
import type { ElementType } from './stored.js'

/** A view into a storage, whose bytes lie elsewhere in the file under its key. Counts are in elements. */
export interface PickledTensor {
  storage: Storage
  storageOffset: number
  type: ElementType
  shape: number[]
  stride: number[]
}

export interface Storage {
  /** undefined: bytes, whose type each tensor says by itself */
  type: ElementType | undefined
  key: string
  count: number
}

const STORAGES: Record<string, ElementType> = {
  'torch DoubleStorage': 'f64',
  'torch FloatStorage': 'f32',
  'torch HalfStorage': 'f16',
  'torch BFloat16Storage': 'bf16',
  'torch LongStorage': 'i64',
  'torch IntStorage': 'i32',
  'torch ShortStorage': 'i16',
  'torch CharStorage': 'i8',
  'torch ByteStorage': 'u8',
  'torch BoolStorage': 'bool',
}
/** Types without a storage class of their own: torch.save names them beside an untyped storage. */
const DTYPES: Record<string, ElementType> = { 'torch float8_e4m3fn': 'f8_e4m3', 'torch float8_e5m2': 'f8_e5m2' }
const UNTYPED_STORAGE = 'torch.storage UntypedStorage'
const ORDERED_DICT = 'collections OrderedDict'
const REBUILD_TENSOR = 'torch._utils _rebuild_tensor_v2'
/** What files of the oldest versions call, with the same first arguments. */
const REBUILD_TENSOR_V1 = 'torch._utils _rebuild_tensor'
const REBUILD_TENSOR_V3 = 'torch._utils _rebuild_tensor_v3'
const REBUILD_PARAMETER = 'torch._utils _rebuild_parameter'
const ALLOWED_GLOBALS = new Set([
  ORDERED_DICT,
  REBUILD_TENSOR,
  REBUILD_TENSOR_V1,
  REBUILD_TENSOR_V3,
  REBUILD_PARAMETER,
  UNTYPED_STORAGE,
  ...Object.keys(STORAGES),
  ...Object.keys(DTYPES),
])

class Global {
  constructor(readonly name: string) {}
}
class StorageValue {
  constructor(readonly storage: Storage) {}
}
class TensorValue {
  constructor(readonly tensor: PickledTensor) {}
}
/** An array is a tuple or a list. */
type Value = null | boolean | number | string | Value[] | Map<Value, Value> | Global | StorageValue | TensorValue
const MARK = Symbol('mark')

/** A state dict of 2000 tensors takes about 200,000 instructions; each makes at most one value. */
const MAX_INSTRUCTIONS = 1_000_000
/** Lists, tuples and dicts, of which a tensor takes about six. */
const MAX_CONTAINERS = 100_000
/** State dicts in a state dict, as `{'unet': {...}, 'null_embedding': tensor}`. */
const MAX_DEPTH = 2
/** As the tensors of a safetensors header, of which a pickle's instructions allow some 30,000. */
const MAX_TENSORS = 100_000
/** Characters of a name before its last part, which every tensor of a nested dict repeats. */
const MAX_PREFIX = 256
/** Of a tensor; torch itself has 64. */
const MAX_DIMENSIONS = 64

/**
 * Reads a pickled state dict.
 * @param data the archive's data.pkl
 * @param path names the file in errors
 * @returns tensors of a dict in the dict have its name and a point before theirs
 * @throws KandinskyError `BAD_FILE` for anything but a dict from names to tensors
 */
export function unpickleTensors(data: Buffer, path: string): Map<string, PickledTensor> {
  return stateDict(new Machine(data, path).run(), path)
}

const LEGACY_PROTOCOL = 1001

/**
 * Reads the pickles before the storages of a file of torch.save before version 1.6: magic number, protocol, system,
 * state dict, and the keys of the storages in their order.
 * @param data the file from its first byte on, as far as pickles may reach
 * @returns also where the storages begin, in bytes
 * @throws KandinskyError `BAD_FILE`
 */
export function unpickleLegacy(data: Buffer, path: string) {
  const machine = new Machine(data, path, TORCH_LEGACY_HEAD.length)
  const protocol = machine.run()
  const system = machine.run()
  if (protocol !== LEGACY_PROTOCOL || !(system instanceof Map) || system.get('little_endian') !== true)
    throw badFile(path, 'is no little-endian file of the protocol 1001 that torch.save had before version 1.6')
  const tensors = stateDict(machine.run(), path)
  const keys = machine.run()
  if (!Array.isArray(keys) || !keys.every((key) => typeof key === 'string'))
    throw badFile(path, 'does not list its storages')
  return { tensors, keys: keys as string[], end: machine.at }
}

function stateDict(root: Value, path: string): Map<string, PickledTensor> {
  if (!(root instanceof Map)) throw badFile(path, 'holds no state dict (a dict from names to tensors)')
  const tensors = new Map<string, PickledTensor>()
  // A dict that many keys name would be read once for each of them.
  const seen = new Set<Value>()
  const add = (dict: Map<Value, Value>, prefix: string, depth: number) => {
    if (seen.has(dict)) throw badFile(path, 'holds no plain state dict: one dict stands in it twice')
    if (prefix.length > MAX_PREFIX) throw badFile(path, `has a dict of a longer name than ${MAX_PREFIX} characters`)
    seen.add(dict)
    for (const [name, value] of dict) {
      if (typeof name === 'string' && value instanceof Map && depth < MAX_DEPTH) {
        add(value, `${prefix}${name}.`, depth + 1)
        continue
      }
      if (typeof name !== 'string' || !(value instanceof TensorValue))
        throw badFile(path, `holds no plain state dict: the entry ${readable(name)} is not a tensor`)
      if (tensors.has(prefix + name)) throw badFile(path, `has the tensor ${readable(prefix + name)} twice`)
      if (tensors.size === MAX_TENSORS) throw badFile(path, `has more than ${MAX_TENSORS} tensors`)
      tensors.set(prefix + name, value.tensor)
    }
  }
  add(root, '', 1)
  return tensors
}

class Machine {
  readonly #data: Buffer
  readonly #path: string
  readonly #stack: (Value | typeof MARK)[] = []
  readonly #memo = new Map<number, Value>()
  #at: number
  #instructions = 0
  #containers = 0

  constructor(data: Buffer, path: string, at = 0) {
    this.#data = data
    this.#path = path
    this.#at = at
  }

  /** Where the next pickle begins. */
  get at(): number {
    return this.#at
  }

  /** Reads one pickle. */
  run(): Value {
    this.#stack.length = 0
    this.#memo.clear()
    for (;;) {
      const code = String.fromCharCode(this.#take(1)[0]!)
      if (code === '.') return this.#pop()
      const instruction = INSTRUCTIONS[code]
      if (!instruction)
        throw this.#fail(`uses the instruction 0x${code.charCodeAt(0).toString(16)}, which no state dict needs`)
      if (++this.#instructions > MAX_INSTRUCTIONS) throw this.#fail('is larger than any state dict')
      instruction(this)
    }
  }

  push(value: Value | typeof MARK): void {
    this.#stack.push(value)
  }

  /** Puts a new list, tuple or dict on the stack. */
  make(container: Value[] | Map<Value, Value>): void {
    if (++this.#containers > MAX_CONTAINERS) throw this.#fail('is larger than any state dict')
    this.push(container)
  }

  number(bytes: 1 | 2 | 4): number {
    return this.#take(bytes).readUIntLE(0, bytes)
  }

  signed(): number {
    return this.#take(4).readInt32LE(0)
  }

  /** LONG1: a little-endian two's complement number of up to 255 bytes, of which 8 are enough for any size. */
  long(): number {
    const bytes = this.#take(this.number(1))
    if (bytes.length > 8) throw this.#fail('holds an integer of more than 64 bits')
    const padded = Buffer.alloc(8, (bytes.at(-1) ?? 0) & 0x80 ? 0xff : 0)
    bytes.copy(padded)
    return Number(padded.readBigInt64LE(0))
  }

  text(): string {
    return this.#take(this.number(4)).toString('utf8')
  }

  protocol(): void {
    const version = this.number(1)
    if (version > 2) throw this.#fail(`uses protocol ${version}; torch.save's default, 2, is supported`)
  }

  global(): void {
    const name = `${this.#line()} ${this.#line()}`
    if (!ALLOWED_GLOBALS.has(name)) throw this.#fail(`asks for ${readable(name)}, which is not part of a tensor`)
    this.push(new Global(name))
  }

  store(index: number): void {
    const top = this.#pop()
    this.push(top)
    this.#memo.set(index, top)
  }

  fetch(index: number): void {
    const value = this.#memo.get(index)
    if (value === undefined) throw this.#fail(`recalls value ${index}, which it never stored`)
    this.push(value)
  }

  tuple(count: number): void {
    if (this.#stack.length < count) throw this.#fail('takes more values than it made')
    const items = this.#stack.splice(this.#stack.length - count)
    if (items.includes(MARK)) throw this.#fail('has an unexpected mark')
    this.make(items as Value[])
  }

  tupleFromMark(): void {
    this.make(this.#popToMark())
  }

  append(): void {
    const value = this.#pop()
    this.#append([value])
  }

  appendFromMark(): void {
    this.#append(this.#popToMark())
  }

  setItem(): void {
    const value = this.#pop()
    this.#setItems([this.#pop(), value])
  }

  setItemsFromMark(): void {
    this.#setItems(this.#popToMark())
  }

  /** BUILD sets attributes. A module's state dict has one, _metadata, which says nothing about tensors. */
  build(): void {
    const state = this.#pop()
    const target = this.#pop()
    if (!(target instanceof Map && state instanceof Map)) throw this.#fail('sets attributes of what is no dict')
    this.push(target)
  }

  reduce(): void {
    const args = this.#pop()
    const callable = this.#pop()
    if (!(callable instanceof Global) || !Array.isArray(args)) throw this.#fail('calls what is no function')
    if (callable.name === ORDERED_DICT && args.length === 0) this.make(new Map())
    else if (callable.name === REBUILD_TENSOR || callable.name === REBUILD_TENSOR_V1) this.push(this.#tensor(args))
    else if (callable.name === REBUILD_TENSOR_V3) this.push(this.#tensor(args, args[6]))
    else if (callable.name === REBUILD_PARAMETER && args[0] instanceof TensorValue) this.push(args[0])
    else throw this.#fail(`calls ${readable(callable.name)} with arguments that torch.save does not write`)
  }

  /**
   * A persistent id names a storage: ('storage', its class, key, device, number of elements), and before version 1.6
   * the part of another storage that it is, which has been None since 0.4.
   */
  persistent(): void {
    const id = this.#pop()
    const [kind, type, key, , count, view = null] = Array.isArray(id) ? id : []
    if (kind !== 'storage' || !(type instanceof Global) || typeof key !== 'string' || !isCount(count) || view !== null)
      throw this.#fail('refers to a storage in a way that torch.save does not')
    const element = STORAGES[type.name]
    if (!element && type.name !== UNTYPED_STORAGE) throw this.#fail(`has a storage of the class ${readable(type.name)}`)
    this.push(new StorageValue({ type: element, key, count }))
  }

  /**
   * Arguments: storage, storage_offset, size, stride, requires_grad, backward_hooks (and metadata, unused).
   * @param dtype of an untyped storage's values
   */
  #tensor([storage, offset, shape, stride]: Value[], dtype?: Value): TensorValue {
    if (!(storage instanceof StorageValue) || !isCount(offset) || !isCounts(shape) || !isCounts(stride))
      throw this.#fail('describes a tensor in a way that torch.save does not')
    if (shape.length !== stride.length) throw this.#fail('describes a tensor with more sizes than strides')
    const type = storage.storage.type ?? (dtype instanceof Global ? DTYPES[dtype.name] : undefined)
    if (!type) throw this.#fail('has a tensor of a type that is not read')
    return new TensorValue({ storage: storage.storage, type, storageOffset: offset, shape, stride })
  }

  #append(items: Value[]): void {
    const list = this.#pop()
    if (!Array.isArray(list)) throw this.#fail('appends to what is no list')
    for (const item of items) list.push(item)
    this.push(list)
  }

  #setItems(items: Value[]): void {
    const dict = this.#pop()
    if (!(dict instanceof Map) || items.length % 2 !== 0) throw this.#fail('sets items of what is no dict')
    for (let i = 0; i < items.length; i += 2) {
      if (dict.has(items[i]!)) throw this.#fail(`has the key ${readable(items[i])} twice`)
      dict.set(items[i]!, items[i + 1]!)
    }
    this.push(dict)
  }

  #popToMark(): Value[] {
    const mark = this.#stack.lastIndexOf(MARK)
    if (mark < 0) throw this.#fail('takes values up to a mark it never set')
    return this.#stack.splice(mark).slice(1) as Value[]
  }

  #pop(): Value {
    const value = this.#stack.pop()
    if (value === undefined || value === MARK) throw this.#fail('takes more values than it made')
    return value
  }

  #take(bytes: number): Buffer {
    if (this.#at + bytes > this.#data.length) throw this.#fail('ends in the middle')
    this.#at += bytes
    return this.#data.subarray(this.#at - bytes, this.#at)
  }

  #line(): string {
    const end = this.#data.indexOf(0x0a, this.#at)
    if (end < 0) throw this.#fail('ends in the middle')
    return this.#take(end + 1 - this.#at)
      .subarray(0, -1)
      .toString('utf8')
  }

  #fail(problem: string): Error {
    return badFile(
      this.#path,
      `holds a pickle that ${problem}. Only tensors are read from such files and nothing in them is run; ` +
        'use a .safetensors version, or load it where you trust it and save it again with safetensors',
    )
  }
}

const INSTRUCTIONS: Record<string, (machine: Machine) => void> = {
  '\x80': (m) => m.protocol(),
  '(': (m) => m.push(MARK),
  N: (m) => m.push(null),
  '\x88': (m) => m.push(true),
  '\x89': (m) => m.push(false),
  J: (m) => m.push(m.signed()),
  K: (m) => m.push(m.number(1)),
  M: (m) => m.push(m.number(2)),
  '\x8a': (m) => m.push(m.long()),
  X: (m) => m.push(m.text()),
  ')': (m) => m.make([]),
  ']': (m) => m.make([]),
  a: (m) => m.append(),
  e: (m) => m.appendFromMark(),
  '\x85': (m) => m.tuple(1),
  '\x86': (m) => m.tuple(2),
  '\x87': (m) => m.tuple(3),
  t: (m) => m.tupleFromMark(),
  '}': (m) => m.make(new Map()),
  s: (m) => m.setItem(),
  u: (m) => m.setItemsFromMark(),
  q: (m) => m.store(m.number(1)),
  r: (m) => m.store(m.number(4)),
  h: (m) => m.fetch(m.number(1)),
  j: (m) => m.fetch(m.number(4)),
  c: (m) => m.global(),
  Q: (m) => m.persistent(),
  R: (m) => m.reduce(),
  b: (m) => m.build(),
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= MAX_DIMENSIONS && value.every(isCount)
}

/** A value from the file, fit for a message: short, on one line, never descending into nested values. */
function readable(value: Value | undefined): string {
  if (typeof value !== 'string') return `of type ${Array.isArray(value) ? 'tuple' : typeof value}`
  return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value)
}

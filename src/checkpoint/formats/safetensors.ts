// Reader of safetensors headers. The format's rules are all enforced, since a file that bends them can look different
// to two readers (Trail of Bits' audit of 2023): one JSON object, no duplicate keys, tensors that cover the data
// section from its first byte to the end of the file without holes or overlap.
// Source: https://github.com/huggingface/safetensors (README, "Format").
import { resolve } from 'node:path'
import { badFile } from '../../files.js'
import { fileKind, KIND_NAMES, SourceFile } from './file.js'
import { parseHeader } from './safetensors-json.js'
import { countElements, ELEMENT_BYTES, type ElementType, type StoredTensor } from './stored.js'

/** Kandinsky's largest header has 200 kB. The reference takes up to 100 MB, which cost minutes and the heap here. */
const MAX_HEADER_BYTES = 16 << 20

const ELEMENT_TYPES = new Map<unknown, ElementType>([
  ['F64', 'f64'],
  ['F32', 'f32'],
  ['F16', 'f16'],
  ['BF16', 'bf16'],
  ['I64', 'i64'],
  ['I32', 'i32'],
  ['I16', 'i16'],
  ['I8', 'i8'],
  ['U8', 'u8'],
  ['BOOL', 'bool'],
  ['F8_E4M3', 'f8_e4m3'],
  ['F8_E5M2', 'f8_e5m2'],
])

/**
 * Lists the tensors of one file, in the order of their bytes. Reads the header only.
 * @throws KandinskyError `FILE_NOT_FOUND` or `BAD_FILE`
 */
export function readSafetensors(path: string): Promise<StoredTensor[]> {
  return withHeader(path, checkTensors)
}

/**
 * What stands beside the tensors of one file, all of it text.
 * @throws KandinskyError `FILE_NOT_FOUND` or `BAD_FILE`
 */
export function readSafetensorsMetadata(path: string): Promise<ReadonlyMap<string, string>> {
  return withHeader(path, (header, file) => {
    const metadata = header.get('__metadata__')
    checkMetadata(metadata, file)
    return (metadata ?? new Map()) as ReadonlyMap<string, string>
  })
}

function withHeader<T>(path: string, use: (header: Map<string, unknown>, file: SourceFile, dataStart: number) => T) {
  return SourceFile.with(resolve(path), async (file) => {
    const kind = await fileKind(file)
    if (kind !== 'safetensors') throw badFile(file.path, `is not a safetensors file but ${KIND_NAMES[kind]}`)
    const length = Number((await file.read(0, 8)).readBigUInt64LE(0))
    if (length > MAX_HEADER_BYTES)
      throw badFile(file.path, `has a header of ${length} bytes; at most ${MAX_HEADER_BYTES} are allowed`)
    const header = parseHeader(await file.read(8, length), file.path)
    return use(header, file, 8 + length)
  })
}

function checkTensors(header: Map<string, unknown>, file: SourceFile, dataStart: number): StoredTensor[] {
  checkMetadata(header.get('__metadata__'), file)
  const tensors = [...header]
    .filter(([name]) => name !== '__metadata__')
    .map((entry) => toTensor(entry, file, dataStart))
  tensors.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes)
  let end = dataStart
  for (const tensor of tensors) {
    if (tensor.offset !== end)
      throw badFile(file.path, `has ${tensor.offset < end ? 'overlapping tensors' : 'a hole'} before "${tensor.name}"`)
    end += tensor.bytes
  }
  if (end !== file.size) throw badFile(file.path, `should end at byte ${end} but has ${file.size} bytes`)
  return tensors
}

function checkMetadata(metadata: unknown, file: SourceFile): void {
  if (metadata === undefined || metadata === null) return // older writers store null for none
  if (!(metadata instanceof Map) || [...metadata.values()].some((value) => typeof value !== 'string'))
    throw badFile(file.path, 'has a "__metadata__" that is not an object of strings')
}

function toTensor([name, info]: [string, unknown], file: SourceFile, dataStart: number): StoredTensor {
  const fail = (problem: string) => badFile(file.path, `has a bad header entry for "${name}": ${problem}`)
  if (!(info instanceof Map) || info.size !== 3) throw fail('expected exactly dtype, shape and data_offsets')
  const type = ELEMENT_TYPES.get(info.get('dtype'))
  if (type === undefined)
    throw fail(`expected one of ${[...ELEMENT_TYPES.keys()].join(', ')} for dtype but received ${info.get('dtype')}`)
  const shape = info.get('shape')
  const offsets = info.get('data_offsets')
  if (!isIntegers(shape)) throw fail('shape is not a list of integers')
  if (!isIntegers(offsets) || offsets.length !== 2) throw fail('data_offsets is not a pair of integers')
  const [begin, end] = offsets as [number, number]
  const count = countElements(shape)
  if (count === undefined) throw fail(`shape [${shape}] overflows`)
  const bytes = count * ELEMENT_BYTES[type]
  if (end - begin !== bytes) throw fail(`shape [${shape}] of ${type} takes ${bytes} bytes, not ${end - begin}`)
  return { name, path: file.path, stamp: file.stamp, offset: dataStart + begin, bytes, type, shape }
}

function isIntegers(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => typeof n === 'number')
}

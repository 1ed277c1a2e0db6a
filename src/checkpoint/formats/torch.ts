// Reader of PyTorch .bin files. Some published checkpoints, the depth ControlNet among them, have no other form.
// Source: torch/serialization.py (_save, _load, and their _legacy_ versions).
//
// torch.save since version 1.6 writes a zip archive: "<root>/data.pkl" describes the tensors, "<root>/data/<key>" holds
// each storage as raw bytes and "<root>/byteorder" says how they are ordered. Before, it wrote pickles, of which the last
// lists the keys of the storages, and then each storage: its number of elements as int64, and its bytes.
import { resolve } from 'node:path'
import { badFile } from '../../files.js'
import { fileKind, isRange, KIND_NAMES, SourceFile } from './file.js'
import { type PickledTensor, unpickleLegacy, unpickleTensors } from './pickle.js'
import { countElements, ELEMENT_BYTES, type StoredTensor } from './stored.js'
import { readZip, type ZipEntry } from './zip.js'

/** Where a storage's bytes lie in the file. */
type Span = Pick<ZipEntry, 'offset' | 'bytes'>

/** Kandinsky's largest description (1100 tensors) takes about 150 KB. */
const MAX_PICKLE_BYTES = 16 << 20

/**
 * Lists the tensors of one file. Reads directory and description only, and executes nothing.
 * @throws KandinskyError `FILE_NOT_FOUND`, or `BAD_FILE` for anything that is not a state dict of torch.save
 */
export function readTorch(path: string): Promise<StoredTensor[]> {
  return SourceFile.with(resolve(path), async (file) => {
    const kind = await fileKind(file)
    if (kind === 'torch-zip') return readArchive(file)
    if (kind === 'torch-legacy') return readLegacy(file)
    throw badFile(
      file.path,
      `is not a file as torch.save writes it but ${KIND_NAMES[kind]}` +
        (kind === 'pickle'
          ? '; use a .safetensors version, or load it where you trust it and torch.save it again'
          : ''),
    )
  })
}

async function readArchive(file: SourceFile): Promise<StoredTensor[]> {
  const archive = await readZip(file)
  const root = findRoot(archive, file)
  await checkByteOrder(archive.get(`${root}/byteorder`), file)
  const description = archive.get(`${root}/data.pkl`)!
  if (description.bytes > MAX_PICKLE_BYTES) throw badFile(file.path, `has a data.pkl of ${description.bytes} bytes`)
  const tensors = unpickleTensors(await file.read(description.offset, description.bytes), file.path)
  return [...tensors].map(([name, tensor]) =>
    toStored(name, tensor, archive.get(`${root}/data/${tensor.storage.key}`), file),
  )
}

async function readLegacy(file: SourceFile): Promise<StoredTensor[]> {
  const head = await file.read(0, Math.min(file.size, MAX_PICKLE_BYTES))
  const { tensors, keys, end } = unpickleLegacy(head, file.path)
  const elementBytes = new Map<string, number>()
  for (const { storage, type } of tensors.values()) elementBytes.set(storage.key, ELEMENT_BYTES[storage.type ?? type])
  const spans = new Map<string, Span>()
  let at = end
  for (const key of keys) {
    const size = elementBytes.get(key)
    if (size === undefined || spans.has(key))
      throw badFile(file.path, `lists the storage ${JSON.stringify(key)} wrongly`)
    const bytes = Number((await file.read(at, 8)).readBigInt64LE(0)) * size
    if (!isRange(at + 8, bytes, file.size)) throw badFile(file.path, `is cut off in the storage ${JSON.stringify(key)}`)
    spans.set(key, { offset: at + 8, bytes })
    at += 8 + bytes
  }
  return [...tensors].map(([name, tensor]) => toStored(name, tensor, spans.get(tensor.storage.key), file))
}

function findRoot(archive: Map<string, ZipEntry>, file: SourceFile): string {
  const roots = [...archive.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name))
  if (roots.length !== 1)
    throw badFile(file.path, `is a zip archive with ${roots.length} data.pkl; torch.save writes one`)
  return roots[0]!.slice(0, -'/data.pkl'.length)
}

async function checkByteOrder(entry: ZipEntry | undefined, file: SourceFile): Promise<void> {
  if (!entry) return // torch wrote no such entry before 2.1; all its platforms then were little-endian
  const order = (await file.read(entry.offset, Math.min(entry.bytes, 16))).toString('latin1')
  if (order !== 'little') throw badFile(file.path, `has the byte order ${JSON.stringify(order)}; only "little" is read`)
}

function toStored(
  name: string,
  { storage, type, storageOffset, shape, stride }: PickledTensor,
  span: Span | undefined,
  file: SourceFile,
): StoredTensor {
  const fail = (problem: string) => badFile(file.path, `has a bad tensor "${name}": ${problem}`)
  if (!span) throw fail(`its storage ${JSON.stringify(storage.key)} is missing`)
  const size = ELEMENT_BYTES[type]
  if (storage.count * (storage.type ? size : 1) !== span.bytes)
    throw fail(`its storage should hold ${storage.count} values of ${size} bytes but has ${span.bytes} bytes`)
  const count = countElements(shape)
  const strided = !isContiguous(shape, stride)
  const reach = strided ? shape.reduce((last, n, i) => last + (n - 1) * stride[i]!, 1) : count
  // The reference reads these too, but such a file may claim any size, and no checkpoint has one.
  if (shape.some((n, i) => n > 1 && stride[i] === 0))
    throw fail(`it repeats values (shape [${shape}], strides [${stride}]); save it with .contiguous()`)
  if (count === undefined || Math.max(reach!, count) + storageOffset > span.bytes / size)
    throw fail(
      `shape [${shape}] with strides [${stride}] from element ${storageOffset} does not fit its storage of ` +
        `${span.bytes / size}`,
    )
  const tensor = {
    name,
    path: file.path,
    stamp: file.stamp,
    offset: span.offset + storageOffset * size,
    bytes: reach! * size,
    type,
    shape,
  }
  return strided ? { ...tensor, stride: shape.map((n, i) => (n === 1 ? 1 : stride[i]!)) } : tensor
}

/** Row-major without gaps. The stride of a dimension of size 1 is never used, so torch leaves anything there. */
function isContiguous(shape: number[], stride: number[]): boolean {
  if (shape.includes(0)) return true
  let expected = 1
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && stride[i] !== expected) return false
    expected *= shape[i]!
  }
  return true
}

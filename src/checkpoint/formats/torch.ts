// Reader of PyTorch .bin files in the zip form that torch.save has written since version 1.6. Some published
// checkpoints, the depth ControlNet among them, have no other form.
//
// The archive "<root>/data.pkl" describes the tensors, "<root>/data/<key>" holds each storage as raw bytes and
// "<root>/byteorder" says how they are ordered. Source: torch/serialization.py (_save, _load).
import { resolve } from 'node:path'
import { badFile, fileKind, KIND_NAMES, SourceFile } from './file.js'
import { type PickledTensor, unpickleTensors } from './pickle.js'
import { countElements, ELEMENT_BYTES, type StoredTensor } from './stored.js'
import { readZip, type ZipEntry } from './zip.js'

/** Kandinsky's largest description (1100 tensors) takes about 150 KB. */
const MAX_PICKLE_BYTES = 16 << 20

/**
 * Lists the tensors of one file. Reads the archive's directory and description only, and executes nothing.
 * @throws KandinskyError `FILE_NOT_FOUND`, or `BAD_FILE` for anything that is not a state dict in zip form
 */
export function readTorch(path: string): Promise<StoredTensor[]> {
  return SourceFile.with(resolve(path), async (file) => {
    const kind = await fileKind(file)
    if (kind !== 'torch-zip')
      throw badFile(
        file.path,
        `is not a zip archive as torch.save writes it but ${KIND_NAMES[kind]}` +
          (kind === 'pickle'
            ? '; use a .safetensors version, or load it where you trust it and torch.save it again'
            : ''),
      )
    const archive = await readZip(file)
    const root = findRoot(archive, file)
    await checkByteOrder(archive.get(`${root}/byteorder`), file)
    const description = archive.get(`${root}/data.pkl`)!
    if (description.bytes > MAX_PICKLE_BYTES) throw badFile(file.path, `has a data.pkl of ${description.bytes} bytes`)
    const tensors = unpickleTensors(await file.read(description.offset, description.bytes), file.path)
    return [...tensors].map(([name, tensor]) => toStored(name, tensor, archive, root, file))
  })
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
  { storage, storageOffset, shape, stride }: PickledTensor,
  archive: Map<string, ZipEntry>,
  root: string,
  file: SourceFile,
): StoredTensor {
  const fail = (problem: string) => badFile(file.path, `has a bad tensor "${name}": ${problem}`)
  const entry = archive.get(`${root}/data/${storage.key}`)
  if (!entry) throw fail(`its storage ${JSON.stringify(storage.key)} is missing`)
  const size = ELEMENT_BYTES[storage.type]
  if (storage.count * size !== entry.bytes)
    throw fail(`its storage should hold ${storage.count} values of ${size} bytes but has ${entry.bytes} bytes`)
  const count = countElements(shape)
  if (count === undefined || storageOffset + count > storage.count)
    throw fail(`shape [${shape}] from element ${storageOffset} does not fit its storage of ${storage.count}`)
  if (!isContiguous(shape, stride))
    throw fail(`it is a strided view (shape [${shape}], strides [${stride}]); save it with .contiguous()`)
  const offset = entry.offset + storageOffset * size
  return { name, path: file.path, offset, bytes: count * size, type: storage.type, shape }
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

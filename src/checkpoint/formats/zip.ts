// Directory of a zip archive whose entries are stored, not compressed, as torch.save writes it. Nothing is extracted:
// the result says where each entry's bytes lie, so that weights can be read or mapped in place.
// Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 (layout) and 4.5.3 (zip64).
import { badFile } from '../../files.js'
import { isRange, type SourceFile } from './file.js'

/** Where an entry's bytes lie in the archive. */
export interface ZipEntry {
  name: string
  offset: number
  bytes: number
}

interface Directory {
  offset: number
  bytes: number
  entries: number
}

const END = { signature: 0x06054b50, bytes: 22, maxComment: 0xffff }
const END64_LOCATOR = { signature: 0x07064b50, bytes: 20 }
const END64 = { signature: 0x06064b50, bytes: 56 }
const CENTRAL = { signature: 0x02014b50, bytes: 46 }
const LOCAL = { signature: 0x04034b50, bytes: 30 }
const ZIP64_EXTRA = 1
const FLAG_ENCRYPTED = 1
/** Far above any checkpoint (Kandinsky 3 has about 1100 tensors), low enough to hold the directory in memory. */
const MAX_ENTRIES = 100_000
const MAX_DIRECTORY_BYTES = 32 << 20

/** Lists the entries by name. @throws KandinskyError `BAD_FILE` */
export async function readZip(file: SourceFile): Promise<Map<string, ZipEntry>> {
  const directory = await findDirectory(file)
  if (directory.entries > MAX_ENTRIES || directory.bytes > MAX_DIRECTORY_BYTES)
    throw badFile(file.path, `is a zip archive of ${directory.entries} entries; at most ${MAX_ENTRIES} are read`)
  const headers = centralHeaders(file, await file.read(directory.offset, directory.bytes), directory.entries)
  const entries = new Map<string, ZipEntry>()
  // In the order of the file, where the end of one entry bounds the next: entries that share bytes are an attack.
  let end = 0
  for (const header of headers.sort((a, b) => a.localOffset - b.localOffset)) {
    if (header.localOffset < end) throw badFile(file.path, `is a zip archive with overlapping entries (${header.name})`)
    const entry = await locate(file, header)
    end = entry.offset + entry.bytes
    if (end > directory.offset) throw badFile(file.path, `is a zip archive whose entry ${entry.name} is cut off`)
    if (entries.has(entry.name)) throw badFile(file.path, `is a zip archive with two entries called ${entry.name}`)
    entries.set(entry.name, entry)
  }
  return entries
}

async function findDirectory(file: SourceFile): Promise<Directory> {
  const tailBytes = Math.min(file.size, END.bytes + END.maxComment)
  const tailStart = file.size - tailBytes
  const tail = await file.read(tailStart, tailBytes)
  let at = tailBytes - END.bytes
  while (
    at >= 0 &&
    !(tail.readUInt32LE(at) === END.signature && at + END.bytes + tail.readUInt16LE(at + 20) === tailBytes)
  )
    at--
  if (at < 0) throw badFile(file.path, 'is a zip archive without a directory; it was probably cut off')
  const plain = {
    entries: tail.readUInt16LE(at + 10),
    bytes: tail.readUInt32LE(at + 12),
    offset: tail.readUInt32LE(at + 16),
  }
  const directory = (await findDirectory64(file, tailStart + at)) ?? plain
  if (!isRange(directory.offset, directory.bytes, tailStart + at))
    throw badFile(file.path, 'is a zip archive whose directory lies outside the file')
  return directory
}

/** The 64-bit directory end, if a locator for one stands before the plain one at `endOffset`. */
async function findDirectory64(file: SourceFile, endOffset: number): Promise<Directory | undefined> {
  if (endOffset < END64_LOCATOR.bytes) return undefined
  const locator = await file.read(endOffset - END64_LOCATOR.bytes, END64_LOCATOR.bytes)
  if (locator.readUInt32LE(0) !== END64_LOCATOR.signature) return undefined
  const record = await file.read(Number(locator.readBigUInt64LE(8)), END64.bytes)
  if (record.readUInt32LE(0) !== END64.signature)
    throw badFile(file.path, 'is a zip archive with a bad zip64 directory end')
  const [entries, bytes, offset] = [32, 40, 48].map((at) => Number(record.readBigUInt64LE(at))) as [
    number,
    number,
    number,
  ]
  return { entries, bytes, offset }
}

interface CentralHeader {
  name: string
  bytes: number
  localOffset: number
}

function centralHeaders(file: SourceFile, directory: Buffer, count: number): CentralHeader[] {
  const headers: CentralHeader[] = []
  let at = 0
  for (let index = 0; index < count; index++) {
    const fixed = directory.subarray(at, at + CENTRAL.bytes)
    if (fixed.length < CENTRAL.bytes || fixed.readUInt32LE(0) !== CENTRAL.signature)
      throw badFile(file.path, `is a zip archive whose directory ends after ${index} of ${count} entries`)
    const nameEnd = at + CENTRAL.bytes + fixed.readUInt16LE(28)
    const extraEnd = nameEnd + fixed.readUInt16LE(30)
    const name = directory.toString('utf8', at + CENTRAL.bytes, nameEnd)
    if (fixed.readUInt16LE(8) & FLAG_ENCRYPTED) throw badFile(file.path, `is an encrypted zip archive (${name})`)
    if (fixed.readUInt16LE(10) !== 0)
      throw badFile(file.path, `is a compressed zip archive (${name}); torch.save stores tensors uncompressed`)
    const sizes = { packed: fixed.readUInt32LE(20), bytes: fixed.readUInt32LE(24), localOffset: fixed.readUInt32LE(42) }
    applyZip64(sizes, directory.subarray(nameEnd, extraEnd))
    if (sizes.packed !== sizes.bytes) throw badFile(file.path, `is a zip archive with two sizes for ${name}`)
    headers.push({ name, bytes: sizes.bytes, localOffset: sizes.localOffset })
    at = extraEnd + fixed.readUInt16LE(32)
  }
  return headers
}

/** Replaces each field that holds the 32-bit "see zip64" mark by its 64-bit value; the order is the format's. */
function applyZip64(sizes: { bytes: number; packed: number; localOffset: number }, extra: Buffer): void {
  for (let at = 0; at + 4 <= extra.length; ) {
    const end = Math.min(at + 4 + extra.readUInt16LE(at + 2), extra.length)
    let value = at + 4
    if (extra.readUInt16LE(at) === ZIP64_EXTRA)
      for (const field of ['bytes', 'packed', 'localOffset'] as const)
        if (sizes[field] === 0xffffffff && value + 8 <= end) {
          sizes[field] = Number(extra.readBigUInt64LE(value))
          value += 8
        }
    at = end
  }
}

/** The local header repeats the name, but its extra field has a length of its own (torch pads to 64 bytes with it). */
async function locate(file: SourceFile, header: CentralHeader): Promise<ZipEntry> {
  const local = await file.read(header.localOffset, LOCAL.bytes)
  if (local.readUInt32LE(0) !== LOCAL.signature)
    throw badFile(file.path, `is a zip archive whose directory points nowhere for ${header.name}`)
  const nameBytes = local.readUInt16LE(26)
  const name = (await file.read(header.localOffset + LOCAL.bytes, nameBytes)).toString('utf8')
  if (name !== header.name) throw badFile(file.path, `is a zip archive with two names for ${header.name}`)
  const offset = header.localOffset + LOCAL.bytes + nameBytes + local.readUInt16LE(28)
  if (!isRange(offset, header.bytes, file.size))
    throw badFile(file.path, `is a zip archive whose entry ${header.name} is cut off`)
  return { name, offset, bytes: header.bytes }
}

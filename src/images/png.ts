// Text chunks of PNG files (PNG specification, third edition, 11.3.3): sharp cannot write them (lovell/sharp issue 3549).
// Reading trusts nothing: lengths, checksums, encodings and the size of what is inflated are checked.
import { crc32, inflateSync } from 'node:zlib'
import { KandinskyError } from '../errors.js'

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a)
/** in bytes; far above any prompt, far below what hurts */
const MAX_TEXT = 16 * 2 ** 20

export interface PngText {
  /** 1 to 79 Latin-1 characters */
  keyword: string
  /** without U+0000 */
  text: string
}

interface Chunk {
  type: string
  data: Buffer
  /** position behind the chunk */
  end: number
}

/**
 * A copy of a PNG file with text chunks behind its header, where other programs look for them: `tEXt` where Latin-1
 * can hold the text, else `iTXt`.
 *
 * @throws KandinskyError `BAD_FILE` if the file does not start as a PNG file
 */
export function insertTextChunks(png: Uint8Array, texts: readonly PngText[]): Uint8Array {
  const file = asBuffer(png)
  const header = nextChunk(file, signatureEnd(file))
  const chunks = texts.map(({ keyword, text }) => textChunk(keyword, text))
  return Buffer.concat([file.subarray(0, header.end), ...chunks, file.subarray(header.end)])
}

/**
 * The first text with a keyword, whatever kind of text chunk holds it; undefined if there is none.
 *
 * @throws KandinskyError `BAD_FILE` for what is no intact PNG file, for a malformed text and for one above 16 MiB
 */
export function readTextChunk(png: Uint8Array, keyword: string): string | undefined {
  const file = asBuffer(png)
  let found: string | undefined
  for (let position = signatureEnd(file); ; ) {
    const chunk = nextChunk(file, position)
    if (position === SIGNATURE.length && chunk.type !== 'IHDR') throw bad('a header first', `${chunk.type}`)
    if (chunk.type === 'IEND') return found
    if (['tEXt', 'zTXt', 'iTXt'].includes(chunk.type) && startsWith(chunk.data, keyword)) found ??= decodeText(chunk)
    position = chunk.end
  }
}

function signatureEnd(file: Buffer): number {
  if (!file.subarray(0, SIGNATURE.length).equals(SIGNATURE)) throw bad('the PNG signature', 'other bytes')
  return SIGNATURE.length
}

function nextChunk(file: Buffer, position: number): Chunk {
  if (file.length - position < 12) throw bad('another chunk', `the end of the file at byte ${file.length}`)
  const length = file.readUInt32BE(position)
  if (length > file.length - position - 12)
    throw bad(`at most ${file.length - position - 12} bytes in the chunk at byte ${position}`, `${length}`)
  const type = file.toString('latin1', position + 4, position + 8)
  const end = position + 12 + length
  if (crc32(file.subarray(position + 4, end - 4)) !== file.readUInt32BE(end - 4))
    throw bad(`a matching checksum of the chunk at byte ${position}`, 'another one')
  return { type, data: file.subarray(position + 8, end - 4), end }
}

function textChunk(keyword: string, text: string): Buffer {
  const clean = text.replaceAll('\0', '')
  const latin1 = /^[\0-\xff]*$/.test(clean)
  // keyword, separator; for iTXt: uncompressed, method 0, no language, no translated keyword
  const data = latin1
    ? Buffer.from(`${keyword}\0${clean}`, 'latin1')
    : Buffer.concat([Buffer.from(`${keyword}\0\0\0\0\0`, 'latin1'), Buffer.from(clean, 'utf8')])
  const chunk = Buffer.alloc(data.length + 12)
  chunk.writeUInt32BE(data.length)
  chunk.write(latin1 ? 'tEXt' : 'iTXt', 4, 'latin1')
  data.copy(chunk, 8)
  chunk.writeUInt32BE(crc32(chunk.subarray(4, -4)), chunk.length - 4)
  return chunk
}

function startsWith(data: Buffer, keyword: string): boolean {
  const key = Buffer.from(`${keyword}\0`, 'latin1')
  return data.subarray(0, key.length).equals(key)
}

function decodeText({ type, data }: Chunk): string {
  let rest = afterNull(data)
  if (type === 'tEXt') return limited(rest).toString('latin1')
  // zTXt: method; iTXt: compression flag, method, language, translated keyword
  const compressed = type === 'zTXt' || rest[0] === 1
  const method = rest[type === 'zTXt' ? 0 : 1]
  if (method === undefined || (compressed && method !== 0))
    throw bad('deflate compression of a text', `method ${method}`)
  rest = type === 'zTXt' ? rest.subarray(1) : afterNull(afterNull(rest.subarray(2)))
  const bytes = compressed ? inflate(rest) : limited(rest)
  if (type === 'zTXt') return bytes.toString('latin1')
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (error) {
    throw bad('UTF-8 in an iTXt chunk', 'other bytes', error)
  }
}

function afterNull(data: Buffer): Buffer {
  const end = data.indexOf(0)
  if (end < 0) throw bad('a null byte within a text chunk', 'none')
  return data.subarray(end + 1)
}

function limited(data: Buffer): Buffer {
  if (data.length > MAX_TEXT) throw bad(`a text of at most ${MAX_TEXT} bytes`, `${data.length}`)
  return data
}

function inflate(data: Buffer): Buffer {
  try {
    return inflateSync(data, { maxOutputLength: MAX_TEXT })
  } catch (error) {
    throw bad(`a compressed text of at most ${MAX_TEXT} bytes`, (error as Error).message, error)
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function bad(expected: string, value: string, cause?: unknown): KandinskyError {
  return new KandinskyError('BAD_FILE', `Expected ${expected} in a PNG file but received ${value}`, { cause })
}

// The one way in which files are opened to be read: whatever lies at a path, nothing waits for it and nothing is without a
// limit. A named pipe or a device at the place of a file would otherwise hold a thread of the pool until the process ends.
// And the one in which small files are written.
import { randomUUID } from 'node:crypto'
import { type BigIntStats, constants } from 'node:fs'
import { type FileHandle, open, rename, rm, writeFile } from 'node:fs/promises'
import { KandinskyError } from './errors.js'

/** Opening a named pipe waits for a writer without it; regular files do not care. Windows has none. */
const NO_WAIT = constants.O_NONBLOCK ?? 0

/**
 * Opens a regular file, hands it to `use` and closes it whatever happens.
 * @throws KandinskyError `FILE_NOT_FOUND`, or `BAD_FILE` if it is no regular file or cannot be opened
 */
export async function withFile<T>(
  path: string,
  use: (handle: FileHandle, stat: BigIntStats) => Promise<T>,
): Promise<T> {
  const handle = await open(path, constants.O_RDONLY | NO_WAIT).catch((cause) => {
    throw fileError(path, cause)
  })
  try {
    const stat = await handle.stat({ bigint: true })
    if (!stat.isFile()) throw badFile(path, 'is not a regular file')
    return await use(handle, stat)
  } finally {
    await handle.close()
  }
}

/**
 * All bytes of a file.
 * @param limit in bytes
 * @throws KandinskyError `FILE_NOT_FOUND`, or `BAD_FILE` for one that is larger, no regular file or cannot be read
 */
export function readBytesOf(path: string, limit: number, signal?: AbortSignal): Promise<Buffer> {
  return withFile(path, async (handle, { size }) => {
    if (size > limit) throw badFile(path, `has ${size} bytes; at most ${limit} are read`)
    try {
      return await readAt(handle, 0, Number(size), path, signal)
    } catch (cause) {
      signal?.throwIfAborted()
      throw cause instanceof KandinskyError ? cause : fileError(path, cause)
    }
  })
}

/** The largest text of a model, XLM-R's tokenizer.json, has 9 MB. Our GGUF reader takes as much as one string. */
export const MAX_TEXT_BYTES = 16 << 20

/** The text of a small file. @throws KandinskyError as `readBytesOf` */
export async function readTextOf(path: string): Promise<string> {
  return (await readBytesOf(path, MAX_TEXT_BYTES)).toString('utf8')
}

/** Small enough that an abort is noticed soon on a slow disk. */
const READ_BYTES = 16 << 20

/** Exactly `length` bytes from `offset`. @throws KandinskyError `BAD_FILE` if the file has become shorter */
export async function readAt(
  handle: FileHandle,
  offset: number,
  length: number,
  path: string,
  signal?: AbortSignal,
): Promise<Buffer> {
  const buffer = Buffer.alloc(length)
  for (let done = 0; done < length; ) {
    signal?.throwIfAborted()
    const { bytesRead } = await handle.read(buffer, done, Math.min(length - done, READ_BYTES), offset + done)
    if (bytesRead === 0) throw badFile(path, 'became shorter while it was read')
    done += bytesRead
  }
  return buffer
}

/** The error for a file whose content cannot be used: "{path} {problem}". */
export function badFile(path: string, problem: string, options?: ErrorOptions): KandinskyError {
  return new KandinskyError('BAD_FILE', `${path} ${readable(problem)}`, options)
}

const MAX_PROBLEM = 600

/** Names from files can be megabytes long and move the cursor of a terminal. */
function readable(text: string): string {
  const escaped = text
    .slice(0, MAX_PROBLEM)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not reach a terminal
    .replace(/[\x00-\x1f\x7f-\x9f]/g, (control) => `\\x${control.charCodeAt(0).toString(16).padStart(2, '0')}`)
  return text.length > MAX_PROBLEM ? `${escaped}…` : escaped
}

/** The error for a file that the operating system does not let us read. */
export function fileError(path: string, cause: unknown): KandinskyError {
  const code = (cause as NodeJS.ErrnoException).code
  if (code === 'ENOENT' || code === 'ENOTDIR')
    return new KandinskyError('FILE_NOT_FOUND', `${path} does not exist`, { cause })
  return badFile(path, `cannot be read (${code ?? cause})`, { cause })
}

/** Writes a file so that others see the whole of it or what was there before: beside it under a name nobody has, then renamed. */
export async function writeWhole(file: string, bytes: Uint8Array | string): Promise<void> {
  const beside = `${file}.${randomUUID()}.tmp`
  try {
    await writeFile(beside, bytes, { flag: 'wx' })
    await rename(beside, file)
  } catch (error) {
    await rm(beside, { force: true }).catch(() => {}) // where there can be no such file either, rm says so
    throw error
  }
}

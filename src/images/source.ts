// Bytes of files, URLs and buffers, with limits: a source may be hostile, slow or endless.
import { fileURLToPath } from 'node:url'
import { invalid, KandinskyError, withoutSecrets } from '../errors.js'
import { readBytesOf } from '../files.js'
import { firstOf, isArrayBuffer, isError, isUint8Array, isUrl } from '../realms.js'
import { isNoPath } from './kinds.js'

/** in bytes: a TIFF file of 64 megapixels still passes */
const MAX_BYTES = 256 * 2 ** 20
const MAX_REDIRECTS = 5
const HTTP_TIMEOUT_MS = 60_000

/** A path, a URL (http, https, data, file; also as string), or the bytes of a file. */
export type ByteSource = string | URL | Uint8Array | ArrayBuffer

/** A name of a source for messages: a URL without user, password, query and data. */
export function describeSource(source: ByteSource): string {
  if (typeof source !== 'string' && !isUrl(source)) return 'the given bytes'
  const name = withoutSecrets(String(source))
  return name.length > 120 ? `${name.slice(0, 120)}…` : name
}

/**
 * @throws KandinskyError `FILE_NOT_FOUND` for what does not exist or does not answer, `BAD_FILE` for what cannot be
 *   read or is above 256 MiB, `INVALID_ARGUMENT` for other sources
 */
export async function readBytes(source: ByteSource, signal?: AbortSignal): Promise<Buffer> {
  signal?.throwIfAborted()
  if (isArrayBuffer(source)) return Buffer.from(source.slice(0))
  // Copied, as the caller may change or detach them while they are decoded.
  if (isUint8Array(source)) return Buffer.from(source)
  expectAllowed(source)
  if (isUrl(source) || (typeof source === 'string' && /^(data|file):|^[a-z][a-z0-9+.-]+:\/\//i.test(source)))
    return readUrl(source, signal)
  if (typeof source !== 'string' || source === '' || source.includes('\0'))
    throw invalid('source', 'a path, a URL, a Buffer, a Uint8Array or an ArrayBuffer', source)
  if (isNoPath(source))
    throw invalid('source', 'a path or a URL (base64 needs "data:image/png;base64," before it)', source)
  return readBytesOf(source, MAX_BYTES, signal)
}

/**
 * What $KANDINSKY_INPUTS allows beside bytes and data URLs: `any`, `files` (no http), or `bytes` (nothing), for programs whose
 * users choose what is read.
 */
function expectAllowed(source: unknown): void {
  const allowed = process.env.KANDINSKY_INPUTS || 'any'
  if (!['any', 'files', 'bytes'].includes(allowed)) throw invalid('KANDINSKY_INPUTS', 'any, files or bytes', allowed)
  const text = String(source)
  if (allowed === 'any' || /^data:/i.test(text)) return
  if (allowed === 'bytes') throw invalid('source', 'bytes or a data URL (KANDINSKY_INPUTS is bytes)', text)
  if (/^https?:/i.test(text)) throw invalid('source', 'a file, bytes or a data URL (KANDINSKY_INPUTS is files)', text)
}

async function readUrl(source: string | URL, signal?: AbortSignal): Promise<Buffer> {
  if (!URL.canParse(String(source))) throw invalid('source', 'a valid URL', '(a URL)')
  const url = new URL(source)
  if (url.protocol === 'file:') return readBytesOf(filePath(url), MAX_BYTES, signal)
  if (url.protocol === 'data:') return readDataUrl(url)
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw invalid('source', 'an http, https, data or file URL', url.protocol)
  // fetch refuses them as well, with a message that shows them.
  if (url.username !== '' || url.password !== '') throw invalid('source', 'a URL without user and password', url.href)
  const timeout = AbortSignal.timeout(HTTP_TIMEOUT_MS)
  try {
    return await download(url, signal ? firstOf([signal, timeout]) : timeout)
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof KandinskyError) throw error
    if (timeout.aborted) throw unreachable(url, `did not answer within ${HTTP_TIMEOUT_MS / 1000} s`)
    const { cause, message } = error as Error
    throw unreachable(url, `could not be fetched: ${isError(cause) ? cause.message : message}`)
  }
}

async function readDataUrl(url: URL): Promise<Buffer> {
  let response: Response
  try {
    response = await fetch(url.href)
  } catch {
    throw invalid('source', 'a valid data URL', withoutSecrets(url.href))
  }
  return readBody(response, describeSource(url))
}

function filePath(url: URL): string {
  try {
    return fileURLToPath(url)
  } catch {
    throw invalid('source', 'a file URL of this machine', withoutSecrets(url.href))
  }
}

/** Follows redirects itself, so that each target is checked. */
async function download(url: URL, signal: AbortSignal): Promise<Buffer> {
  let at = url
  for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
    const response = await fetch(at.href, { redirect: 'manual', signal })
    const location = response.headers.get('location')
    if (response.status >= 300 && response.status < 400 && location !== null) {
      await response.body?.cancel()
      if (!URL.canParse(location, at.href)) throw unreachable(at, 'redirects to what is no URL')
      at = new URL(location, at)
      if (!/^https?:$/.test(at.protocol)) throw unreachable(url, `redirects to a ${at.protocol} URL`)
      continue
    }
    if (!response.ok) {
      await response.body?.cancel()
      throw unreachable(at, `answered ${response.status} ${response.statusText}`.trim())
    }
    return readBody(response, describeSource(at))
  }
  throw unreachable(url, `redirects more than ${MAX_REDIRECTS} times`)
}

async function readBody(response: Response, name: string): Promise<Buffer> {
  checkSize(Number(response.headers.get('content-length') ?? 0), name)
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of response.body ?? []) {
    size += part.length
    checkSize(size, name)
    parts.push(part)
  }
  return Buffer.concat(parts)
}

function checkSize(size: number, name: string): void {
  if (size > MAX_BYTES)
    throw new KandinskyError('BAD_FILE', `Expected at most ${MAX_BYTES} bytes from ${name} but received ${size}`)
}

function unreachable(url: URL, what: string): KandinskyError {
  return new KandinskyError('FILE_NOT_FOUND', `${describeSource(url)} ${what}`)
}

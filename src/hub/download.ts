// Downloads one file over HTTP so that an interruption costs nothing and a wrong byte is noticed: into
// `<path>.incomplete`, resumed with Range, verified against the digest that the hub announced, then renamed.
import { createHash, randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { KandinskyError, withoutSecrets } from '../errors.js'
import { MAX_TEXT_BYTES, readTextOf } from '../files.js'

export interface Download {
  url: string
  /** may hold the token: fetch drops `authorization` when a redirect leads to another origin, such as a CDN */
  headers: Record<string, string>
  /** absolute; where the complete file will be */
  path: string
  /** in bytes */
  size: number
  /**
   * lowercase hex: 64 digits are the content's sha256 (Git LFS), 40 are git's sha1 of the blob; undefined where a server
   * announces none, so that only the size can be checked
   */
  digest: string | undefined
  /** absolute; exists while somebody downloads this file */
  lockPath: string
  /** the error for an answer that no further attempt would change, such as 404 */
  refused: (response: Response) => KandinskyError
  /** bytes of this file that are there */
  onBytes: (done: number) => void
  signal?: AbortSignal | undefined
}

/** Consecutive attempts that bring nothing new. A silent connection counts as lost after fetch's own five minutes. */
const ATTEMPTS = 5
/** Where the cache may do instead, being offline should not cost long. */
const TEXT_ATTEMPTS = 3
const BACKOFF_MS = 500
const MAX_RETRY_AFTER_MS = 60_000
/** Between two calls of `onBytes`. */
const PROGRESS_BYTES = 1 << 20
const LOCK_POLL_MS = 100
/** The owner of a lock touches it this often; one that is four times as old was left behind. */
const LOCK_TOUCH_MS = 5_000

/**
 * Brings the file to `path`, unless it is there already.
 * @throws KandinskyError what `refused` gives; `FILE_NOT_FOUND` if the server stays out of reach; `BAD_FILE` if the
 *   content is not what the digest promises. What has arrived is kept for the next call, also after an abort.
 */
export async function download(job: Download): Promise<void> {
  await mkdir(dirname(job.path), { recursive: true })
  await withLock(job.lockPath, job.signal, async () => {
    if ((await sizeOf(job.path)) === job.size) return
    const partial = `${job.path}.incomplete`
    let arrived = 0
    const onBytes = (done: number) => {
      arrived = done
      job.onBytes(done)
    }
    await retry(
      job.url,
      job.signal,
      ATTEMPTS,
      () => attempt({ ...job, onBytes }, partial),
      () => arrived,
    )
    await rename(partial, job.path).catch(async (error: unknown) => {
      // Whoever took a sleeping process's lock for left behind may have finished meanwhile.
      if ((await sizeOf(job.path)) !== job.size) throw error
    })
  })
}

/** Size of a file in bytes, undefined if there is none. Follows symbolic links. */
export async function sizeOf(path: string): Promise<number | undefined> {
  const found = await stat(path).catch(() => undefined)
  return found?.isFile() ? found.size : undefined
}

/**
 * Sends a GET request and reads the answer as text; waits and repeats where that can help.
 * @returns also answers such as 404; `text` is empty for these
 * @throws KandinskyError `FILE_NOT_FOUND` if the server stays out of reach
 */
export function fetchText(url: string, headers: Record<string, string>, signal?: AbortSignal) {
  return retry(url, signal, TEXT_ATTEMPTS, async () => {
    const response = await send(url, headers, signal)
    const chunks: Uint8Array[] = []
    let bytes = 0
    if (response.ok)
      for await (const chunk of bodyOf(response)) {
        bytes += chunk.length
        if (bytes > MAX_TEXT_BYTES)
          throw new KandinskyError(
            'BAD_FILE',
            `${withoutSecrets(url)} answered with more than ${MAX_TEXT_BYTES} bytes; a listing is far smaller`,
          )
        chunks.push(chunk)
      }
    else await response.body?.cancel()
    return { response, text: Buffer.concat(chunks).toString('utf8') }
  })
}

/**
 * The first bytes of a file, as many as `wanted` asks for: it is called with what is there until it asks for no more.
 * @throws KandinskyError what `refused` gives; `FILE_NOT_FOUND` if the server stays out of reach; `BAD_FILE` if the file
 *   ends before
 */
export function fetchStart(
  { url, headers, refused, signal }: Pick<Download, 'url' | 'headers' | 'refused' | 'signal'>,
  wanted: (start: Buffer) => number,
): Promise<Buffer> {
  return retry(url, signal, ATTEMPTS, async () => {
    const response = await send(url, headers, signal)
    if (response.status !== 200) {
      await response.body?.cancel()
      throw refused(response)
    }
    let start = Buffer.alloc(0)
    // Leaving the loop ends the transfer.
    for await (const chunk of bodyOf(response)) {
      start = Buffer.concat([start, chunk])
      if (start.length >= wanted(start)) return start.subarray(0, wanted(start))
    }
    throw new KandinskyError('BAD_FILE', `${withoutSecrets(url)} ends after ${start.length} bytes`)
  })
}

/** The size of what a server offers without announcing more, and what tells its versions apart. */
export async function fetchHead(
  url: string,
  signal?: AbortSignal,
): Promise<{ response: Response; size: number | undefined; version: string }> {
  return retry(url, signal, TEXT_ATTEMPTS, async () => {
    const response = await send(url, {}, signal)
    await response.body?.cancel()
    const length = Number(response.headers.get('content-length') ?? Number.NaN)
    const version = response.headers.get('etag') ?? response.headers.get('last-modified') ?? ''
    return { response, size: Number.isSafeInteger(length) ? length : undefined, version }
  })
}

/** A failure that another attempt may not meet. */
class Interrupted extends Error {
  constructor(
    message: string,
    readonly waitMs?: number,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}

/** Repeats `run` after interruptions, up to `attempts` times in a row without `arrived` (in bytes) having grown. */
async function retry<T>(
  url: string,
  signal: AbortSignal | undefined,
  attempts: number,
  run: () => Promise<T>,
  arrived = () => 0,
): Promise<T> {
  let failures = 0
  let furthest = 0
  while (true) {
    try {
      return await run()
    } catch (error) {
      signal?.throwIfAborted()
      if (!(error instanceof Interrupted)) throw error
      failures = arrived() > furthest ? 1 : failures + 1
      furthest = Math.max(furthest, arrived())
      if (failures >= attempts)
        throw new KandinskyError('FILE_NOT_FOUND', `${withoutSecrets(url)} cannot be downloaded: ${error.message}`, {
          cause: error,
        })
      const waitMs = error.waitMs ?? BACKOFF_MS * 2 ** (failures - 1)
      await sleep(waitMs, undefined, { signal }).catch(() => signal?.throwIfAborted())
    }
  }
}

async function send(url: string, headers: Record<string, string>, signal?: AbortSignal): Promise<Response> {
  // Without "identity" a server may compress, and byte positions would mean something else.
  const init = { headers: { ...headers, 'accept-encoding': 'identity' }, signal: signal ?? null }
  const response = await fetch(url, init).catch((cause) => {
    throw new Interrupted(reasonOf(cause), undefined, { cause })
  })
  const { status } = response
  if (status !== 408 && status !== 429 && status < 500) return response
  await response.body?.cancel()
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN)
  const waitMs = Number.isNaN(seconds) ? undefined : Math.min(Math.max(seconds, 0) * 1000, MAX_RETRY_AFTER_MS)
  throw new Interrupted(`the server answered ${status}`, waitMs)
}

/** The chunks of a body; a lost connection is told apart from errors of the consumer. */
async function* bodyOf(response: Response): AsyncGenerator<Uint8Array> {
  try {
    if (response.body) yield* response.body
  } catch (cause) {
    throw new Interrupted(reasonOf(cause), undefined, { cause })
  }
}

/** fetch hides what happened in `cause`. */
function reasonOf(error: unknown): string {
  const { cause } = error as { cause?: { code?: string; message?: string } }
  return [cause?.message || String(error), cause?.code && !cause.message?.includes(cause.code) ? cause.code : '']
    .filter(Boolean)
    .join(' ')
}

/** Continues the partial file as far as the connection lasts; returns when it is complete and verified. */
async function attempt(job: Download, partial: string): Promise<void> {
  const file = await open(partial, constants.O_RDWR | constants.O_CREAT | (constants.O_NONBLOCK ?? 0))
  try {
    const { size: kept } = await file.stat()
    if (kept > job.size) await restart(file, `${partial} was larger than the file`)
    const hash = createHash(job.digest?.length === 40 ? 'sha1' : 'sha256')
    if (job.digest?.length === 40) hash.update(`blob ${job.size}\0`)
    if (kept > 0)
      for await (const chunk of file.createReadStream({ start: 0, end: kept - 1, autoClose: false })) {
        job.signal?.throwIfAborted()
        hash.update(chunk)
      }
    job.onBytes(kept)
    if (kept < job.size) await receive(job, file, kept, hash)
    if (job.digest !== undefined && hash.digest('hex') !== job.digest) {
      // The kept part may come from elsewhere (another program, a crash): only a download in one go is conclusive.
      if (kept > 0) await restart(file, 'the resumed file failed its checksum')
      await file.truncate(0)
      throw new KandinskyError(
        'BAD_FILE',
        `${withoutSecrets(job.url)} is damaged: what arrived does not have the checksum ${job.digest} that the hub announces`,
      )
    }
    await file.datasync()
  } finally {
    await file.close()
  }
}

async function restart(file: FileHandle, why: string): Promise<never> {
  await file.truncate(0)
  throw new Interrupted(why, 0)
}

async function receive(job: Download, file: FileHandle, kept: number, hash: ReturnType<typeof createHash>) {
  const headers = kept > 0 ? { ...job.headers, range: `bytes=${kept}-` } : job.headers
  const response = await send(job.url, headers, job.signal)
  const expected = kept > 0 ? 206 : 200
  if (response.status !== expected || (kept > 0 && !continues(response, kept))) {
    await response.body?.cancel()
    if (kept > 0 && (response.ok || response.status === 416)) await restart(file, 'the server does not resume')
    throw job.refused(response)
  }
  let done = kept
  let reported = kept
  try {
    for await (const chunk of bodyOf(response)) {
      if (done + chunk.length > job.size)
        throw new KandinskyError(
          'BAD_FILE',
          `${withoutSecrets(job.url)} is longer than the ${job.size} bytes that the hub announces`,
        )
      hash.update(chunk)
      // At explicit positions: should two writers ever meet, they write the same bytes to the same places.
      for (let written = 0; written < chunk.length; )
        written += (await file.write(chunk, written, chunk.length - written, done + written)).bytesWritten
      done += chunk.length
      if (done - reported < PROGRESS_BYTES) continue
      reported = done
      job.onBytes(done)
    }
  } finally {
    job.onBytes(done)
  }
  if (done < job.size) throw new Interrupted(`the connection ended after ${done} of ${job.size} bytes`)
}

function continues(response: Response, position: number): boolean {
  return response.headers.get('content-range')?.startsWith(`bytes ${position}-`) ?? false
}

/** Runs `work` while holding a lock file, which keeps out other processes and other calls of this one. */
export async function withLock<T>(path: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  await mkdir(dirname(path), { recursive: true })
  const owner = `${process.pid} ${randomUUID()} ${hostname()}`
  while (!(await tryLock(path, owner)))
    await sleep(LOCK_POLL_MS, undefined, { signal }).catch(() => signal?.throwIfAborted())
  const touch = () => utimes(path, new Date(), new Date()).catch(() => {})
  const timer = setInterval(touch, LOCK_TOUCH_MS)
  try {
    return await work()
  } finally {
    clearInterval(timer)
    await rm(path, { force: true })
  }
}

async function tryLock(path: string, owner: string): Promise<boolean> {
  try {
    await writeFile(path, owner, { flag: 'wx' })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  if (await isStale(path)) await rm(path, { force: true })
  return false
}

/** The age decides, since caches are shared between machines and containers; a dead process here is known at once. */
async function isStale(path: string): Promise<boolean> {
  const [text, info] = await Promise.all([readTextOf(path).catch(() => ''), stat(path).catch(() => undefined)])
  if (!info) return false
  if (Date.now() - info.mtimeMs > 4 * LOCK_TOUCH_MS) return true
  const [pid, , host] = text.split(' ')
  return host === hostname() && !isRunning(Number(pid))
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

// A repository in a folder of its own, where its weights lie as headers until they are needed: enough to know every
// tensor, and to take the repository apart file by file in little disk space. `@huggingface/hub` and the cache of Python's
// library (cache.ts) only know whole repositories.
import { mkdir, open, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { KandinskyError, withoutSecrets } from '../errors.js'
import { readTextOf } from '../files.js'
import { type Listing, list, type Repository, refused } from './api.js'
import { linkFile } from './cache.js'
import { type Download, download, fetchHead, fetchStart, sizeOf } from './download.js'
import { chooseFiles, type Wanted } from './files.js'
import { isSet } from './paths.js'

/** Bytes of a file. */
export interface Range {
  offset: number
  bytes: number
}

/** A file of weights; until it is fetched, and again after its release, there is only its header. */
export interface StagedFile {
  /** absolute */
  path: string
  /** in bytes */
  size: number
  /** Brings the whole file. @param onBytes bytes of it that are there */
  fetch(onBytes: (done: number) => void): Promise<void>
  /** Frees the disk space of these tensors; everything else of the file stays, so that it can be opened again. */
  release(tensors: readonly Range[]): Promise<void>
}

/** What a source consists of; nothing large has been fetched. */
export interface Staging {
  /** a commit, or what else tells versions apart */
  version: string
  /** the text of the model card */
  readme: string
  /** the one .gguf file that is all of it; undefined for a folder in the diffusers layout */
  model: StagedFile | undefined
  weights: StagedFile[]
  /** Makes the folder that opens as a checkpoint, once what has no readable header has been fetched. */
  stage(): Promise<string>
}

const WEIGHTS = /\.(safetensors|bin|pt|gguf)$/i
/** The limit of the format, in bytes. */
const MAX_HEADER_BYTES = 100_000_000

/**
 * @param folder where its files shall lie; absolute
 * @param isWanted whether a file is, by its path in the repository
 * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`
 */
export async function stageRepository(
  repo: Repository,
  wanted: Wanted,
  folder: string,
  isWanted: (name: string) => boolean,
): Promise<Staging> {
  if (isSet('HF_HUB_OFFLINE'))
    throw new KandinskyError('FILE_NOT_FOUND', `HF_HUB_OFFLINE is set, so ${repo.id} is not downloaded`)
  const listing = await list(repo)
  if (listing instanceof Error) throw listing
  const fileOf = (name: string) => new RepositoryFile(repo, listing, name, join(folder, name))
  const obtain = async (name: string) => {
    await fileOf(name).fetch(() => {})
    return join(folder, name)
  }
  const { files, model } = await chooseFiles([...listing.files.keys()], wanted, obtain)
  const needed = files.filter(isWanted)
  const weights = needed.filter((name) => WEIGHTS.test(name)).map(fileOf)
  const texts = needed.filter((name) => !WEIGHTS.test(name))
  for (const name of texts) await obtain(name)
  return {
    version: listing.commit,
    readme: texts.includes('README.md') ? await readTextOf(join(folder, 'README.md')) : '',
    model: model === '' ? undefined : weights[0],
    weights,
    async stage() {
      for (const file of weights) if (!(await file.makeHeader())) await file.fetch(() => {})
      return folder
    },
  }
}

class RepositoryFile implements StagedFile {
  readonly size: number
  readonly #digest: string
  readonly #source: Pick<Download, 'url' | 'headers' | 'refused' | 'signal'>
  /** in the cache that is shared with Python's library; whoever has the file there needs no second copy */
  readonly #cached: string

  constructor(
    repo: Repository,
    { commit, files }: Listing,
    name: string,
    readonly path: string,
  ) {
    const { size, digest } = files.get(name)!
    this.size = size
    this.#digest = digest
    this.#cached = join(repo.folder, 'blobs', digest)
    this.#source = {
      url: `${repo.endpoint}/${repo.id}/resolve/${commit}/${name.split('/').map(encodeURIComponent).join('/')}`,
      headers: repo.headers,
      refused: (response) => refused(repo, response),
      signal: repo.signal,
    }
  }

  async fetch(onBytes: (done: number) => void): Promise<void> {
    const cached = (await sizeOf(this.#cached)) === this.size
    const blob = cached ? this.#cached : this.#beside('')
    if (!cached)
      await download({
        ...{ ...this.#source, onBytes },
        ...{ path: blob, size: this.size, digest: this.#digest, lockPath: this.#beside('.lock') },
      })
    onBytes(this.size)
    await rm(this.path, { force: true })
    await linkFile({ path: this.path, blob, size: this.size })
  }

  async release(tensors: readonly Range[]): Promise<void> {
    await copyWithout(this.path, this.#beside('.header'), tensors)
    await rename(this.#beside('.header'), this.path)
    await rm(this.#beside(''), { force: true })
  }

  /** Puts a header with nothing behind it in the file's place. @returns false for formats whose header is elsewhere */
  async makeHeader(): Promise<boolean> {
    if ((await sizeOf(this.path)) === this.size) return true
    if (!this.path.endsWith('.safetensors')) return false
    const header = await fetchStart(this.#source, headerBytes)
    await mkdir(dirname(this.path), { recursive: true })
    await writeFile(this.#beside('.header'), header)
    await truncate(this.#beside('.header'), this.size)
    await rename(this.#beside('.header'), this.path)
    return true
  }

  /** A hidden name, which nobody takes for a part of the model. */
  #beside(ending: string): string {
    return join(dirname(this.path), `.${this.#digest}${ending}`)
  }
}

/** A .gguf file on any server, which announces a size and perhaps a version, but no checksum. */
export async function stageUrl(url: string, folder: string, signal?: AbortSignal): Promise<Staging> {
  const refuse = ({ status }: Response) =>
    new KandinskyError('FILE_NOT_FOUND', `${withoutSecrets(url)} cannot be downloaded (${status})`)
  const { response, size, version } = await fetchHead(url, signal)
  if (!response.ok) throw refuse(response)
  if (size === undefined)
    throw new KandinskyError('BAD_FILE', `${withoutSecrets(url)} cannot be downloaded: its size is not announced`)
  const path = join(folder, 'model.gguf')
  const file: StagedFile = {
    path,
    size,
    fetch: (onBytes) =>
      download({
        ...{ url, headers: {}, path, size, digest: undefined, signal, onBytes },
        lockPath: `${path}.lock`,
        refused: refuse,
      }),
    async release() {
      for (const each of [path, `${path}.incomplete`]) await rm(each, { force: true })
    },
  }
  return { version: `${version} ${size}`, readme: '', model: file, weights: [file], stage: async () => folder }
}

/** Copies a file with holes for these ranges, which take no disk space. */
async function copyWithout(from: string, to: string, holes: readonly Range[]): Promise<void> {
  const [source, target] = [await open(from, 'r'), await open(to, 'w')]
  try {
    const { size } = await source.stat()
    await target.truncate(size)
    let position = 0
    for (const { offset, bytes } of [...holes, { offset: size, bytes: 0 }].sort((a, b) => a.offset - b.offset)) {
      for (const end = Math.max(offset, position); position < end; ) {
        const { buffer, bytesRead } = await source.read(
          Buffer.alloc(Math.min(end - position, 1 << 20)),
          0,
          null,
          position,
        )
        if (bytesRead === 0) return
        await target.write(buffer, 0, bytesRead, position)
        position += bytesRead
      }
      position = Math.max(position, offset + bytes)
    }
  } finally {
    await source.close()
    await target.close()
  }
}

/** How much of a safetensors file its header takes, as far as what is there says. */
function headerBytes(start: Buffer): number {
  if (start.length < 8) return 8
  const length = Number(start.readBigUInt64LE(0))
  if (length > MAX_HEADER_BYTES) return start.length // the reader says what is wrong with it
  return 8 + length
}

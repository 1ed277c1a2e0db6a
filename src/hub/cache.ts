// The cache is the one that Python's huggingface_hub keeps, so that both find each other's files:
//   models--{owner}--{name}/blobs/{digest}              contents, named by sha256 (Git LFS) or git's sha1
//   models--{owner}--{name}/snapshots/{commit}/{path}   links to them
//   models--{owner}--{name}/refs/{revision}             the commit that a branch or tag stood for
// A snapshot's links and its ref are written when every file is there: what a ref names is complete.
import { copyFile, link, mkdir, rm, statfs, symlink } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { listTree } from '../checkpoint/formats/file.js'
import { KandinskyError } from '../errors.js'
import { readTextOf, writeWhole } from '../files.js'
import { COMMIT, type HubOptions, type Listing, list, type Repository, refused } from './api.js'
import { download, sizeOf } from './download.js'
import { chooseFiles, type Wanted } from './files.js'
import { exists, isSet } from './paths.js'

export async function resolveRepository(
  repo: Repository,
  wanted: Wanted,
  onProgress: HubOptions['onProgress'],
): Promise<string> {
  const listing = isSet('HF_HUB_OFFLINE') ? undefined : await list(repo)
  if (listing && !(listing instanceof Error)) return downloadSnapshot(repo, listing, wanted, onProgress)
  const reason = listing?.message ?? 'HF_HUB_OFFLINE is set, so nothing is downloaded'
  return openSnapshot(repo, wanted).catch((cause: unknown) => {
    if (!(cause instanceof KandinskyError)) throw cause
    const advice = `Load ${repo.id} once with a connection, or pass the path of a copy`
    throw new KandinskyError('FILE_NOT_FOUND', `${reason}. In the cache, ${cause.message}. ${advice}`, { cause })
  })
}

/** What the cache holds, if that is all that is needed. */
async function openSnapshot({ id, revision, folder }: Repository, wanted: Wanted): Promise<string> {
  const ref = COMMIT.test(revision) ? revision : await readTextOf(join(folder, 'refs', revision)).catch(() => '')
  const snapshot = join(folder, 'snapshots', ref.trim())
  if (!COMMIT.test(ref.trim()) || !(await exists(snapshot)))
    throw new KandinskyError('FILE_NOT_FOUND', `${dirname(folder)}, there is no ${id} of revision ${revision}`)
  const entries = await listTree(snapshot)
  const sizes = await Promise.all(entries.map((name) => sizeOf(join(snapshot, name))))
  const names = entries.filter((_, i) => sizes[i] !== undefined)
  const { model } = await chooseFiles(names, wanted, async (name) => join(snapshot, name))
  return join(snapshot, model)
}

async function downloadSnapshot(
  repo: Repository,
  { commit, files }: Listing,
  wanted: Wanted,
  onProgress: HubOptions['onProgress'],
): Promise<string> {
  const entries = new Map(
    [...files].map(([name, { size, digest }]): [string, Entry] => {
      const [path, blob] = [join(repo.folder, 'snapshots', commit, name), join(repo.folder, 'blobs', digest)]
      return [name, { name, size, digest, path, blob }]
    }),
  )
  const obtain = (name: string) => obtainFile(repo, commit, entries.get(name)!, () => {})
  const { files: names, model } = await chooseFiles([...entries.keys()], wanted, obtain)
  const needed = names.map((name) => entries.get(name)!)
  await expectSpace(repo.folder, needed)
  const total = needed.reduce((sum, { size }) => sum + size, 0)
  let finished = 0
  for (const entry of needed) {
    await obtainFile(repo, commit, entry, (bytes) => onProgress?.({ file: entry.name, done: finished + bytes, total }))
    finished += entry.size
  }
  for (const entry of needed) await linkFile(entry)
  if (repo.revision !== commit) await writeRef(join(repo.folder, 'refs', repo.revision), commit)
  return join(repo.folder, 'snapshots', commit, model)
}

/** A file of the repository and its two places in the cache. */
interface Entry {
  name: string
  size: number
  digest: string
  /** in the snapshot */
  path: string
  blob: string
}

/** Where the file's content is, if it has arrived. Python keeps it in the snapshot where it cannot make links. */
async function findFile({ path, blob, size }: Entry): Promise<string | undefined> {
  if ((await sizeOf(path)) === size) return path
  return (await sizeOf(blob)) === size ? blob : undefined
}

async function obtainFile(repo: Repository, commit: string, entry: Entry, onBytes: (done: number) => void) {
  const { endpoint, id, headers, locks, signal } = repo
  const { name, size, digest, blob } = entry
  signal?.throwIfAborted()
  const found = await findFile(entry)
  if (found) {
    onBytes(size)
    return found
  }
  await download({
    url: `${endpoint}/${id}/resolve/${commit}/${name.split('/').map(encodeURIComponent).join('/')}`,
    headers,
    path: blob,
    size,
    digest,
    lockPath: join(locks, `${digest}.pid`),
    refused: (response) => refused(repo, response),
    onBytes,
    signal,
  })
  return blob
}

async function expectSpace(folder: string, needed: Entry[]): Promise<void> {
  let bytes = 0
  for (const entry of needed)
    if (!(await findFile(entry))) bytes += entry.size - ((await sizeOf(`${entry.blob}.incomplete`)) ?? 0)
  await mkdir(folder, { recursive: true })
  const { bavail, bsize } = await statfs(folder)
  if (bytes > bavail * bsize)
    throw new KandinskyError(
      'BAD_FILE',
      `Expected ${bytes} bytes of free disk space for ${folder} but there are ${bavail * bsize}; ${OTHER_CACHE}`,
    )
}

/** Symbolic links need a privilege on Windows, hard links a file system that has them. */
export async function linkFile({ path, blob, size }: Pick<Entry, 'path' | 'blob' | 'size'>): Promise<void> {
  if ((await sizeOf(path)) === size) return
  await mkdir(dirname(path), { recursive: true })
  await rm(path, { force: true })
  const ways = [() => symlink(relative(dirname(path), blob), path), () => link(blob, path), () => copyFile(blob, path)]
  let failure: unknown
  for (const way of isSet('HF_HUB_DISABLE_SYMLINKS') ? ways.slice(1) : ways) {
    failure = await way().then(
      () => undefined,
      (error: unknown) => error,
    )
    // Another process may have made it meanwhile.
    if ((await sizeOf(path)) === size) return
  }
  throw failure
}

async function writeRef(path: string, commit: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeWhole(path, commit)
}

const OTHER_CACHE = 'choose another place with cacheDir or HF_HOME'

/** Gives errors of the operating system, such as a full disk, their KandinskyError. */
export function explain(error: unknown, folder: string, name = 'cache', advice = OTHER_CACHE): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException
  if (error instanceof KandinskyError || code === undefined || syscall === undefined) return error
  const what = code === 'ENOSPC' || code === 'EDQUOT' ? 'The disk is full' : `The ${name} cannot be written (${code})`
  return new KandinskyError('BAD_FILE', `${what}: ${folder}; ${advice}`, { cause: error })
}

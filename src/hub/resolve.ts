// Turns what a user calls a model into a path: a file or folder that exists, or a repository of the Hugging Face hub,
// of which it downloads what a pipeline needs. `@huggingface/hub` 2.17 is not used: its cache download takes whole
// repositories, has no resume, checksum, lock, progress, abort or offline mode, reads none of HF_TOKEN, HF_ENDPOINT
// and HF_HUB_OFFLINE, and with its dependencies is larger than all of this package's TypeScript.
//
// The cache is the one that Python's huggingface_hub keeps, so that both find each other's files:
//   models--{owner}--{name}/blobs/{digest}              contents, named by sha256 (Git LFS) or git's sha1
//   models--{owner}--{name}/snapshots/{commit}/{path}   links to them
//   models--{owner}--{name}/refs/{revision}             the commit that a branch or tag stood for
// A snapshot's links and its ref are written when every file is there: what a ref names is complete.
import { randomUUID } from 'node:crypto'
import {
  copyFile,
  link,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  statfs,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { invalid, KandinskyError } from '../errors.js'
import { download, fetchText, sizeOf } from './download.js'
import { chooseFiles, type Wanted } from './files.js'
import { packagedModel } from './packaged.js'

export interface DownloadProgress {
  /** path in the repository */
  file: string
  /** bytes that are there, of all files together */
  done: number
  /** bytes of all files together */
  total: number
}

export interface HubOptions {
  /** the folder of models--… folders; default $HF_HUB_CACHE, $HF_HOME/hub or ~/.cache/huggingface/hub */
  cacheDir?: string | undefined
  /** branch, tag or commit; default main */
  revision?: string | undefined
  /** for gated and private repositories; default $HF_TOKEN or the token file that `hf auth login` writes */
  token?: string | undefined
  /** e.g. "fp16": weight files of this name are preferred */
  variant?: string | undefined
  /** download only what lies in this folder of the repository */
  subfolder?: string | undefined
  /** what has arrived is kept, and the next call continues there */
  signal?: AbortSignal | undefined
  onProgress?: ((progress: DownloadProgress) => void) | undefined
}

const HUB_ID = /^\w[\w.-]*\/\w[\w.-]*$/
const COMMIT = /^[0-9a-f]{40}$/
const DIGEST = /^([0-9a-f]{40}|[0-9a-f]{64})$/

/**
 * Finds or downloads a model.
 *
 * @param source the name of a packaged model, an existing file or folder (also as a file: URL), or a hub id:
 *   `owner/name`, `hf:owner/name`, or `owner/name:file.gguf` for one file of a repository; in this order.
 * @returns the absolute path of a file, or of a folder in the diffusers layout (`subfolder` is not appended)
 * @throws KandinskyError `FILE_NOT_FOUND` if there is no such file, repository or revision, if it is not accessible or
 *   the hub cannot be reached; `BAD_FILE` if the repository or a download is damaged or the disk is full;
 *   `INVALID_ARGUMENT`
 */
export async function resolveSource(source: string, options: HubOptions = {}): Promise<{ path: string }> {
  options.signal?.throwIfAborted()
  if (typeof source !== 'string' || source === '')
    throw invalid('source', 'the path of a file or folder, or a hub id such as "owner/name"', source)
  const path = packagedModel(source) ?? localPath(source)
  if (await exists(path)) return { path }
  const [, prefix, id = '', file] = /^(hf:)?([^:]*)(?::(.+))?$/.exec(source) ?? []
  const isId = HUB_ID.test(id) && !/--|\.\./.test(id) && (prefix || file || !/\.(gguf|safetensors|bin|ckpt)$/i.test(id))
  if (!isId)
    throw new KandinskyError(
      'FILE_NOT_FOUND',
      `${path} does not exist, and ${JSON.stringify(source)} is no hub id ("owner/name")`,
    )
  const { subfolder, variant, onProgress } = options
  if (subfolder !== undefined && !isSafePath(subfolder)) throw invalid('subfolder', 'a folder of the source', subfolder)
  const repo = await repositoryOf(id, options)
  try {
    return { path: await resolveRepository(repo, { id, file, subfolder, variant }, onProgress) }
  } catch (error) {
    throw explain(error, repo.folder)
  }
}

/**
 * The source that the README.md of a decoder names as its prior, in its front matter's `prior:` list (diffusers'
 * connected pipelines: DiffusionPipeline.download in pipelines/pipeline_utils.py).
 * @returns a hub id or the name of a packaged model, or undefined if there is no such thing, whatever the text holds
 */
export function connectedPrior(readme: string): string | undefined {
  const frontMatter = /^\uFEFF?---[ \t]*(?=\r?\n)([\s\S]*?)\n---/.exec(readme)?.[1] ?? ''
  const value = /^prior:[ \t]*(?:#.*)?(?:\r?\n[ \t]*-[ \t]+|\[[ \t]*)?["']?([^\s"',\]#]+)/m.exec(frontMatter)?.[1]
  return value !== undefined && (HUB_ID.test(value) || packagedModel(value)) ? value : undefined
}

function localPath(source: string): string {
  if (!source.startsWith('file:')) return resolve(withHome(source))
  try {
    return fileURLToPath(source)
  } catch {
    throw invalid('source', 'a file: URL of this machine', source)
  }
}

/** Environment variables and programs that start this one without a shell pass `~` as it is. */
function withHome(path: string): string {
  return /^~(?=$|[/\\])/.test(path) ? homedir() + path.slice(1) : path
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

// ---- the hub's side ---------------------------------------------------------------------------------------------

interface Repository {
  id: string
  revision: string
  endpoint: string
  headers: Record<string, string>
  /** models--owner--name in the cache, absolute */
  folder: string
  locks: string
  signal: AbortSignal | undefined
}

interface Listing {
  commit: string
  files: Map<string, { size: number; digest: string }>
}

async function repositoryOf(id: string, options: HubOptions): Promise<Repository> {
  const { revision = 'main', signal } = options
  if (!isSafePath(revision)) throw invalid('revision', 'a branch, tag or commit', revision)
  const { env } = process
  const home = withHome(env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface'))
  const cache = options.cacheDir || env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, 'hub')
  if (typeof cache !== 'string') throw invalid('cacheDir', 'a folder', cache)
  const endpoint = (env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, '')
  if (!/^https?:/.test(endpoint) || !URL.canParse(endpoint))
    throw invalid('HF_ENDPOINT', 'an http or https URL', endpoint)
  const tokenFile = withHome(env.HF_TOKEN_PATH || join(home, 'token'))
  const given: unknown = options.token || env.HF_TOKEN || (await readFile(tokenFile, 'utf8').catch(() => ''))
  const token = typeof given === 'string' ? given.trim() : '\0'
  // Not through `invalid`, which would show the token.
  if (!/^[\x21-\x7e]*$/.test(token))
    throw new KandinskyError('INVALID_ARGUMENT', 'Expected a token of printable ASCII characters such as "hf_…"')
  const headers: Record<string, string> = token ? { authorization: `Bearer ${token}` } : {}
  const name = `models--${id.replace('/', '--')}`
  const [folder, locks] = [resolve(withHome(cache), name), resolve(withHome(cache), '.locks', name)]
  return { id, revision, endpoint, headers, folder, locks, signal }
}

/** A relative path with forward slashes that stays below its root on every operating system. */
function isSafePath(path: unknown): path is string {
  return (
    typeof path === 'string' &&
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not occur
    !/[\\:\x00-\x1f]/.test(path) &&
    path.split('/').every((part) => part !== '' && part !== '.' && part !== '..')
  )
}

/** The files of the revision; an answer that is no listing throws, no answer at all is returned as an error. */
async function list(repo: Repository): Promise<Listing | KandinskyError> {
  const url = `${repo.endpoint}/api/models/${repo.id}/revision/${encodeURIComponent(repo.revision)}?blobs=true`
  const answer = await fetchText(url, repo.headers, repo.signal).catch((error: unknown) => {
    if (error instanceof KandinskyError) return error
    throw error
  })
  if (answer instanceof KandinskyError) return answer
  if (!answer.response.ok) throw refused(repo, answer.response)
  try {
    return parseListing(JSON.parse(answer.text))
  } catch (cause) {
    const why = cause instanceof SyntaxError ? 'it is not JSON' : (cause as Error).message
    throw new KandinskyError('BAD_FILE', `${url} does not list a repository: ${why}`, { cause })
  }
}

/** Fields of the hub's model info: `sha`, and of each sibling `rfilename`, `size`, `blobId` (git) and `lfs.sha256`. */
function parseListing(info: { sha?: unknown; siblings?: unknown } | null): Listing {
  const { sha: commit, siblings } = info ?? {}
  if (typeof commit !== 'string' || !COMMIT.test(commit) || !Array.isArray(siblings))
    throw new Error('it has no commit or no files')
  const files: Listing['files'] = new Map()
  for (const { rfilename: name, size, blobId, lfs } of siblings) {
    const digest = lfs?.sha256 ?? blobId
    if (!isSafePath(name)) throw new Error(`it has a file with the unsafe name ${JSON.stringify(name)}`)
    if (!Number.isSafeInteger(size) || size < 0 || typeof digest !== 'string' || !DIGEST.test(digest))
      throw new Error(`${name} has no size or no checksum`)
    files.set(name, { size, digest })
  }
  return { commit, files }
}

/** What an answer other than success means. The hub says 401 also for repositories that do not exist. */
function refused({ id, revision, endpoint, headers }: Repository, response: Response): KandinskyError {
  const { status, url } = response
  const because = `(${new URL(url).host} answered ${status})`
  const say = (message: string) => new KandinskyError('FILE_NOT_FOUND', `${message} ${because}`)
  const code = response.headers.get('x-error-code')
  const hint = headers.authorization
    ? 'the token that was sent gives no access'
    : 'pass a token, or set HF_TOKEN, or run "hf auth login"'
  if (code === 'RevisionNotFound') return say(`${id} has no revision ${JSON.stringify(revision)}`)
  if (code === 'GatedRepo' || status === 403)
    return say(`${id} is gated: accept its conditions at ${endpoint}/${id}, then use a token of that account; ${hint}`)
  if (status === 401 || status === 404)
    return say(`There is no file or folder ${id} here, and no repository of that name, or it is private; ${hint}`)
  return say(`${id} cannot be downloaded`)
}

// ---- the cache --------------------------------------------------------------------------------------------------

async function resolveRepository(
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
  const ref = COMMIT.test(revision) ? revision : await readFile(join(folder, 'refs', revision), 'utf8').catch(() => '')
  const snapshot = join(folder, 'snapshots', ref.trim())
  if (!COMMIT.test(ref.trim()) || !(await exists(snapshot)))
    throw new KandinskyError('FILE_NOT_FOUND', `${dirname(folder)}, there is no ${id} of revision ${revision}`)
  const entries = await readdir(snapshot, { recursive: true })
  const sizes = await Promise.all(entries.map((name) => sizeOf(join(snapshot, name))))
  const names = entries.filter((_, i) => sizes[i] !== undefined).map((name) => name.replaceAll('\\', '/'))
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
async function linkFile({ path, blob, size }: Entry): Promise<void> {
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
  const written = `${path}.${randomUUID()}.tmp`
  await writeFile(written, commit)
  await rename(written, path)
}

const OTHER_CACHE = 'choose another place with cacheDir or HF_HOME'

/** Gives errors of the operating system, such as a full disk, their KandinskyError. */
function explain(error: unknown, folder: string): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException
  if (error instanceof KandinskyError || code === undefined || syscall === undefined) return error
  const what = code === 'ENOSPC' || code === 'EDQUOT' ? 'The disk is full' : `The cache cannot be written (${code})`
  return new KandinskyError('BAD_FILE', `${what}: ${folder}; ${OTHER_CACHE}`, { cause: error })
}

/** As Python's library reads its switches. */
function isSet(variable: string): boolean {
  return /^(1|on|yes|true)$/i.test(process.env[variable] ?? '')
}

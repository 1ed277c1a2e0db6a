// The hub's side: which repository is meant, what it lists, what its refusals mean.
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { invalid, KandinskyError, withoutSecrets } from '../errors.js'
import { readTextOf } from '../files.js'
import { fetchText } from './download.js'
import { isSafePath, withHome } from './paths.js'

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

/** A commit's name. */
export const COMMIT = /^[0-9a-f]{40}$/
const DIGEST = /^([0-9a-f]{40}|[0-9a-f]{64})$/

export interface Repository {
  id: string
  revision: string
  endpoint: string
  headers: Record<string, string>
  /** models--owner--name in the cache, absolute */
  folder: string
  locks: string
  signal: AbortSignal | undefined
}

export interface Listing {
  commit: string
  files: Map<string, { size: number; digest: string }>
}

export async function repositoryOf(id: string, options: HubOptions): Promise<Repository> {
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
  const given: unknown = options.token || env.HF_TOKEN || (await readTextOf(tokenFile).catch(() => ''))
  const token = typeof given === 'string' ? given.trim() : '\0'
  // Not through `invalid`, which would show the token.
  if (!/^[\x21-\x7e]*$/.test(token))
    throw new KandinskyError('INVALID_ARGUMENT', 'Expected a token of printable ASCII characters such as "hf_…"')
  const headers: Record<string, string> = token ? { authorization: `Bearer ${token}` } : {}
  const name = `models--${id.replace('/', '--')}`
  const [folder, locks] = [resolve(withHome(cache), name), resolve(withHome(cache), '.locks', name)]
  return { id, revision, endpoint, headers, folder, locks, signal }
}

/** The files of the revision; an answer that is no listing throws, no answer at all is returned as an error. */
export async function list(repo: Repository): Promise<Listing | KandinskyError> {
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
    throw new KandinskyError('BAD_FILE', `${withoutSecrets(url)} does not list a repository: ${why}`, { cause })
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
export function refused({ id, revision, endpoint, headers }: Repository, response: Response): KandinskyError {
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

// Models that are elsewhere: what a user calls them, and their files here as far as they are needed.
import { basename, dirname } from 'node:path'
import { invalid, KandinskyError, withoutSecrets } from '../errors.js'
import { repositoryOf } from './api.js'
import { connectedPrior, HUB_ID } from './resolve.js'
import { type Staging, stageRepository, stageUrl } from './staging.js'

/** Where a model is to be had. */
export type Origin = { id: string; revision: string | undefined; file: string | undefined } | { url: string }

export interface StageOptions {
  /** the commit to take, where it is known */
  version?: string | undefined
  variant?: string | undefined
  /** whether a file of the repository is wanted; default: all that a pipeline needs */
  isWanted?: ((file: string) => boolean) | undefined
  signal?: AbortSignal | undefined
}

/** What an origin consists of, in a folder of its own; nothing large is fetched. */
export async function stage(
  origin: Origin,
  folder: string,
  { version, variant, isWanted = () => true, signal }: StageOptions,
): Promise<Staging> {
  if ('url' in origin) return stageUrl(origin.url, folder, signal)
  const { id, file } = origin
  const repo = await repositoryOf(id, { revision: version ?? origin.revision, signal })
  return stageRepository(repo, { id, file, subfolder: undefined, variant }, folder, isWanted)
}

/**
 * The folder of a repository of which only texts and the headers of its weights are here: it opens as a checkpoint.
 * @throws KandinskyError `UNSUPPORTED_MODEL` where headers cannot be had alone
 */
export async function stageHeaders(origin: Origin, folder: string, options: StageOptions): Promise<Staging> {
  const staging = await stage(origin, folder, options)
  const whole = staging.weights.find(({ path }) => !path.endsWith('.safetensors'))
  if (whole)
    throw new KandinskyError(
      'UNSUPPORTED_MODEL',
      `Expected safetensors files but ${basename(whole.path)} has to be downloaded before it can be looked into; pull it first`,
    )
  await staging.stage()
  return staging
}

/** The prior that a decoder names as its own, if it holds none. */
export function priorOf({ readme, weights }: Staging): Origin | undefined {
  const parts = weights.map(({ path }) => basename(dirname(path)))
  const id = connectedPrior(readme)
  if (parts.some((part) => part === 'prior' || part === 'prior_prior') || id === undefined || !HUB_ID.test(id))
    return undefined
  return { id, revision: undefined, file: undefined }
}

export function nameOf(origin: Origin): string {
  if ('url' in origin) return basename(decodeURIComponent(new URL(origin.url).pathname)).replace(/\.gguf$/i, '')
  return origin.file === undefined ? basename(origin.id) : basename(origin.file).replace(/\.gguf$/i, '')
}

/**
 * @param given a hub id (`owner/name`, `owner/name:file.gguf`), the URL of a repository, or that of a .gguf file
 * @param revision branch, tag or commit, where the source names none
 * @throws KandinskyError `INVALID_ARGUMENT`
 */
export function parseOrigin(given: string, revision: string | undefined): Origin {
  // As it stands in a browser that hides what every address begins with.
  const source = /^(huggingface|hf)\.co\/./.test(given) ? `https://${given}` : given
  const isUrl = typeof source === 'string' && /^https?:/i.test(source)
  const fail = () =>
    invalid(
      'source',
      'a hub id ("owner/name"), the URL of a repository, or the URL of a .gguf file',
      isUrl ? withoutSecrets(source) : source,
    )
  if (!isUrl) {
    const [, id = '', file] = /^(?:hf:)?([^:]*)(?::(.+))?$/.exec(String(source)) ?? []
    if (!HUB_ID.test(id) || /--|\.\./.test(id)) throw fail()
    return { id, revision, file }
  }
  if (!URL.canParse(source)) throw new KandinskyError('INVALID_ARGUMENT', 'Expected a valid URL for source')
  const { username, password } = new URL(source)
  if (username || password)
    throw new KandinskyError('INVALID_ARGUMENT', 'Expected a URL without user and password for source')
  const { host, pathname } = new URL(source)
  const hubs = ['huggingface.co', 'hf.co', process.env.HF_ENDPOINT && new URL(process.env.HF_ENDPOINT).host]
  const [owner, name, kind, branch, ...path] = decodeURIComponent(pathname).split('/').filter(Boolean)
  const id = `${owner}/${name}`
  const isRepository = kind === undefined || ['tree', 'blob', 'resolve'].includes(kind)
  if (hubs.includes(host) && isRepository && HUB_ID.test(id))
    return {
      id,
      revision: revision ?? branch,
      file: kind === undefined || kind === 'tree' ? undefined : path.join('/'),
    }
  if (!/\.gguf$/i.test(pathname)) throw fail()
  return { url: source }
}

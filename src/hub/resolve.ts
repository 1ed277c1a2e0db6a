// Turns what a user calls a model into a path: a file or folder that exists, or a repository of the Hugging Face hub,
// of which it downloads what a pipeline needs. `@huggingface/hub` 2.17 is not used: its cache download takes whole
// repositories, has no resume, checksum, lock, progress, abort or offline mode, reads none of HF_TOKEN, HF_ENDPOINT
// and HF_HUB_OFFLINE, and with its dependencies is larger than all of this package's TypeScript.
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { invalid, KandinskyError } from '../errors.js'
import { type HubOptions, repositoryOf } from './api.js'
import { explain, resolveRepository } from './cache.js'
import { isPackaged, packagedModel } from './packaged.js'
import { exists, isSafePath, withHome } from './paths.js'
import { pulledModel } from './pulled.js'

export type { DownloadProgress, HubOptions } from './api.js'

export const HUB_ID = /^\w[\w.-]*\/\w[\w.-]*$/

/**
 * Finds or downloads a model.
 *
 * @param source the name of a packaged model, an existing file or folder (also as a file: URL), the name of a model that
 *   `kandinsky pull` has brought, or a hub id: `owner/name`, `hf:owner/name`, or `owner/name:file.gguf` for one file of a repository; in this order.
 * @returns the absolute path of a file, or of a folder in the diffusers layout (`subfolder` is not appended)
 * @throws KandinskyError `FILE_NOT_FOUND` if there is no such file, repository or revision, if it is not accessible or
 *   the hub cannot be reached; `BAD_FILE` if the repository or a download is damaged or the disk is full;
 *   `INVALID_ARGUMENT`
 */
export async function resolveSource(source: string, options: HubOptions = {}): Promise<{ path: string }> {
  options.signal?.throwIfAborted()
  if (typeof source !== 'string' || source === '')
    throw invalid('source', 'the path of a file or folder, or a hub id such as "owner/name"', source)
  const here = await findModel(source)
  if (here !== undefined) return { path: here }
  const [, prefix, id = '', file] = /^(hf:)?([^:]*)(?::(.+))?$/.exec(source) ?? []
  const isId = HUB_ID.test(id) && !/--|\.\./.test(id) && (prefix || file || !/\.(gguf|safetensors|bin|ckpt)$/i.test(id))
  if (!isId) throw unknownModel(source)
  const { subfolder, variant, onProgress } = options
  if (subfolder !== undefined && !isSafePath(subfolder)) throw invalid('subfolder', 'a folder of the source', subfolder)
  const repo = await repositoryOf(id, options)
  try {
    return { path: await resolveRepository(repo, { id, file, subfolder, variant }, onProgress) }
  } catch (error) {
    throw explain(error, repo.folder)
  }
}

/** The path of a model that is on this machine: a packaged one, a file or folder, or one that was pulled. */
export async function findModel(source: string): Promise<string | undefined> {
  for (const path of [packagedModel(source) ?? localPath(source), pulledModel(source)])
    if (path !== undefined && (await exists(path))) return path
  return undefined
}

/** For what is neither here nor the name of something elsewhere. */
export function unknownModel(source: string): KandinskyError {
  const name = JSON.stringify(source)
  const pulled = pulledModel(source) ? ' and no model that was pulled ("kandinsky list")' : ''
  return new KandinskyError(
    'FILE_NOT_FOUND',
    `${localPath(source)} does not exist, and ${name} is no hub id ("owner/name")${pulled}`,
  )
}

/**
 * The source that the README.md of a decoder names as its prior, in its front matter's `prior:` list (diffusers'
 * connected pipelines: DiffusionPipeline.download in pipelines/pipeline_utils.py).
 * @returns a hub id or the name of a packaged model, or undefined if there is no such thing, whatever the text holds
 */
export function connectedPrior(readme: string): string | undefined {
  const value = frontMatter(readme, 'prior')
  return value !== undefined && (HUB_ID.test(value) || isPackaged(value)) ? value : undefined
}

/** The licence that the README.md of a repository names in its front matter, as the hub reads it. */
export function licenseOf(readme: string): string | undefined {
  const license = frontMatter(readme, 'license')
  return license === 'other' ? (frontMatter(readme, 'license_name') ?? license) : license
}

/** A value, or the first of a list, from the YAML before a text. */
function frontMatter(readme: string, key: string): string | undefined {
  const yaml = /^\uFEFF?---[ \t]*(?=\r?\n)([\s\S]*?)\n---/.exec(readme)?.[1] ?? ''
  const value = `^${key}:[ \\t]*(?:#.*)?(?:\\r?\\n[ \\t]*-[ \\t]+|\\[[ \\t]*)?["']?([^\\s"',\\]#]+)`
  return new RegExp(value, 'm').exec(yaml)?.[1]
}

function localPath(source: string): string {
  if (!source.startsWith('file:')) return resolve(withHome(source))
  try {
    return fileURLToPath(source)
  } catch {
    throw invalid('source', 'a file: URL of this machine', source)
  }
}

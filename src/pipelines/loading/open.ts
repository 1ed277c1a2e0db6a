// From a source string to an opened checkpoint: resolved, downloaded where needed; no weights are read yet.
import { existsSync } from 'node:fs'
import path from 'node:path'
import { openCheckpoint } from '../../checkpoint/open.js'
import type { Checkpoint, PipelineFiles, Side } from '../../checkpoint/pipeline-files.js'
import { KandinskyError } from '../../errors.js'
import { connectedPrior, resolveSource } from '../../hub/resolve.js'

/** How far downloading or loading is. */
export interface LoadProgress {
  type: 'download' | 'load'
  /** file being downloaded, or network being loaded */
  name: string
  /** bytes */
  done: number
  total: number
}

/** Where a checkpoint is, and how to get it. */
export interface SourceOptions {
  /** folder inside `source` that holds the pipeline */
  subfolder?: string | undefined
  /** weight files to read from a folder, e.g. `fp16`; default: the plain ones */
  variant?: string | undefined
  /** where downloads are kept; default: the Hugging Face cache */
  cacheDir?: string | undefined
  /** branch, tag or commit of a hub repository; default `main` */
  revision?: string | undefined
  /** access token of the hub; default: `HF_TOKEN` or the saved one */
  token?: string | undefined
  /** aborts downloading and loading */
  signal?: AbortSignal | undefined
  /** called while files are downloaded and networks loaded */
  onProgress?: ((progress: LoadProgress) => void) | undefined
}

export const sourceOptionNames = Object.keys({
  subfolder: true,
  variant: true,
  cacheDir: true,
  revision: true,
  token: true,
  signal: true,
  onProgress: true,
} satisfies Record<keyof SourceOptions, true>)

/** @param network how to call the one network of a folder that holds no more; default: such a folder is refused */
export async function openSource(source: string, options: SourceOptions = {}, network?: string): Promise<Checkpoint> {
  const { subfolder, variant, cacheDir, revision, token, signal, onProgress } = options
  signal?.throwIfAborted()
  const resolved = await resolveSource(source, {
    ...{ subfolder, variant, cacheDir, revision, token, signal },
    onProgress: ({ file, done, total }) => onProgress?.({ type: 'download', name: file, done, total }),
  })
  // A subfolder of a hub repository may resolve to the one .gguf file in it.
  const inside = path.extname(resolved.path) === '.gguf' ? undefined : subfolder
  return openCheckpoint(resolved.path, { subfolder: inside, variant, network })
}

/** One pipeline of a checkpoint. @throws KandinskyError `UNSUPPORTED_MODEL` where it holds none */
export function requireSide(checkpoint: Checkpoint, side: Side): PipelineFiles {
  const found = checkpoint.side(side)
  if (found) return found
  throw new KandinskyError('UNSUPPORTED_MODEL', `Expected a ${side} but ${checkpoint.source} holds none`)
}

/**
 * The prior of an opened checkpoint: the one at `given`, the checkpoint's own, or the repository that the decoder's
 * model card names (as diffusers finds it), which may also lie beside the decoder's folder.
 * @throws KandinskyError `INVALID_ARGUMENT` where there is none
 */
export async function openPrior(
  checkpoint: Checkpoint,
  given: string | undefined,
  options: SourceOptions,
): Promise<Checkpoint> {
  const own = given === undefined ? checkpoint.side('prior') : undefined
  if (own) return own
  const connected = given ?? (await findPrior(requireSide(checkpoint, 'decoder')))
  if (connected === undefined)
    throw new KandinskyError(
      'INVALID_ARGUMENT',
      `Expected a prior: ${checkpoint.source} holds only a decoder and names none; pass the option prior`,
    )
  // The prior is a repository of its own: the decoder's folder and revision mean nothing there.
  const elsewhere = { ...options, subfolder: undefined, revision: undefined }
  return requireSide(await openSource(connected, elsewhere), 'prior')
}

/** What a decoder's model card names as its prior, as a folder beside it where there is one. */
export async function findPrior(decoder: Checkpoint): Promise<string | undefined> {
  const id = connectedPrior((await decoder.text('README.md')) ?? '')
  if (id === undefined) return undefined
  const beside = path.join(path.dirname(decoder.source), path.basename(id))
  return existsSync(beside) ? beside : id
}

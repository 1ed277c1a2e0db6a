// Opens a checkpoint in whichever form it has on disk. What it looks like afterwards is in convert/sides.ts.
import { stat } from 'node:fs/promises'
import { isAbsolute, join, normalize, resolve, sep } from 'node:path'
import { invalid, KandinskyError } from '../errors.js'
import { badFile, fileError } from '../files.js'
import { fileKind, KIND_NAMES, listFolder, SourceFile } from './formats/file.js'
import { openGguf } from './gguf.js'
import { isPublishedKandinsky3, openPublishedKandinsky3 } from './kandinsky3-files.js'
import { type Checkpoint, CombinedFiles, mergeFiles } from './pipeline-files.js'
import { openRepository, openSingleNetwork } from './repository.js'

export type { Checkpoint, Component, Side } from './pipeline-files.js'

export interface CheckpointOptions {
  /** folder inside a folder, where the pipeline is not at its top */
  subfolder?: string | undefined
  /** e.g. "fp16", for diffusion_pytorch_model.fp16.safetensors; networks that lack it use their plain files */
  variant?: string | undefined
  /** how to call the one network of a folder that holds no more than its config and weights; default: refused */
  network?: string | undefined
}

/**
 * Opens a checkpoint and reads its metadata; weights are read when a component is loaded.
 *
 * @param source a folder in the Hugging Face diffusers layout, or with a depth estimator in the transformers layout,
 *   one of our GGUF files, or a folder of these that together make one model
 * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL` or `INVALID_ARGUMENT`, saying what was found
 */
export async function openCheckpoint(source: string, options: CheckpointOptions = {}): Promise<Checkpoint> {
  if (typeof source !== 'string' || source === '') throw invalid('source', 'the path of a folder or .gguf file', source)
  const path = resolve(source, checkSubfolder(options.subfolder))
  const found = await stat(path).catch((cause) => {
    throw fileError(path, cause)
  })
  return found.isDirectory() ? openFolder(path, options) : openFile(path)
}

/**
 * Sees a decoder and a prior from two places as one checkpoint.
 * @throws KandinskyError `INVALID_ARGUMENT` if either lacks what it shall give
 */
export function combineCheckpoints(decoder: Checkpoint, prior: Checkpoint): Checkpoint {
  const [decoderSide, priorSide] = [decoder.side('decoder'), prior.side('prior')]
  if (!decoderSide) throw invalid('source', 'a checkpoint with a decoder', decoder.source)
  if (!priorSide) throw invalid('prior', 'a checkpoint with a prior', prior.source)
  return new CombinedFiles(decoder.source, decoderSide, priorSide)
}

/** Of configs of schedulers and processors; the longest, with a table of betas, has 20 kB. */
const MAX_JSON_CHARACTERS = 1 << 20

/** A small JSON file of a checkpoint; undefined if absent. @throws KandinskyError `BAD_FILE` */
export async function readJson(checkpoint: Checkpoint, file: string): Promise<object | undefined> {
  const text = await checkpoint.text(file)
  if (text === undefined) return undefined
  if (text.length > MAX_JSON_CHARACTERS)
    throw badFile(
      checkpoint.source,
      `has ${text.length} characters in ${file}; at most ${MAX_JSON_CHARACTERS} are read`,
    )
  try {
    // Python writes DPM-Solver's default lambda_min_clipped in a way that JSON does not know; null stands for defaults.
    const value: unknown = JSON.parse(text.replace(/:\s*-Infinity\b/g, ': null'))
    if (typeof value === 'object' && value !== null) return value
  } catch {}
  throw new KandinskyError('BAD_FILE', `Expected a JSON object in ${file} of ${checkpoint.source}`)
}

function checkSubfolder(subfolder = '.'): string {
  const path = normalize(subfolder)
  if (isAbsolute(path) || path.split(sep).includes('..'))
    throw invalid('subfolder', 'a folder inside the source', subfolder)
  return path
}

async function openFile(path: string): Promise<Checkpoint> {
  const kind = await SourceFile.with(path, fileKind)
  if (kind === 'gguf') return openGguf(path)
  throw new KandinskyError(
    'UNSUPPORTED_MODEL',
    `Expected a GGUF file or a folder in the diffusers layout but ${path} is ${KIND_NAMES[kind]}`,
  )
}

async function openFolder(folder: string, { variant, network }: CheckpointOptions): Promise<Checkpoint> {
  const files = await listFolder(folder)
  if (files.includes('model_index.json')) return openRepository(folder, variant)
  if (isPublishedKandinsky3(files)) return openPublishedKandinsky3(folder, variant)
  const weights = join(folder, 'weights')
  if (isPublishedKandinsky3(await listFolder(weights).catch(() => []))) return openPublishedKandinsky3(weights, variant)
  const ggufs = files.filter((name) => name.toLowerCase().endsWith('.gguf'))
  if (ggufs.length > 0) return openGgufs(folder, ggufs)
  const single = files.includes('config.json') ? await openSingleNetwork(folder, variant, network) : undefined
  if (single) return single
  throw new KandinskyError(
    'UNSUPPORTED_MODEL',
    `Expected a model_index.json or .gguf files in ${folder} but ${describeFolder(files)}`,
  )
}

function describeFolder(files: string[]): string {
  if (files.length === 0) return 'it is empty'
  const names = `${files.slice(0, 8).join(', ')}${files.length > 8 ? ' …' : ''}`
  return files.includes('config.json')
    ? `it holds a single network, not a pipeline (${names}); its parent folder may be the one`
    : `it holds ${names}`
}

async function openGgufs(folder: string, names: string[]): Promise<Checkpoint> {
  const opened = await Promise.all(names.map((name) => openGguf(join(folder, name))))
  const sides = (side: 'prior' | 'decoder') => opened.flatMap((checkpoint) => checkpoint.side(side) ?? [])
  const [decoders, priors] = [sides('decoder'), sides('prior')]
  if (priors.length === 0) return mergeFiles(folder, decoders)
  if (decoders.length === 0) return mergeFiles(folder, priors)
  return new CombinedFiles(folder, mergeFiles(folder, decoders), mergeFiles(folder, priors))
}

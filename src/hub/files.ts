// Chooses what a pipeline needs of a repository's files: texts (configs, tokenizers), and of every network that
// model_index.json names the weights in one format. Repositories also hold the same weights as .bin, .ckpt or ONNX.
import { posix } from 'node:path'
import { chooseUNet, isPublishedKandinsky3, projectionOf } from '../checkpoint/kandinsky3-files.js'
import { singleNetwork } from '../checkpoint/repository.js'
import { chooseWeights, readIndex } from '../checkpoint/weight-files.js'
import { KandinskyError } from '../errors.js'
import { readTextOf } from '../files.js'

/** Paths in a repository have forward slashes on every operating system. */
const { basename, dirname, join } = posix

export interface Wanted {
  /** the repository, for messages */
  id: string
  /** exactly this file, such as a .gguf */
  file: string | undefined
  /** where in the repository the pipeline, or the one part that is wanted, lies */
  subfolder: string | undefined
  /** e.g. "fp16": weight files of this name are preferred */
  variant: string | undefined
}

/** Gives a local path for a file of the repository whose content decides what else is needed. */
export type Obtain = (name: string) => Promise<string>

/**
 * Chooses among the paths of a repository's files.
 * @returns the needed files, and as `model` the one .gguf that is the model, or '' if all of them together are
 * @throws KandinskyError `FILE_NOT_FOUND` saying what the repository lacks, `BAD_FILE`
 */
export async function chooseFiles(
  all: readonly string[],
  wanted: Wanted,
  obtain: Obtain,
): Promise<{ files: string[]; model: string }> {
  const { id, file, subfolder } = wanted
  const names = all.filter((name) => name === file || !/(^|\/)\./.test(name)) // without hidden files
  const base = subfolder ? `${subfolder}/` : ''
  const ggufs = names.filter((name) => name.startsWith(base) && /\.gguf$/i.test(name))
  if (file !== undefined && !names.includes(file)) throw missing(`${id} has no file ${file}`, ggufs)
  if (file !== undefined) return { files: [file], model: file }
  const isPipeline = names.includes(`${base}model_index.json`)
  const published = isPipeline ? undefined : publishedFolder(names, subfolder)
  if (published !== undefined) return { files: await publishedFiles(published, names, wanted, obtain), model: '' }
  if (!isPipeline && ggufs.length > 1) throw missing(`${id} needs a file name, as "${id}:${ggufs[0]}"`, ggufs)
  if (!isPipeline && ggufs.length === 1) return { files: ggufs, model: ggufs[0]! }
  if (!isPipeline && !subfolder && !(await isSingleNetwork(names, obtain)))
    throw missing(`${id} has neither a model_index.json nor a .gguf file`, names)
  const folders = isPipeline
    ? (await partsOf(`${base}model_index.json`, obtain)).map((part) => base + part)
    : [subfolder ?? '.']
  // Texts of all folders: 2.1 has a ddpm_scheduler that its model_index.json does not name.
  const isText = (name: string) =>
    /^([^/]+\/)?[^/]+\.(json|txt|model)$/.test(name) && !/\.index(\.[^/]+)?\.json$/.test(name)
  const files = names.filter((name) => name.startsWith(base) && isText(name.slice(base.length)))
  if (names.includes('README.md')) files.push('README.md')
  const empty = folders.filter((folder) => !names.some((name) => dirname(name) === folder))
  if (empty.length > 0) throw missing(`${id} has no files in ${empty.join(', ')}`, [])
  for (const folder of folders) files.push(...(await weightFiles(folder, names, wanted, obtain)))
  return { files, model: '' }
}

/** Where a repository has the files of Kandinsky 3's authors. */
function publishedFolder(names: readonly string[], subfolder = '.'): string | undefined {
  const inside = (folder: string) => names.filter((name) => dirname(name) === folder).map((name) => basename(name))
  return [subfolder, join(subfolder, 'weights')].find((folder) => isPublishedKandinsky3(inside(folder)))
}

/** Of its three UNets the one that is wanted, with what belongs to it. */
async function publishedFiles(folder: string, names: string[], wanted: Wanted, obtain: Obtain): Promise<string[]> {
  const { id, variant } = wanted
  const path = (name: string) => join(folder, name)
  const here = names.filter((name) => dirname(name) === folder).map((name) => basename(name))
  const unet = chooseUNet(here, id, variant)
  const projection = projectionOf(unet)
  const text = dirname(projection)
  const texts = names.filter((name) => dirname(name) === path(text) && /(?<!\.index)\.(json|txt|model)$/.test(name))
  if (!names.includes(path(projection))) throw missing(`${id} has no file ${path(projection)}`, [])
  const encoder = await weightFiles(path(text), names, { ...wanted, variant: undefined }, obtain)
  const readme = names.filter((name) => name === 'README.md')
  return [...readme, path(unet), path('movq.pt'), path(projection), ...texts, ...encoder]
}

function missing(what: string, names: string[]): KandinskyError {
  const others = names.length > 0 ? `; it has ${names.slice(0, 20).join(', ')}${names.length > 20 ? ' …' : ''}` : ''
  return new KandinskyError('FILE_NOT_FOUND', what + others)
}

/** Keys of a model_index.json that name a part: `"unet": ["diffusers", "UNet2DConditionModel"]`, not `[null, null]`. */
async function partsOf(index: string, obtain: Obtain): Promise<string[]> {
  const text = await readTextOf(await obtain(index))
  try {
    const entries = Object.entries(JSON.parse(text) as object)
    return entries.filter(([, value]) => Array.isArray(value) && typeof value[1] === 'string').map(([name]) => name)
  } catch (cause) {
    throw new KandinskyError('BAD_FILE', `${index} is not valid JSON`, { cause })
  }
}

/** Told by the config, so that nothing large is downloaded in vain. */
async function isSingleNetwork(names: string[], obtain: Obtain): Promise<boolean> {
  if (!names.includes('config.json')) return false
  return singleNetwork(await readTextOf(await obtain('config.json')), 'config.json') !== undefined
}

/** The weights of one part; only networks have a file called config.json. */
async function weightFiles(folder: string, names: string[], { id, variant }: Wanted, obtain: Obtain) {
  const inside = names.filter((name) => dirname(name) === folder).map((name) => basename(name))
  if (!inside.includes('config.json')) return []
  const { file, sharded } = chooseWeights(inside, `${id}/${folder}`, variant)
  const shards = sharded ? new Set((await readIndex(await obtain(join(folder, file)))).values()) : []
  for (const shard of shards) if (!inside.includes(shard)) throw missing(`${id} has no file ${folder}/${shard}`, [])
  return [file, ...shards].map((name) => join(folder, name))
}

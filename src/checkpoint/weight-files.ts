// Chooses and reads the weight files of one component's folder, as diffusers and transformers name them:
//   diffusion_pytorch_model[.fp16].safetensors          or model[.fp16].safetensors
//   diffusion_pytorch_model.safetensors.index[.fp16].json     for files split into shards
//   diffusion_pytorch_model[.fp16].bin                  or pytorch_model[.fp16].bin
import { basename, extname, join } from 'node:path'
import { KandinskyError } from '../errors.js'
import { badFile, readBytesOf } from '../files.js'
import { listFolder } from './formats/file.js'
import { readSafetensors } from './formats/safetensors.js'
import type { StoredTensor } from './formats/stored.js'
import { readTorch } from './formats/torch.js'
import { indexNames, withNewNames } from './old-names.js'

const FORMATS = [
  {
    extension: '.safetensors',
    kind: 'safetensors',
    bases: ['diffusion_pytorch_model', 'model'],
    read: readSafetensors,
  },
  { extension: '.bin', kind: 'torch-zip', bases: ['diffusion_pytorch_model', 'pytorch_model'], read: readTorch },
] as const

/** Indexes of shards are a few hundred KB. */
const MAX_INDEX_BYTES = 16 << 20

/**
 * Lists the tensors of a component's folder. Safetensors files go before PyTorch files.
 * @param variant e.g. "fp16": preferred where the folder has it, otherwise the plain files are taken
 * @throws KandinskyError `FILE_NOT_FOUND` if the folder holds no weights under a known name, `BAD_FILE`
 */
export async function readWeights(folder: string, variant?: string): Promise<StoredTensor[]> {
  const { file, sharded } = chooseWeights(await listFolder(folder), folder, variant)
  return withNewNames(await (sharded ? readShards(folder, file) : readTensorFile(join(folder, file))))
}

/**
 * Chooses among the file names of a component's folder: the one file of its weights, or the index of their shards.
 * @param folder how messages call it
 * @throws KandinskyError `FILE_NOT_FOUND`
 */
export function chooseWeights(names: readonly string[], folder: string, variant?: string) {
  for (const suffix of variant ? [`.${variant}`, ''] : [''])
    for (const { extension, bases } of FORMATS)
      for (const base of bases) {
        const file = `${base}${suffix}${extension}`
        if (names.includes(file)) return { file, sharded: false }
        const index = indexNames(base + extension, suffix).find((name) => names.includes(name))
        if (index) return { file: index, sharded: true }
      }
  const others = names.filter((name) => FORMATS.some(({ extension }) => name.endsWith(extension)))
  throw new KandinskyError(
    'FILE_NOT_FOUND',
    `${folder} holds no weights called ${FORMATS[0].bases.map((base) => base + FORMATS[0].extension).join(' or ')}` +
      (others.length > 0 ? ` but ${others.join(', ')}; for names with ".fp16" pass the variant "fp16"` : ''),
  )
}

/** True if the folder holds a file that readWeights could take, whatever its variant. */
export async function hasWeights(folder: string): Promise<boolean> {
  const names = await listFolder(folder)
  return names.some((name) => FORMATS.some(({ extension }) => name.endsWith(extension)))
}

/** Reads a file by its extension, after making sure that its content is of the same kind. */
async function readTensorFile(path: string): Promise<StoredTensor[]> {
  const format = FORMATS.find(({ extension }) => extname(path) === extension)
  if (!format) throw badFile(path, 'is named neither .safetensors nor .bin')
  return format.read(path)
}

async function readShards(folder: string, indexName: string): Promise<StoredTensor[]> {
  const indexPath = join(folder, indexName)
  const shardOf = await readIndex(indexPath)
  const tensors = new Map<string, StoredTensor>()
  for (const shard of new Set(shardOf.values()))
    for (const tensor of await readTensorFile(join(folder, shard))) {
      if (shardOf.get(tensor.name) !== shard)
        throw badFile(indexPath, `does not say that "${tensor.name}" is in ${shard}, where it is`)
      tensors.set(tensor.name, tensor)
    }
  for (const [name, shard] of shardOf)
    if (!tensors.has(name)) throw badFile(indexPath, `says that "${name}" is in ${shard}, where it is not`)
  return [...tensors.values()]
}

/** The index's "weight_map", from tensor names to shards, all of which must lie beside the index. */
export async function readIndex(path: string): Promise<Map<string, string>> {
  const text = (await readBytesOf(path, MAX_INDEX_BYTES)).toString('utf8')
  const map = new Map<string, string>()
  for (const [name, shard] of Object.entries(weightMap(text, path))) {
    if (
      typeof shard !== 'string' ||
      shard !== basename(shard) ||
      shard.includes('\\') ||
      !/\.(safetensors|bin)$/.test(shard)
    )
      throw badFile(path, `places "${name}" in ${JSON.stringify(shard)}; expected a weights file in the same folder`)
    map.set(name, shard)
  }
  return map
}

function weightMap(text: string, path: string): object {
  try {
    const map = JSON.parse(text).weight_map
    if (typeof map === 'object' && map !== null && !Array.isArray(map)) return map
  } catch (cause) {
    throw badFile(path, 'is not valid JSON', { cause })
  }
  throw badFile(path, 'has no "weight_map"')
}

// A folder in the Hugging Face diffusers layout: model_index.json names the parts, each part has a folder, networks
// have a config.json and weights in it. Or a folder in the transformers layout, which is such a network.
import { join } from 'node:path'
import { badFile, MAX_TEXT_BYTES, readBytesOf } from '../files.js'
import type { Config, ConfigValue } from '../native.js'
import { listFolder, listSubfolders } from './formats/file.js'
import { CombinedFiles, type Component, PipelineFiles, PRIOR, pipelineSlots } from './pipeline-files.js'
import { hasWeights, readWeights } from './weight-files.js'

/** Files beside model_index.json that belong to a model. */
const TOP_TEXTS = ['model_index.json', 'README.md', 'generation_config.json']

/** Files in the folder of a part that something reads; notes and leftovers beside them are nobody's business. */
const PART_TEXTS = [
  ...['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'vocab.json', 'merges.txt'],
  ...['scheduler_config.json', 'preprocessor_config.json'],
]

/** Classes of networks that are published on their own, and how a checkpoint calls its only network. */
const SINGLE_NETWORKS: Readonly<Record<string, string>> = { DPTForDepthEstimation: 'depth_estimator' }

/**
 * Opens a folder that holds a model_index.json.
 * @throws KandinskyError `BAD_FILE`, `UNSUPPORTED_MODEL`
 */
export async function openRepository(folder: string, variant?: string): Promise<PipelineFiles | CombinedFiles> {
  const index = await readText(join(folder, 'model_index.json'))
  const slots = pipelineSlots(index, folder)
  const networks = new Map<string, () => Promise<Component>>()
  const texts = new Map<string, () => Promise<string>>()
  for (const file of await listFolder(folder))
    if (TOP_TEXTS.includes(file)) texts.set(file, () => readText(join(folder, file)))
  // Not only the slots: 2.1 has a ddpm_scheduler folder that no pipeline lists.
  for (const part of await listSubfolders(folder)) {
    const files = await listFolder(join(folder, part))
    const className = slots.get(part)
    if (className && files.includes('config.json') && (await hasWeights(join(folder, part))))
      networks.set(part, () => openNetwork(join(folder, part), part, className, variant))
    else for (const [file, read] of partTexts(join(folder, part), files)) texts.set(`${part}/${file}`, read)
  }
  const files = new RepositoryFiles(folder, slots, texts, networks)
  return slots.has('prior_prior') ? splitCombined(files, index) : files
}

/** What is read of a part that is no network: settings and tokenizers. */
function partTexts(folder: string, files: readonly string[]): Map<string, () => Promise<string>> {
  const texts = new Map<string, () => Promise<string>>()
  for (const file of files) {
    if (PART_TEXTS.includes(file)) texts.set(file, () => readText(join(folder, file)))
    // SentencePiece's own form of a tokenizer; where tokenizer.json is, too, it holds the same.
    if (file.endsWith('.model') && !files.includes('tokenizer.json'))
      texts.set(file, () => readBase64(join(folder, file)))
  }
  return texts
}

/** A folder that holds a network and its tokenizer, as transformers saves both in one place. */
export async function openPartFolder(folder: string, name: string, className: string) {
  return {
    texts: partTexts(folder, await listFolder(folder)),
    network: () => openNetwork(folder, name, className),
  }
}

/**
 * A combined pipeline as save_pretrained writes it: the prior's parts are called prior_prior, prior_text_encoder … beside
 * the decoder's. Each of the two gets the model_index.json that it would have alone.
 */
function splitCombined(files: RepositoryFiles, modelIndex: string): CombinedFiles {
  const index = Object.entries(JSON.parse(modelIndex) as object)
  const take = (rename: (name: string) => string | undefined) => {
    const under = <T>(all: ReadonlyMap<string, T>) =>
      new Map(
        [...all].flatMap(([name, value]) => (rename(name) === undefined ? [] : [[rename(name)!, value] as const])),
      )
    const parts = index.flatMap(([key, value]) => {
      const name = key.startsWith('_') ? key : rename(key)
      return name === undefined ? [] : [[name, value] as const]
    })
    const networks = [...under(files.networks)].map(
      ([name, open]) => [name, async () => ({ ...(await open()), name })] as const,
    )
    const texts = under(files.textFiles).set('model_index.json', async () => JSON.stringify(Object.fromEntries(parts)))
    return new RepositoryFiles(files.source, under(files.slots), texts, new Map(networks))
  }
  const prior = take((name) => (name.startsWith(PRIOR) ? name.slice(PRIOR.length) : undefined))
  return new CombinedFiles(
    files.source,
    take((name) => (name.startsWith(PRIOR) ? undefined : name)),
    prior,
  )
}

/** The files that a part cannot do without, by its class in model_index.json; all other classes are networks. */
const NEEDED_FILES: readonly [className: RegExp, file: RegExp][] = [
  [/Tokenizer/, /^(tokenizer\.json|vocab\.json|.*\.model)$/],
  [/Scheduler$/, /^scheduler_config\.json$/],
  [/Processor|FeatureExtractor/, /^preprocessor_config\.json$/],
]

class RepositoryFiles extends PipelineFiles {
  override missing(): string[] {
    return [...this.slots].filter(([slot, className]) => !this.#has(slot, className)).map(([slot]) => slot)
  }

  #has(slot: string, className: string): boolean {
    const needed = NEEDED_FILES.find(([pattern]) => pattern.test(className))?.[1]
    if (!needed) return this.networks.has(slot)
    const inside = [...this.textFiles.keys()].filter((path) => path.startsWith(`${slot}/`))
    return inside.some((path) => needed.test(path.slice(slot.length + 1)))
  }
}

/**
 * Opens a folder that holds a config.json, weights and what belongs to them.
 * @param network how to call a network that no checkpoint consists of alone; default: such a one is not opened
 * @returns undefined if it is a network that no checkpoint consists of alone
 * @throws KandinskyError `BAD_FILE`
 */
export async function openSingleNetwork(
  folder: string,
  variant?: string,
  network?: string,
): Promise<PipelineFiles | undefined> {
  const path = join(folder, 'config.json')
  const text = await readText(path)
  const found = singleNetwork(text, path) ?? (network && { name: network, className: diffusersClass(text) })
  if (!found) return undefined
  const { name, className } = found
  const texts = new Map<string, () => Promise<string>>()
  for (const file of await listFolder(folder))
    if (file === 'preprocessor_config.json' || file === 'README.md') texts.set(file, () => readText(join(folder, file)))
  const networks = new Map([[name, () => openNetwork(folder, name, className, variant)]])
  return new PipelineFiles(folder, new Map([[name, className]]), texts, networks)
}

/** What a checkpoint that consists of a network with this config.json calls it; undefined for all other networks. */
export function singleNetwork(text: string, path: string): { name: string; className: string } | undefined {
  const [className] = [parseConfig(text, path).architectures].flat().map(String)
  return className && Object.hasOwn(SINGLE_NETWORKS, className)
    ? { name: SINGLE_NETWORKS[className]!, className }
    : undefined
}

/** What diffusers writes into the config.json of each network. */
function diffusersClass(text: string): string {
  return String(JSON.parse(text)._class_name)
}

async function openNetwork(folder: string, name: string, className: string, variant?: string): Promise<Component> {
  const path = join(folder, 'config.json')
  const config = parseConfig(await readText(path), path)
  return { name, className, config, tensors: await readWeights(folder, variant) }
}

/** Deeper than any config is; what is below stays out. */
const MAX_CONFIG_DEPTH = 8
/** The largest, of models with a thousand classes, have 70 kB. */
const MAX_CONFIG_CHARACTERS = 1 << 20

/**
 * The values of a config.json that have a GGUF type: scalars and lists of one kind of scalar. Those of nested objects get
 * the names of all levels ("rope_scaling.type"). Nulls stand for defaults, keys with a leading underscore say how the file
 * was made.
 */
export function parseConfig(text: string, path: string): Config {
  if (text.length > MAX_CONFIG_CHARACTERS)
    throw badFile(path, `has ${text.length} characters; at most ${MAX_CONFIG_CHARACTERS} are read of a config`)
  let values: unknown
  try {
    values = JSON.parse(text)
  } catch (cause) {
    throw badFile(path, 'is not valid JSON', { cause })
  }
  if (!isObject(values)) throw badFile(path, 'is not a JSON object')
  return Object.fromEntries(configEntries(values, '', MAX_CONFIG_DEPTH))
}

function configEntries(values: object, prefix: string, depth: number): [string, ConfigValue][] {
  return Object.entries(values).flatMap(([key, value]): [string, ConfigValue][] => {
    if (key.startsWith('_')) return []
    if (isConfigValue(value)) return [[prefix + key, value]]
    return isObject(value) && depth > 1 ? configEntries(value, `${prefix}${key}.`, depth - 1) : []
  })
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isConfigValue(value: unknown): value is ConfigValue {
  const kinds = new Set((Array.isArray(value) ? value : [value]).map((item) => typeof item))
  if (kinds.size !== 1) return false
  if (kinds.has('number')) return [value].flat().every(Number.isFinite)
  return kinds.has('boolean') || kinds.has('string')
}

async function readText(path: string): Promise<string> {
  const bytes = await readBytesOf(path, MAX_TEXT_BYTES)
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw badFile(path, 'is not valid UTF-8', { cause })
  }
}

async function readBase64(path: string): Promise<string> {
  return (await readBytesOf(path, (MAX_TEXT_BYTES / 4) * 3)).toString('base64')
}

// How a checkpoint is laid out in one of our GGUF files (docs/format.md): the names of metadata keys and tensors, in
// both directions. The bytes are read and written by the addon.
import { KandinskyError } from '../errors.js'
import { badFile } from '../files.js'
import { binding, type Config, type ConfigValue, type GgufContent } from '../native.js'
import {
  type Checkpoint,
  type CombinedFiles,
  type Component,
  type PipelineFiles,
  pipelineSlots,
  splitFiles,
} from './pipeline-files.js'

const ARCHITECTURE = 'kandinsky'
const FORMAT_VERSION = 1
const TEXT_PREFIX = 'file.'
const MODEL_INDEX = 'model_index.json'

/** CLIP's largest image embedding has 1280 values. */
const MAX_EMBEDDING = 1 << 16

type Metadata = Record<string, ConfigValue>

/**
 * Opens one of our GGUF files.
 * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL`
 */
export async function openGguf(path: string): Promise<PipelineFiles | CombinedFiles> {
  const { metadata, tensors, stamp } = await binding().readGguf(path)
  checkArchitecture(metadata, path)
  const texts = new Map<string, () => Promise<string>>()
  for (const [key, value] of Object.entries(metadata))
    if (key.startsWith(TEXT_PREFIX)) texts.set(key.slice(TEXT_PREFIX.length), async () => String(value))
  const components = readComponents(path, metadata, tensors, stamp)
  const networks = new Map(components.map((component) => [component.name, async () => component]))
  const index = metadata[TEXT_PREFIX + MODEL_INDEX]
  const priorIndex = metadata[`${TEXT_PREFIX}prior_${MODEL_INDEX}`]
  const indexes = {
    // A file of bare networks (scripts/random-checkpoint.mjs) has no index: the networks are all there is.
    own:
      typeof index === 'string'
        ? pipelineSlots(index, path)
        : new Map(components.map(({ name, className }) => [name, className])),
    prior: typeof priorIndex === 'string' ? pipelineSlots(priorIndex, path) : undefined,
  }
  return splitFiles(path, texts, networks, indexes, zeroImageEmbeds(metadata, path))
}

function checkArchitecture(metadata: Metadata, path: string): void {
  const architecture = metadata['general.architecture']
  if (architecture !== ARCHITECTURE)
    throw new KandinskyError(
      'UNSUPPORTED_MODEL',
      `Expected a GGUF file that "kandinsky convert" wrote but ${path} holds a model of architecture ${JSON.stringify(architecture)}`,
    )
  const version = metadata['kandinsky.format_version']
  if (version !== FORMAT_VERSION)
    throw new KandinskyError(
      'UNSUPPORTED_MODEL',
      `Expected format version ${FORMAT_VERSION} in ${path} but received ${version}; a newer node-kandinsky may read it`,
    )
}

function readComponents(path: string, metadata: Metadata, tensors: GgufContent['tensors'], stamp: string): Component[] {
  const names = metadata['kandinsky.components']
  if (!Array.isArray(names)) throw badFile(path, 'has no list kandinsky.components')
  const components = new Map<string, Component>()
  for (const name of names.map(String)) {
    const className = metadata[`${name}.class`]
    if (typeof className !== 'string') throw badFile(path, `has no ${name}.class`)
    components.set(name, { name, className, config: readConfig(metadata, `${name}.config.`), tensors: [] })
  }
  for (const tensor of tensors) {
    const dot = tensor.name.indexOf('.')
    const component = components.get(tensor.name.slice(0, dot))
    if (!component) throw badFile(path, `has a tensor "${tensor.name}" of no component`)
    component.tensors.push({ ...tensor, name: tensor.name.slice(dot + 1), path, stamp })
  }
  return [...components.values()]
}

function readConfig(metadata: Metadata, prefix: string): Config {
  const entries = Object.entries(metadata).filter(([key]) => key.startsWith(prefix))
  return Object.fromEntries(entries.map(([key, value]) => [key.slice(prefix.length), value]))
}

function zeroImageEmbeds(metadata: Metadata, path: string): number[] | undefined {
  const values = metadata['kandinsky.zero_image_embeds']
  if (values === undefined) return undefined
  if (!Array.isArray(values) || !values.every((value) => typeof value === 'number'))
    throw badFile(path, 'has a kandinsky.zero_image_embeds that is no list of numbers')
  if (values.length > MAX_EMBEDDING || !values.every((value) => Number.isFinite(Math.fround(value as number))))
    throw badFile(path, 'has a kandinsky.zero_image_embeds that is no embedding of finite numbers')
  return values as number[]
}

/** The metadata that stores a checkpoint's texts and the given components' configs. */
export async function ggufMetadata(
  name: string,
  checkpoint: Checkpoint,
  components: readonly Component[],
  zeroImage: readonly number[] | undefined,
  origin: Metadata = {},
): Promise<Metadata> {
  const metadata: Metadata = {
    ...origin,
    'general.architecture': ARCHITECTURE,
    'general.name': name,
    'general.quantization_version': 2,
    'kandinsky.format_version': FORMAT_VERSION,
    'kandinsky.components': components.map((component) => component.name),
  }
  if (zeroImage) metadata['kandinsky.zero_image_embeds'] = [...zeroImage]
  for (const component of components) {
    metadata[`${component.name}.class`] = component.className
    for (const [key, value] of Object.entries(component.config)) metadata[`${component.name}.config.${key}`] = value
  }
  for (const path of await checkpoint.texts()) metadata[TEXT_PREFIX + path] = (await checkpoint.text(path))!
  return metadata
}

// Writes a checkpoint as one of our GGUF files.
import { mkdtemp, realpath, rm, stat } from 'node:fs/promises'
import { basename, dirname, extname, join, resolve } from 'node:path'
import { ggufMetadata } from './checkpoint/gguf.js'
import { type LoraFile, readLoraFile } from './checkpoint/lora-file.js'
import { combineCheckpoints, openCheckpoint } from './checkpoint/open.js'
import { type Checkpoint, type Component, expectComplete } from './checkpoint/pipeline-files.js'
import { invalid, KandinskyError } from './errors.js'
import { fileError } from './files.js'
import { resolveLora } from './hub/lora.js'
import { resolveSource } from './hub/resolve.js'
import { type Adapter, binding, type TensorSource, type WeightType } from './native.js'
import { cancellable } from './networks/cancellable.js'
import { checkThreads } from './networks/devices.js'
import { adaptersOf, checkLoraWeight, matchLora, mergeAdapters } from './networks/lora.js'
import { Network } from './networks/network.js'
import { checkWeightType, type FallbackListener, isVector, type Rule } from './networks/policy.js'
import { specsOf, tensorSources } from './networks/sources.js'
import { isRegExp } from './realms.js'
import { Tensor } from './tensor.js'

/** What `convert` takes beside its source and its output. */
export interface ConvertOptions {
  /** a prior to put into the same file, which makes it a complete text-to-image model */
  prior?: string | undefined
  /** type of the large matrices; default: as stored. See convert/policy.ts for what stays larger */
  weights?: WeightType | undefined
  /** exceptions by "<component>.<tensor name>", the first match wins */
  rules?: readonly Rule[] | undefined
  /** LoRAs to merge into the weights, each with what its additions are multiplied with (default 1) */
  loras?: readonly { source: string; weight?: number | undefined }[] | undefined
  /** parts to leave out or to do without, e.g. ['image_encoder'] in a model for text to image only */
  skip?: readonly string[] | undefined
  /** Do not run a prior's image encoder once to store what it makes of an all-zero image. Default false. */
  skipZeroImage?: boolean | undefined
  /** e.g. "fp16", where a repository has such files */
  variant?: string | undefined
  /** where the image encoder runs; default 'auto' */
  device?: string | undefined
  /** CPU threads that quantize; default: one per physical core */
  threads?: number | undefined
  signal?: AbortSignal | undefined
  /** bytes written so far, and of all */
  onProgress?: ((event: { done: number; total: number }) => void) | undefined
}

/** What `convert` wrote. */
export interface ConvertResult {
  /** absolute */
  path: string
  bytes: number
  /** names in the file */
  components: string[]
  /** what is not quite as it was asked for, in words */
  notes: string[]
}

/**
 * Converts a checkpoint (a folder in the Hugging Face diffusers layout, a hub id, or GGUF files of ours) to one GGUF file.
 *
 * Tensors are streamed one at a time. An existing output is replaced when the new file is complete; whatever stops the
 * conversion before leaves it as it was.
 *
 * With a prior, the image encoder runs once, with its weights as stored: the unconditional image embedding is a constant
 * of the checkpoint, and a text-to-image model that carries it never loads that network.
 *
 * @param output path of the .gguf file; its folder must exist
 * @throws KandinskyError `INVALID_ARGUMENT`, `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL`, `SHAPE_MISMATCH`; or
 *   `signal.reason`
 */
export async function convert(source: string, output: string, options: ConvertOptions = {}): Promise<ConvertResult> {
  checkConvertOptions(options)
  const { signal, onProgress } = options
  signal?.throwIfAborted()
  const path = await checkOutput(output)
  const before = await identityOf(path)
  const checkpoint = await openSource(source, options)
  const loras = await Promise.all((options.loras ?? []).map((lora) => openLora(lora, signal)))
  const { components, tensors, notes } = await planConversion(checkpoint, options, loras)
  await refuseOverwriting(path, [
    ...components.flatMap((component) => component.tensors.map((tensor) => tensor.path)),
    ...loras.map(({ file }) => file.path),
  ])
  const zeroImage = options.skipZeroImage ? undefined : await zeroImageEmbeds(checkpoint, path, options)
  const metadata = await ggufMetadata(basename(checkpoint.source, '.gguf'), checkpoint, components, zeroImage)
  if ((await identityOf(path)) !== before)
    throw new KandinskyError('BAD_FILE', `${path} cannot be written: another process wrote it meanwhile`)
  await cancellable(signal, (cancel) =>
    binding().writeGguf({ path, metadata, tensors, threads: checkThreads(options.threads), cancel }, (done, total) =>
      onProgress?.({ done, total }),
    ),
  )
  return { path, bytes: (await stat(path)).size, components: components.map(({ name }) => name), notes }
}

/** What decides about the content of a file. */
export type ConversionOptions = Pick<ConvertOptions, 'weights' | 'rules' | 'skip' | 'threads'>

/** What a conversion takes from where, and what it makes of it. */
export interface Conversion {
  components: Component[]
  /** under the names that they have in a file */
  tensors: TensorSource[]
  /** what is not quite as it was asked for, in words */
  notes: string[]
}

/** Checks a checkpoint and the options against each other; no weights are read yet. */
export async function planConversion(
  checkpoint: Checkpoint,
  options: ConversionOptions,
  loras: readonly WeightedLora[] = [],
): Promise<Conversion> {
  const { weights, rules } = checkConvertOptions(options)
  const components = await openComponents(checkpoint, options.skip ?? [])
  const fallbacks = new Fallbacks()
  const plain = components.flatMap((component) => fileTensors(component, weights, rules, fallbacks.add))
  const tensors = mergeAdapters(plain, adaptersIn(components, loras), weights)
  expectMatches(rules, tensors)
  return { components, tensors, notes: fallbacks.notes() }
}

/** A LoRA file and what its additions are multiplied with. */
interface WeightedLora {
  file: LoraFile
  weight: number
}

async function openLora(
  { source, weight = 1 }: { source: string; weight?: number | undefined },
  signal: AbortSignal | undefined,
): Promise<WeightedLora> {
  checkLoraWeight(weight, 'the weight of a LoRA')
  return { file: await readLoraFile(await resolveLora(source, { signal })), weight }
}

/** What LoRAs add, by the names of weights in a file. */
function adaptersIn(components: readonly Component[], loras: readonly WeightedLora[]): Map<string, Adapter[]> {
  if (loras.length === 0) return new Map()
  const targets = components.map((component) => ({ name: component.name, specs: specsOf(component) }))
  const named = loras.flatMap(({ file: lora, weight }) =>
    matchLora(lora, targets).map((layers, i) => ({
      weight,
      layers: new Map([...layers].map(([name, adapter]) => [`${components[i]!.name}.${name}`, adapter])),
    })),
  )
  return adaptersOf(named)
}

/** A component's tensors under the names they have in a file. */
function fileTensors(
  component: Component,
  weights?: WeightType,
  rules?: readonly Rule[],
  onFallback?: FallbackListener,
): TensorSource[] {
  return tensorSources(component, weights, rules, onFallback).map((tensor) => ({
    ...tensor,
    name: `${component.name}.${tensor.name}`,
  }))
}

/** Counts the matrices that a type does not fit. */
class Fallbacks {
  readonly #counts = new Map<string, number>()

  readonly add: FallbackListener = (wanted, given) => {
    const change = `${wanted} does not fit the rows of some matrices, which are ${given} instead`
    this.#counts.set(change, (this.#counts.get(change) ?? 0) + 1)
  }

  notes(): string[] {
    return [...this.#counts].map(([change, count]) => `${change}: ${count}`)
  }
}

/** A rule that changes nothing is a slip. */
function expectMatches(rules: readonly Rule[], tensors: readonly TensorSource[]): void {
  for (const { pattern } of rules)
    if (!tensors.some(({ name, shape }) => !isVector(shape) && name.search(pattern) >= 0))
      throw invalid('rules', 'patterns that match the name of a matrix', pattern.source)
}

/** @throws KandinskyError `INVALID_ARGUMENT` for what can be told without the checkpoint */
export function checkConvertOptions({ weights, rules, threads }: ConversionOptions) {
  for (const { pattern, type } of rules ?? []) {
    if (!isRegExp(pattern)) throw invalid('the pattern of a rule', 'a RegExp', pattern)
    checkWeightType(type, `the type of rule ${pattern.source}`)
  }
  checkThreads(threads)
  return { weights: checkWeightType(weights), rules: rules ?? [] }
}

async function checkOutput(output: string): Promise<string> {
  if (typeof output !== 'string' || extname(output).toLowerCase() !== '.gguf')
    throw invalid('output', 'a path that ends in .gguf', output)
  const folder = dirname(resolve(output))
  const path = join(
    await realpath(folder).catch((cause) => {
      throw fileError(folder, cause)
    }),
    basename(output),
  )
  const existing = await stat(path).catch(() => undefined)
  if (existing && !existing.isFile()) throw invalid('output', 'a file or nothing at that path', output)
  return path
}

async function openSource(source: string, { prior, variant, signal }: ConvertOptions): Promise<Checkpoint> {
  const open = async (from: string) => {
    const { path } = await resolveSource(from, { variant, signal })
    return openCheckpoint(path, { variant })
  }
  return prior === undefined ? open(source) : combineCheckpoints(await open(source), await open(prior))
}

async function openComponents(checkpoint: Checkpoint, skip: readonly string[]): Promise<Component[]> {
  const names = await checkpoint.components()
  const known = [...names, ...checkpoint.missing()]
  for (const name of skip) if (!known.includes(name)) throw invalid('skip', `names among ${known.join(', ')}`, name)
  expectComplete(checkpoint, skip, '; what shall be left out must be skipped by name')
  const kept = names.filter((name) => !skip.includes(name))
  if (kept.length === 0)
    throw new KandinskyError(
      'INVALID_ARGUMENT',
      `Expected networks to convert in ${checkpoint.source} but none is left`,
    )
  return Promise.all(kept.map(async (name) => (await checkpoint.component(name))!))
}

/** What tells one file at a path from another; undefined if there is none. */
async function identityOf(path: string): Promise<string | undefined> {
  const found = await stat(path, { bigint: true }).catch(() => undefined)
  return found && [found.dev, found.ino, found.size, found.mtimeNs].join()
}

/** Compares what files are, not how they are called: paths can differ by links. */
async function refuseOverwriting(output: string, sources: string[]): Promise<void> {
  const existing = await stat(output).catch(() => undefined)
  if (!existing) return
  for (const source of new Set(sources)) {
    const { dev, ino } = await stat(source)
    if (dev === existing.dev && ino === existing.ino)
      throw invalid('output', 'a file that is not being converted', output)
  }
}

/**
 * What the prior's image encoder makes of an all-zero tensor (not of a black picture): the embedding that guidance
 * pushes away from (diffusers' get_zero_embed). Undefined where there is no prior or no image encoder.
 *
 * The weights stay as stored, which in 2.2 are 3.7 GB. Only our own files can be mapped, since other formats do not align
 * tensors, so the network is copied to a temporary one first: memory stays small, and the disk has room for an output.
 */
export async function zeroImageEmbeds(
  checkpoint: Checkpoint,
  output: string,
  options: ConvertOptions,
): Promise<readonly number[] | undefined> {
  const prior = checkpoint.side('prior')
  if (prior?.zeroImageEmbeds) return prior.zeroImageEmbeds
  const component = await prior?.component('image_encoder')
  if (!component) return undefined
  if (component.tensors.every(({ path }) => path.endsWith('.gguf'))) return embedZeros(component, options)
  const folder = await mkdtemp(join(dirname(output), '.kandinsky-')).catch((cause) => {
    throw fileError(dirname(output), cause)
  })
  const path = join(folder, 'image_encoder.gguf')
  const metadata = await ggufMetadata('image_encoder', prior!, [component], undefined)
  const job = { path, metadata, tensors: fileTensors(component), threads: checkThreads(options.threads) }
  try {
    await cancellable(options.signal, (cancel) => binding().writeGguf({ ...job, cancel }))
    return await embedZeros((await (await openCheckpoint(path)).component('image_encoder'))!, options)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function embedZeros(component: Component, { device, threads, signal }: ConvertOptions): Promise<number[]> {
  const encoder = new Network<'CLIPVisionModelWithProjection'>(component, { device, threads })
  try {
    const side = Number(component.config.image_size ?? 224)
    const zeros = new Tensor(new Float32Array(3 * side * side), [1, 3, side, side])
    const { image_embeds } = await encoder.run('forward', { pixel_values: zeros }, { signal })
    return [...image_embeds!.data]
  } finally {
    await encoder.dispose()
  }
}

// What a checkpoint looks like, whatever form it has on disk, and how two pipelines share one.
import { KandinskyError } from '../errors.js'
import type { Config } from '../native.js'
import type { StoredTensor } from './formats/stored.js'

/** One network as it lies on disk. */
export interface Component {
  /** as the pipeline calls it, e.g. "unet" */
  name: string
  /** the reference's class, e.g. "UNet2DConditionModel" */
  className: string
  config: Config
  tensors: StoredTensor[]
}

/** The two pipelines of the reference that make pictures from text, one after the other. */
export type Side = 'prior' | 'decoder'

export interface Checkpoint {
  /** the path it was opened from */
  readonly source: string
  /** What the image encoder makes of an all-zero image, where the file carries it; saves loading that network. */
  readonly zeroImageEmbeds: readonly number[] | undefined
  /** Paths of all small text files: model_index.json, scheduler and tokenizer files. */
  texts(): Promise<string[]>
  /**
   * A small text file by its path in the repository, e.g. "scheduler/scheduler_config.json"; undefined if absent.
   * SentencePiece models (.model) are given in base64.
   */
  text(path: string): Promise<string | undefined>
  /** Names of the networks. */
  components(): Promise<string[]>
  /** Opens one network's config and list of tensors; undefined if absent. */
  component(name: string): Promise<Component | undefined>
  /** One pipeline's files under their own names, or undefined if the checkpoint does not hold that pipeline. */
  side(side: Side): PipelineFiles | undefined
  /**
   * The parts that a folder's model_index.json promises and the folder lacks. Files of ours lack only what `convert` was
   * told to skip.
   */
  missing(): string[]
}

/** Reads when asked, so that opening a checkpoint costs nothing for the networks that are not used. */
type Lazy<T> = () => Promise<T>

/** The files of one pipeline. */
export class PipelineFiles implements Checkpoint {
  readonly zeroImageEmbeds: readonly number[] | undefined

  /** @param slots the pipeline's parts and their classes, from model_index.json */
  constructor(
    readonly source: string,
    readonly slots: ReadonlyMap<string, string>,
    readonly textFiles: ReadonlyMap<string, Lazy<string>>,
    readonly networks: ReadonlyMap<string, Lazy<Component>>,
    zeroImageEmbeds?: readonly number[],
  ) {
    this.zeroImageEmbeds = zeroImageEmbeds
  }

  async texts(): Promise<string[]> {
    return [...this.textFiles.keys()]
  }

  async text(path: string): Promise<string | undefined> {
    return this.textFiles.get(path)?.()
  }

  async components(): Promise<string[]> {
    return [...this.networks.keys()]
  }

  async component(name: string): Promise<Component | undefined> {
    const found = await this.networks.get(name)?.()
    return found && this.#asUsed(found)
  }

  /** Kandinsky 5's Qwen comes whole; without a picture to change its vision tower is not used, which takes 1.4 GB. */
  async #asUsed(component: Component): Promise<Component> {
    if (component.className !== 'Qwen2_5_VLForConditionalGeneration') return component
    const transformer = await this.networks.get('transformer')?.()
    if (!transformer || transformer.config.visual_cond === true) return component
    return { ...component, tensors: component.tensors.filter(({ name }) => !name.startsWith('visual.')) }
  }

  side(side: Side): PipelineFiles | undefined {
    return side === (this.slots.has('prior') ? 'prior' : 'decoder') ? this : undefined
  }

  missing(): string[] {
    return []
  }
}

/**
 * A prior and a decoder under the names that one file can hold both by: the prior's text files are prefixed with
 * "prior_", and so are its networks where the decoder has a part of the same name (2.1's text_encoder).
 */
export class CombinedFiles implements Checkpoint {
  constructor(
    readonly source: string,
    readonly decoder: PipelineFiles,
    readonly prior: PipelineFiles,
  ) {}

  get zeroImageEmbeds(): readonly number[] | undefined {
    return this.prior.zeroImageEmbeds
  }

  async texts(): Promise<string[]> {
    return [...this.decoder.textFiles.keys(), ...[...this.prior.textFiles.keys()].map((path) => PRIOR + path)]
  }

  async text(path: string): Promise<string | undefined> {
    return path.startsWith(PRIOR) ? this.prior.text(path.slice(PRIOR.length)) : this.decoder.text(path)
  }

  async components(): Promise<string[]> {
    const prior = [...this.prior.networks.keys()].map((name) => combinedName(name, this.decoder.slots))
    return [...this.decoder.networks.keys(), ...prior]
  }

  async component(name: string): Promise<Component | undefined> {
    for (const own of this.prior.networks.keys())
      if (combinedName(own, this.decoder.slots) === name) return { ...(await this.prior.component(own))!, name }
    return this.decoder.component(name)
  }

  side(side: Side): PipelineFiles {
    return this[side]
  }

  missing(): string[] {
    return [...this.decoder.missing(), ...this.prior.missing().map((name) => combinedName(name, this.decoder.slots))]
  }
}

/** @throws KandinskyError `FILE_NOT_FOUND` that names every missing part but those to `ignore` */
export function expectComplete(checkpoint: Checkpoint, ignore: readonly string[], advice = ''): void {
  const missing = checkpoint.missing().filter((name) => !ignore.includes(name))
  if (missing.length > 0)
    throw new KandinskyError(
      'FILE_NOT_FOUND',
      `${checkpoint.source} lacks the files of ${missing.join(', ')}, which its model_index.json names${advice}`,
    )
}

/** What the prior's parts and files are prefixed with beside a decoder's. */
export const PRIOR = 'prior_'

function combinedName(name: string, decoderSlots: ReadonlyMap<string, string>): string {
  return decoderSlots.has(name) ? PRIOR + name : name
}

/** Divides the flat names of one of our files into its pipelines; the inverse of CombinedFiles. */
export function splitFiles(
  source: string,
  texts: ReadonlyMap<string, Lazy<string>>,
  networks: ReadonlyMap<string, Lazy<Component>>,
  indexes: { own: ReadonlyMap<string, string>; prior: ReadonlyMap<string, string> | undefined },
  zeroImageEmbeds?: readonly number[],
): PipelineFiles | CombinedFiles {
  const { own, prior: priorSlots } = indexes
  if (!priorSlots) return new PipelineFiles(source, own, texts, networks, zeroImageEmbeds)
  const all = [...texts]
  const decoderTexts = new Map(all.filter(([path]) => !path.startsWith(PRIOR)))
  const priorTexts = new Map(
    all.filter(([path]) => path.startsWith(PRIOR)).map(([path, read]) => [path.slice(PRIOR.length), read]),
  )
  const pick = (slots: ReadonlyMap<string, string>, stored: (name: string) => string) =>
    new Map(
      [...slots.keys()].flatMap((name) => {
        const open = networks.get(stored(name))
        return open ? [[name, async () => ({ ...(await open()), name })] as const] : []
      }),
    )
  return new CombinedFiles(
    source,
    new PipelineFiles(
      source,
      own,
      decoderTexts,
      pick(own, (name) => name),
    ),
    new PipelineFiles(
      source,
      priorSlots,
      priorTexts,
      pick(priorSlots, (name) => combinedName(name, own)),
      zeroImageEmbeds,
    ),
  )
}

/** Puts several files of one pipeline together, e.g. one GGUF file per network. */
export function mergeFiles(source: string, parts: readonly PipelineFiles[]): PipelineFiles {
  const owners = new Map<string, PipelineFiles>()
  for (const part of parts)
    for (const name of part.networks.keys()) {
      const owner = owners.get(name)
      if (owner)
        throw new KandinskyError(
          'INVALID_ARGUMENT',
          `Both ${owner.source} and ${part.source} hold a ${name}; pass one of the files instead of their folder`,
        )
      owners.set(name, part)
    }
  return new PipelineFiles(
    source,
    new Map(parts.flatMap((part) => [...part.slots])),
    new Map(parts.flatMap((part) => [...part.textFiles])),
    new Map(parts.flatMap((part) => [...part.networks])),
    parts.find((part) => part.zeroImageEmbeds)?.zeroImageEmbeds,
  )
}

/** The parts that a model_index.json lists, with their classes. @throws KandinskyError `BAD_FILE`, `UNSUPPORTED_MODEL` */
export function pipelineSlots(modelIndex: string, source: string): Map<string, string> {
  let index: unknown
  try {
    index = JSON.parse(modelIndex)
  } catch (cause) {
    throw new KandinskyError('BAD_FILE', `${source} has a model_index.json that is not valid JSON`, { cause })
  }
  const entries = Object.entries(index ?? {})
  const className = entries.find(([key]) => key === '_class_name')?.[1]
  if (typeof className !== 'string' || !className.startsWith('Kandinsky'))
    throw new KandinskyError(
      'UNSUPPORTED_MODEL',
      `Expected a Kandinsky pipeline in ${source} but its model_index.json says ${JSON.stringify(className)}`,
    )
  const slots = new Map<string, string>()
  for (const [name, value] of entries)
    if (!name.startsWith('_') && Array.isArray(value) && typeof value[1] === 'string') slots.set(name, value[1])
  return slots
}

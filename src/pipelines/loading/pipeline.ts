// What every pipeline is: parts that it declares, loaded from a checkpoint, and freed together.
import { type Checkpoint, expectComplete, PipelineFiles, type Side } from '../../checkpoint/pipeline-files.js'
import { invalid } from '../../errors.js'
import type { NetworkGroup } from '../../networks/group.js'
import { networkOptionNames } from '../../networks/network.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import { expectOptions } from '../call/options.js'
import { LoraLoader } from './lora.js'
import { openSource, requireSide, sourceOptionNames } from './open.js'
import {
  type ComponentsOf,
  checkPretrainedOptions,
  expectNetworks,
  loadParts,
  networksOf,
  type Parts,
  type PretrainedOptions,
  shareParts,
} from './parts.js'

/** A pipeline's class with its declaration. */
export interface PipelineClass<Instance> {
  readonly parts: Parts
  readonly side: Side
  // biome-ignore lint/suspicious/noExplicitAny: what its own parts become
  new (components: any): Instance
}

export abstract class Pipeline<Components extends object> extends LoraLoader {
  /** which of a checkpoint's two pipelines this is; families without a prior have decoders only */
  static readonly side: Side = 'decoder'
  readonly components: Components

  constructor(components: Components) {
    super()
    this.components = components
  }

  /**
   * @param source a .gguf file, a folder of them, a folder in the Hugging Face layout, or a hub id; it may hold more than
   *   this pipeline needs
   * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL` (also for a checkpoint of another task),
   *   `DEVICE_UNAVAILABLE`, `OUT_OF_MEMORY`, `INVALID_ARGUMENT`
   */
  static async fromPretrained<Instance>(
    this: PipelineClass<Instance>,
    source: string,
    options: PretrainedOptions = {},
  ): Promise<Instance> {
    // biome-ignore-start lint/complexity/noThisInStatic: the class that it is called on
    expectOptions(options, pretrainedOptionNames(this.parts))
    checkPretrainedOptions(options)
    return load(this, await openSource(source, options), options)
    // biome-ignore-end lint/complexity/noThisInStatic: the class that it is called on
  }

  /** From an opened checkpoint. */
  static async fromCheckpoint<Instance>(
    this: PipelineClass<Instance>,
    checkpoint: Checkpoint,
    options: PretrainedOptions,
  ): Promise<Instance> {
    // biome-ignore-start lint/complexity/noThisInStatic: the class that it is called on
    expectOptions(options, pretrainedOptionNames(this.parts))
    return load(this, checkpoint, options)
    // biome-ignore-end lint/complexity/noThisInStatic: the class that it is called on
  }

  /**
   * Another task with the networks of a loaded pipeline (diffusers' `from_pipe`): both share them, so that `dispose` of
   * either ends both. The scheduler is a copy of the one that it has now.
   * @throws KandinskyError `UNSUPPORTED_MODEL` where a network is missing or was trained for another task
   */
  static fromPipe<Instance>(this: PipelineClass<Instance>, pipe: Pipeline<object>): Instance {
    // biome-ignore-start lint/complexity/noThisInStatic: the class that it is called on
    if (!(pipe instanceof Pipeline)) throw invalid('pipe', 'a pipeline of one checkpoint', pipe)
    const { scheduler } = pipe as Pipeline<object> & { scheduler?: Scheduler }
    const components = shareParts(this.parts, pipe.components, `the ${pipe.constructor.name}`)
    return new this({ ...components, ...(scheduler && { scheduler: scheduler.clone() }) })
    // biome-ignore-end lint/complexity/noThisInStatic: the class that it is called on
  }

  protected override get networks() {
    return networksOf(this.components)
  }

  /** Waits for running calls, then frees every network. Later calls reject with `DISPOSED`. Idempotent. */
  async dispose(): Promise<void> {
    await Promise.all(this.networks.map((network) => network.dispose()))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }
}

/** A pipeline from an opened checkpoint. */
export async function load<Instance>(
  Class: PipelineClass<Instance>,
  checkpoint: Checkpoint,
  options: PretrainedOptions,
  group?: NetworkGroup,
): Promise<Instance> {
  const own = requireSide(checkpoint, Class.side)
  const side = options.unet !== undefined && 'unet' in Class.parts ? await withUNet(own, options.unet, options) : own
  await expectNetworks(Class.parts, side)
  expectComplete(side, typeof options.scheduler === 'object' ? ['scheduler'] : [])
  const components: ComponentsOf<Parts> = await loadParts(Class.parts, side, options, group)
  return new Class(components)
}

/** The files of a pipeline with the UNet of another place. */
async function withUNet(files: PipelineFiles, source: string, options: PretrainedOptions): Promise<PipelineFiles> {
  const { subfolder: _, revision: __, ...rest } = options // of the pipeline's own source
  const unet = await (await openSource(source, rest, 'unet')).component('unet')
  if (!unet) throw invalid('unet', 'a place that holds a UNet', source)
  const networks = new Map([...files.networks, ['unet', async () => ({ ...unet, name: 'unet' })]] as const)
  return new PipelineFiles(files.source, files.slots, files.textFiles, networks, files.zeroImageEmbeds)
}

/** The options that loading these parts takes. */
export function pretrainedOptionNames(parts: Parts): string[] {
  const all = Object.values(parts)
  const networks = all.flatMap(({ network }) => network ?? [])
  const tiled = networks.some(({ className }) => className === 'VQModel' || className === 'AutoencoderKL')
  return [
    ...sourceOptionNames,
    ...networkOptionNames.filter((name) => name !== 'tiling' || tiled),
    ...(all.some(({ isScheduler }) => isScheduler) ? ['scheduler'] : []),
    ...(networks.length > 1 ? ['offload'] : []),
    ...('unet' in parts ? ['unet'] : []),
  ]
}

// What pipelines are made of. A pipeline declares its parts under the names that `components` gives them:
//
//     static readonly parts = { scheduler: scheduler(), movq: network('VQModel'), tokenizer: tokenizer(ClipTokenizer) }
//
// and `loadParts` opens each of them, in this order, with the types that the declaration implies. In a checkpoint a part
// has its name in snake_case, as in the reference: textEncoder is text_encoder, textEncoder2 text_encoder_2.
import { type Checkpoint, readJson } from '../../checkpoint/open.js'
import type { Component } from '../../checkpoint/pipeline-files.js'
import { invalid, KandinskyError } from '../../errors.js'
import type { ConfigValue } from '../../native.js'
import type { NetworkClass } from '../../networks/calls.js'
import { NetworkGroup } from '../../networks/group.js'
import { checkNetworkOptions, Network, type NetworkOptions } from '../../networks/network.js'
import { schedulerByName, schedulerFromConfig } from '../../schedulers/registry.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import { Tensor } from '../../tensor.js'
import type { TokenizerFiles } from '../../tokenizers/tokenizer.js'
import { type CallDefaults, readCallDefaults } from '../call/defaults.js'
import { expectOneOf } from '../call/options.js'
import { identify, type ModelIdentity } from '../call/provenance.js'
import type { SourceOptions } from './open.js'

/** What every `fromPretrained` takes; pipelines without a scheduler or with a single network leave out what is theirs. */
export interface PretrainedOptions extends SourceOptions, NetworkOptions {
  /**
   * Where another UNet is, of the same architecture as the checkpoint's own, such as a fine-tune: a network's folder, a
   * checkpoint whose UNet is taken, or a hub id
   */
  unet?: string | undefined
  /** a scheduler or its name (`ddim`), instead of the checkpoint's own */
  scheduler?: Scheduler | string | undefined
  /** `model` keeps only the running network on the device and loads it when its turn comes; default `none` */
  offload?: 'none' | 'model' | undefined
}

/** What can be checked before the checkpoint is looked for, which may mean a download of hours. */
export function checkPretrainedOptions(options: PretrainedOptions): void {
  const { scheduler, offload = 'none' } = options
  checkNetworkOptions(options)
  if (options.unet !== undefined && (typeof options.unet !== 'string' || options.unet === ''))
    throw invalid('unet', 'a path or hub id', options.unet)
  expectOneOf('offload', offload, ['none', 'model'])
  if (typeof scheduler === 'string') schedulerByName(scheduler, {})
  else if (scheduler !== undefined) expectScheduler(scheduler)
}

interface Opening {
  checkpoint: Checkpoint
  /** the part's name in the checkpoint */
  slot: string
  options: PretrainedOptions
  group: NetworkGroup | undefined
}

export interface Part<T> {
  /** of networks: what to know before anything is loaded */
  readonly network?: NetworkRequirement
  /** whether a checkpoint may lack it */
  readonly isOptional?: boolean
  readonly isScheduler?: boolean
  open(opening: Opening): Promise<T>
}

export type Parts = Readonly<Record<string, Part<unknown>>>

type Content<P> = P extends Part<infer T> ? T : never
/** What the parts become; those that a checkpoint may lack are optional. */
export type ComponentsOf<P extends Parts> = {
  [Name in keyof P as undefined extends Content<P[Name]> ? never : Name]: Content<P[Name]>
} & {
  [Name in keyof P as undefined extends Content<P[Name]> ? Name : never]?: Content<P[Name]>
}

export interface NetworkRequirement {
  readonly className: NetworkClass
  /** loads when it first runs: large and rarely needed */
  readonly late?: boolean
  /** values that its config must have, and what for; the reference fails deep inside a network instead */
  readonly config?: Readonly<Record<string, ConfigValue>>
  readonly purpose?: string
}

/** A network, which a checkpoint must have. */
export function network<Class extends NetworkClass>(
  className: Class,
  requirement: Omit<NetworkRequirement, 'className'> = {},
): Part<Network<Class>> {
  const required: NetworkRequirement = { ...requirement, className }
  return { network: required, open: async (opening) => openNetwork(await componentOf(opening), required, opening) }
}

/** A network that a checkpoint may lack. */
export function optionalNetwork<Class extends NetworkClass>(
  className: Class,
  requirement: Omit<NetworkRequirement, 'className'> = {},
): Part<Network<Class> | undefined> {
  const { open, ...rest } = network(className, requirement)
  return {
    ...rest,
    isOptional: true,
    open: async (opening) => ((await componentOf(opening)) ? open(opening) : undefined),
  }
}

function componentOf({ checkpoint, slot }: Opening): Promise<Component | undefined> {
  return checkpoint.component(slot)
}

function openNetwork<Class extends NetworkClass>(
  component: Component | undefined,
  requirement: NetworkRequirement,
  { checkpoint, slot, options, group }: Opening,
): Network<Class> {
  return new Network<Class>(expectNetwork(component, requirement, slot, checkpoint.source), { ...options, group })
}

/** @param source where it comes from, for messages */
function expectNetwork<Given extends Pick<Component, 'className' | 'config'>>(
  component: Given | undefined,
  { className, config = {}, purpose }: NetworkRequirement,
  slot: string,
  source: string,
): Given {
  if (component?.className !== className)
    throw new KandinskyError(
      'UNSUPPORTED_MODEL',
      `Expected a ${className} as ${slot} of ${source} but found ${component?.className ?? 'none with a config and weights'}`,
    )
  const wanted = Object.entries(config)
  if (wanted.some(([key, value]) => component.config[key] !== value))
    throw new KandinskyError(
      'UNSUPPORTED_MODEL',
      `Expected a ${slot} for ${purpose} (${wanted.map(describeValue).join(', ')}) ` +
        `but that of ${source} has ${wanted.map(([key]) => component.config[key]).join(' and ')}`,
    )
  return component
}

/**
 * The components of a loaded pipeline as those of another task.
 * @param source how messages call the pipeline
 * @throws KandinskyError `UNSUPPORTED_MODEL` for a network that it lacks or that was trained for another task
 */
export function shareParts<P extends Parts>(parts: P, components: object, source: string): ComponentsOf<P> {
  const given = components as Record<string, unknown>
  for (const [name, { network, isOptional }] of Object.entries(parts))
    if (network && !(isOptional && given[name] === undefined))
      expectNetwork(given[name] instanceof Network ? given[name] : undefined, network, snakeCase(name), source)
  return Object.fromEntries(Object.keys(parts).map((name) => [name, given[name]])) as ComponentsOf<P>
}

function describeValue([key, value]: [string, ConfigValue]): string {
  return key === 'in_channels' ? `${value} input channels` : `${key} ${value}`
}

/** What reads texts, from the files in the folder of its slot. */
export function tokenizer<T>(tokenizerClass: { fromFiles(files: TokenizerFiles): T }): Part<T> {
  return {
    async open({ checkpoint, slot }) {
      const files: Record<string, string> = {}
      for (const name of await checkpoint.texts())
        if (name.startsWith(`${slot}/`)) files[name.slice(slot.length + 1)] = (await checkpoint.text(name))!
      return tokenizerClass.fromFiles(files)
    },
  }
}

/** The checkpoint's scheduler, or the one that the options name. */
export function scheduler(): Part<Scheduler> {
  return {
    isScheduler: true,
    async open({ checkpoint, slot, options: { scheduler: wanted } }) {
      if (wanted !== undefined && typeof wanted !== 'string') return expectScheduler(wanted)
      const config = await schedulerConfig(checkpoint, slot)
      const own = storedScheduler(config, checkpoint)
      return wanted === undefined ? own : schedulerByName(wanted, own.config)
    },
  }
}

export function expectScheduler(value: unknown): Scheduler {
  if (typeof (value as Scheduler | null)?.step !== 'function') throw invalid('scheduler', 'a scheduler', value)
  return value as Scheduler
}

/** The settings that a checkpoint stores for a scheduler. */
export async function schedulerConfig(checkpoint: Checkpoint, subfolder: string): Promise<object> {
  const file = `${subfolder}/scheduler_config.json`
  const config = await readJson(checkpoint, file)
  if (config === undefined) throw new KandinskyError('FILE_NOT_FOUND', `Expected ${file} in ${checkpoint.source}`)
  return config
}

function storedScheduler(config: object, { source }: Checkpoint): Scheduler {
  try {
    return schedulerFromConfig(config)
  } catch (cause) {
    const message = `The scheduler of ${source} is not supported: ${(cause as Error).message}`
    throw new KandinskyError('UNSUPPORTED_MODEL', message, { cause })
  }
}

/** Settings in a JSON file that a checkpoint may lack. @param file its path in the repository */
export function settings<Settings extends object>(file: string): Part<Settings | undefined> {
  return { open: async ({ checkpoint }) => (await readJson(checkpoint, file)) as Settings | undefined }
}

/** The checkpoint's own defaults for calls, which go before those of the reference. */
export function callDefaults(): Part<CallDefaults | undefined> {
  return { open: ({ checkpoint }) => readCallDefaults(checkpoint) }
}

/** What recipes name a checkpoint by. */
export function modelIdentity(): Part<ModelIdentity | undefined> {
  return { open: ({ checkpoint }) => identify(checkpoint) }
}

/** [1, embeddingDim]: what the image encoder makes of an all-zero tensor, where `convert` stored it. */
export function zeroImageEmbeds(): Part<Tensor | undefined> {
  return {
    open: async ({ checkpoint: { zeroImageEmbeds: values } }) =>
      values && new Tensor(Float32Array.from(values), [1, values.length]),
  }
}

/** The group in which `offload: 'model'` makes networks take turns. */
export function offloadGroup({ offload = 'none' }: PretrainedOptions): NetworkGroup | undefined {
  return expectOneOf('offload', offload, ['none', 'model']) === 'model' ? new NetworkGroup() : undefined
}

/**
 * Tells a checkpoint of another family or task by the networks that it has, before a tokenizer or a prior is missed. Reads
 * no weights.
 * @throws KandinskyError `UNSUPPORTED_MODEL`
 */
export async function expectNetworks(parts: Parts, checkpoint: Checkpoint): Promise<void> {
  for (const [name, { network }] of Object.entries(parts)) {
    const component = network && (await checkpoint.component(snakeCase(name)))
    if (component) expectNetwork(component, network, snakeCase(name), checkpoint.source)
  }
}

/**
 * Opens every part, then loads the networks that are not late; with a group they load when their turn comes.
 * @throws KandinskyError `UNSUPPORTED_MODEL` for what is missing or of another kind, and whatever opening a part throws
 */
export async function loadParts<P extends Parts>(
  parts: P,
  checkpoint: Checkpoint,
  options: PretrainedOptions,
  group = offloadGroup(options),
): Promise<ComponentsOf<P>> {
  const components: Record<string, unknown> = {}
  for (const [name, part] of Object.entries(parts))
    components[name] = await part.open({ checkpoint, slot: snakeCase(name), options, group })
  const first = Object.entries(parts).filter(([, { network }]) => network && !network.late)
  if (!group)
    await loadNetworks(networksOf(Object.fromEntries(first.map(([name]) => [name, components[name]]))), options)
  return components as ComponentsOf<P>
}

async function loadNetworks(networks: Network[], { signal, onProgress }: PretrainedOptions): Promise<void> {
  try {
    for (const one of networks) {
      const report = (done: number, total: number) => onProgress?.({ type: 'load', name: one.name, done, total })
      await one.load({ signal, onProgress: report })
    }
  } catch (error) {
    await Promise.all(networks.map((one) => one.dispose()))
    throw error
  }
}

/** The networks among components. */
export function networksOf(components: object): Network[] {
  return Object.values(components).filter((part) => part instanceof Network)
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]|\d+/g, (letter) => `_${letter.toLowerCase()}`)
}

// From a source string to the parts of a pipeline: networks on their device, tokenizer, scheduler.
import { existsSync } from 'node:fs'
import path from 'node:path'
import { type Checkpoint, openCheckpoint, readJson, type Side } from '../../checkpoint/open.js'
import { invalid, KandinskyError } from '../../errors.js'
import { connectedPrior, resolveSource } from '../../hub/resolve.js'
import type { ClipProcessorConfig } from '../../images/processing.js'
import type { DptProcessorConfig } from '../../images/processing-depth.js'
import type { Packing, Tiling, WeightType } from '../../native.js'
import { Model, ModelGroup, type ModelOptions } from '../../networks/network.js'
import { schedulerByName, schedulerFromConfig } from '../../schedulers/registry.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import { Tensor } from '../../tensor.js'
import { ClipTokenizer } from '../../tokenizers/clip.js'
import { XlmRobertaTokenizer } from '../../tokenizers/xlm-roberta.js'
import { readCallDefaults } from '../call/defaults.js'
import { expectOneOf, expectOptions } from '../call/options.js'
import { identify } from '../call/provenance.js'
import { type DecoderComponents, type DecoderTask, disposeDecoder } from '../kandinsky2/decoder.js'
import type { PriorComponents } from '../kandinsky2/prior.js'

export interface LoadProgress {
  type: 'download' | 'load'
  /** file being downloaded, or network being loaded */
  name: string
  /** bytes */
  done: number
  total: number
}

export interface PretrainedOptions {
  /** folder inside `source` that holds the pipeline */
  subfolder?: string | undefined
  /** `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1` …; default `auto` */
  device?: string | undefined
  /** type of the large matrices in memory; default: as stored */
  weights?: WeightType | undefined
  /** weight files to read from a folder, e.g. `fp16`; default: the plain ones */
  variant?: string | undefined
  /** a scheduler or its name (`ddim`), instead of the checkpoint's own */
  scheduler?: Scheduler | string | undefined
  /** `model` keeps only the running network on the device and loads it when its turn comes; default `none` */
  offload?: 'none' | 'model' | undefined
  /** CPU threads, default one per physical core */
  threads?: number | undefined
  /**
   * CPU only. `compact` (default) leaves weights in memory as stored and expands each as it is used; `fast` expands
   * those of the prior and the UNet once per picture and keeps them, 2 to 8 bytes each, until their loop is over
   */
  packing?: Packing | undefined
  /**
   * when MoVQ computes pictures in tiles: the same result in less than half the memory, somewhat slower. `auto`: when
   * memory would not suffice; `always`; `never`. Default `auto`; priors have no MoVQ and do not take it
   */
  tiling?: Tiling | undefined
  /** where downloads are kept; default: the Hugging Face cache */
  cacheDir?: string | undefined
  /** branch, tag or commit of a hub repository; default `main` */
  revision?: string | undefined
  /** access token of the hub; default: `HF_TOKEN` or the saved one */
  token?: string | undefined
  /** aborts downloading and loading */
  signal?: AbortSignal | undefined
  onProgress?: ((progress: LoadProgress) => void) | undefined
}

const pretrainedOptions = [
  ...['subfolder', 'device', 'weights', 'variant', 'scheduler', 'offload', 'threads', 'packing', 'tiling'],
  ...['cacheDir', 'revision', 'token', 'signal', 'onProgress'],
]

export interface CombinedPretrainedOptions extends PretrainedOptions {
  /** where the prior is, when `source` holds only the decoder and does not say */
  prior?: string | undefined
}

/** Resolves, downloads where needed, and opens one side of a checkpoint. */
export async function openSide(source: string, side: Side, options: PretrainedOptions): Promise<Checkpoint> {
  expectOptions(options, side === 'prior' ? pretrainedOptions.filter((name) => name !== 'tiling') : pretrainedOptions)
  return requireSide(await open(source, options), side)
}

/**
 * The prior and the decoder of a source that holds both, or of a decoder and its prior: the `prior` option, or the
 * repository that the decoder's model card names (as diffusers finds it), which may also lie beside the decoder's folder.
 */
export async function openCombined(
  source: string,
  options: CombinedPretrainedOptions,
): Promise<{ prior: Checkpoint; decoder: Checkpoint }> {
  const { prior: priorSource, ...rest } = options
  expectOptions(rest, pretrainedOptions)
  const checkpoint = await open(source, rest)
  const decoder = requireSide(checkpoint, 'decoder')
  const own = priorSource === undefined ? checkpoint.side('prior') : undefined
  if (own) return { prior: own, decoder }
  const connected = priorSource ?? (await findPrior(decoder))
  if (connected === undefined)
    throw new KandinskyError(
      'INVALID_ARGUMENT',
      `Expected a prior: ${checkpoint.source} holds only a decoder and names none; pass the option prior`,
    )
  // The prior is a repository of its own: the decoder's folder and revision mean nothing there.
  const elsewhere = { ...rest, subfolder: undefined, revision: undefined }
  return { prior: requireSide(await open(connected, elsewhere), 'prior'), decoder }
}

async function open(source: string, options: PretrainedOptions): Promise<Checkpoint> {
  const { subfolder, variant, cacheDir, revision, token, signal, onProgress } = options
  signal?.throwIfAborted()
  const resolved = await resolveSource(source, {
    ...{ subfolder, variant, cacheDir, revision, token, signal },
    onProgress: ({ file, done, total }) => onProgress?.({ type: 'download', name: file, done, total }),
  })
  // A subfolder of a hub repository may resolve to the one .gguf file in it.
  const inside = path.extname(resolved.path) === '.gguf' ? undefined : subfolder
  return openCheckpoint(resolved.path, { subfolder: inside, variant })
}

function requireSide(checkpoint: Checkpoint, side: Side): Checkpoint {
  const found = checkpoint.side(side)
  if (found) return found
  throw new KandinskyError('UNSUPPORTED_MODEL', `Expected a ${side} but ${checkpoint.source} holds none`)
}

async function findPrior(decoder: Checkpoint): Promise<string | undefined> {
  const id = connectedPrior((await decoder.text('README.md')) ?? '')
  if (id === undefined) return undefined
  const beside = path.join(path.dirname(decoder.source), path.basename(id))
  return existsSync(beside) ? beside : id
}

/** The two pipelines' parts, loaded on one device; with `offload: 'model'` they share it network by network. */
export async function loadCombined(
  { prior, decoder }: { prior: Checkpoint; decoder: Checkpoint },
  options: CombinedPretrainedOptions,
  task: DecoderTask,
): Promise<{ prior: PriorComponents; decoder: DecoderComponents }> {
  const { prior: _, ...rest } = options
  const group = offloadGroup(rest)
  const decoderParts = await loadDecoderComponents(decoder, rest, task, group)
  try {
    // `scheduler` means the decoder's: the prior works with its own kind only.
    return { prior: await loadPriorComponents(prior, { ...rest, scheduler: undefined }, group), decoder: decoderParts }
  } catch (error) {
    await disposeDecoder(decoderParts)
    throw error
  }
}

export async function loadPriorComponents(
  checkpoint: Checkpoint,
  options: PretrainedOptions,
  group = offloadGroup(options),
): Promise<PriorComponents> {
  const scheduler = await chooseScheduler(checkpoint, options.scheduler)
  const tokenizer = ClipTokenizer.fromFiles(await folderTexts(checkpoint, 'tokenizer'))
  const imageProcessor = await readJson(checkpoint, 'image_processor/preprocessor_config.json')
  const defaults = await readCallDefaults(checkpoint)
  const { prior, text_encoder, image_encoder } = await createModels(
    checkpoint,
    { prior: 'PriorTransformer', text_encoder: 'CLIPTextModelWithProjection' },
    { image_encoder: 'CLIPVisionModelWithProjection' },
    { ...options, group },
  )
  const zero = checkpoint.zeroImageEmbeds
  // The image encoder is the largest network of all and rarely needed: it loads on first use.
  await loadModels([text_encoder!, prior!], options, group)
  return {
    prior: prior!,
    textEncoder: text_encoder!,
    imageEncoder: image_encoder,
    tokenizer,
    scheduler,
    imageProcessor: imageProcessor as ClipProcessorConfig | undefined,
    defaults,
    zeroImageEmbeds: zero && new Tensor(Float32Array.from(zero), [1, zero.length]),
  }
}

export async function loadDecoderComponents(
  checkpoint: Checkpoint,
  options: PretrainedOptions,
  task: DecoderTask,
  group = offloadGroup(options),
): Promise<DecoderComponents> {
  const scheduler = await chooseScheduler(checkpoint, options.scheduler)
  const defaults = await readCallDefaults(checkpoint)
  const wanted = { unet: 'UNet2DConditionModel', movq: 'VQModel' }
  const { unet, movq } = await createModels(checkpoint, wanted, {}, { ...options, group })
  expectTask(unet!, task, checkpoint)
  const reader = task.textEncoder ? await loadReader(checkpoint, task.textEncoder, { ...options, group }) : undefined
  await loadModels([...(reader ? [reader.textEncoder] : []), unet!, movq!], options, group)
  return { ...reader, unet: unet!, movq: movq!, scheduler, defaults, identity: await identify(checkpoint) }
}

/** How the decoders of 2.1 read prompts; nothing is loaded yet. */
async function loadReader(checkpoint: Checkpoint, className: string, options: ModelOptions) {
  const tokenizer = XlmRobertaTokenizer.fromFiles(await folderTexts(checkpoint, 'tokenizer'))
  const { text_encoder } = await createModels(checkpoint, { text_encoder: className }, {}, options)
  return { textEncoder: text_encoder!, tokenizer }
}

/** Options that say something about one network; a depth estimator has no scheduler, and nothing to take turns with. */
export type NetworkPretrainedOptions = Omit<PretrainedOptions, 'scheduler' | 'offload' | 'tiling'>

export async function loadDepthComponents(
  source: string,
  options: NetworkPretrainedOptions,
): Promise<{ network: Model; imageProcessor: DptProcessorConfig }> {
  const allowed = pretrainedOptions.filter((name) => !['scheduler', 'offload', 'tiling'].includes(name))
  expectOptions(options, allowed)
  const checkpoint = await open(source, options)
  const wanted = { depth_estimator: 'DPTForDepthEstimation' }
  const { depth_estimator: network } = await createModels(checkpoint, wanted, {}, options)
  const imageProcessor = (await readJson(checkpoint, 'preprocessor_config.json')) ?? {}
  await loadModels([network!], options, undefined)
  return { network: network!, imageProcessor }
}

/** The settings that a checkpoint stores for a scheduler. */
export async function schedulerConfig(checkpoint: Checkpoint, subfolder: string): Promise<object> {
  const file = `${subfolder}/scheduler_config.json`
  const config = await readJson(checkpoint, file)
  if (config === undefined) throw new KandinskyError('FILE_NOT_FOUND', `Expected ${file} in ${checkpoint.source}`)
  return config
}

async function chooseScheduler(checkpoint: Checkpoint, wanted: PretrainedOptions['scheduler']): Promise<Scheduler> {
  if (wanted !== undefined && typeof wanted !== 'string') {
    if (typeof (wanted as Scheduler | null)?.step !== 'function')
      throw invalid('scheduler', 'a scheduler or its name', wanted)
    return wanted
  }
  const own = storedScheduler(await schedulerConfig(checkpoint, 'scheduler'), checkpoint)
  return wanted === undefined ? own : schedulerByName(wanted, own.config)
}

function storedScheduler(config: object, { source }: Checkpoint): Scheduler {
  try {
    return schedulerFromConfig(config)
  } catch (cause) {
    const message = `The scheduler of ${source} is not supported: ${(cause as Error).message}`
    throw new KandinskyError('UNSUPPORTED_MODEL', message, { cause })
  }
}

function offloadGroup({ offload = 'none' }: PretrainedOptions): ModelGroup | undefined {
  return expectOneOf('offload', offload, ['none', 'model']) === 'model' ? new ModelGroup() : undefined
}

async function folderTexts(checkpoint: Checkpoint, folder: string): Promise<Record<string, string>> {
  const texts: Record<string, string> = {}
  for (const name of await checkpoint.texts())
    if (name.startsWith(`${folder}/`)) texts[name.slice(folder.length + 1)] = (await checkpoint.text(name))!
  return texts
}

async function createModels(
  checkpoint: Checkpoint,
  required: Record<string, string>,
  optional: Record<string, string>,
  { device, weights, threads, packing, tiling, group }: ModelOptions,
): Promise<Record<string, Model>> {
  const models: Record<string, Model> = {}
  for (const [name, className] of Object.entries({ ...required, ...optional })) {
    const component = await checkpoint.component(name)
    if (!component && name in optional) continue
    if (component?.className !== className)
      throw new KandinskyError(
        'UNSUPPORTED_MODEL',
        `Expected a ${className} as ${name} of ${checkpoint.source} but found ${component?.className ?? 'none with a config and weights'}`,
      )
    models[name] = new Model(component, { device, weights, threads, packing, tiling, group })
  }
  return models
}

/** Loads networks one after the other; those of a group wait for their turn to run. */
async function loadModels(models: Model[], options: PretrainedOptions, group: ModelGroup | undefined): Promise<void> {
  if (group) return
  const { signal, onProgress } = options
  try {
    for (const model of models) {
      const report = (done: number, total: number) => onProgress?.({ type: 'load', name: model.name, done, total })
      await model.load({ signal, onProgress: report })
    }
  } catch (error) {
    await Promise.all(models.map((model) => model.dispose()))
    throw error
  }
}

/** The reference fails deep inside the UNet when a checkpoint is for another task; its config tells beforehand. */
function expectTask({ config }: Model, { name, additionEmbedType, inChannels }: DecoderTask, { source }: Checkpoint) {
  const { addition_embed_type: type, in_channels: channels } = config
  if (type === additionEmbedType && channels === inChannels) return
  throw new KandinskyError(
    'UNSUPPORTED_MODEL',
    `Expected a UNet for ${name} (addition_embed_type ${additionEmbedType}, ${inChannels} input channels) ` +
      `but that of ${source} has ${type} and ${channels}`,
  )
}

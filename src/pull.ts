// Brings a model from a hub or a server to this machine: file by file it is downloaded, quantized and let go, so that what
// lies on the disk is hardly more than what is kept. What an interrupted pull has done is there for the next one.
import { mkdir, rm, stat, statfs, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ggufMetadata } from './checkpoint/gguf.js'
import { combineCheckpoints, openCheckpoint } from './checkpoint/open.js'
import type { Checkpoint, Component } from './checkpoint/pipeline-files.js'
import { type Conversion, checkConvertOptions, planConversion, zeroImageEmbeds } from './convert.js'
import { invalid, KandinskyError, withoutSecrets } from './errors.js'
import { readTextOf } from './files.js'
import { explain } from './hub/cache.js'
import { withLock } from './hub/download.js'
import { nameOf, type Origin, parseOrigin, priorOf, stage } from './hub/origin.js'
import { exists } from './hub/paths.js'
import { checkModelName, modelsFolder, pulledModel, workFolder } from './hub/pulled.js'
import { findModel, licenseOf } from './hub/resolve.js'
import type { StagedFile, Staging } from './hub/staging.js'
import { binding, type ConfigValue, type TensorSource, type WeightType } from './native.js'
import { cancellable } from './networks/cancellable.js'
import { checkThreads } from './networks/devices.js'
import { weightBytes } from './networks/policy.js'

export interface PullOptions {
  /** type of the large matrices; default q8_0, of a .gguf file as stored */
  weights?: WeightType | undefined
  /**
   * where the prior is: a repository, or a model that is here; `none` for the decoder alone. Default: the repository that
   * the decoder's model card names
   */
  prior?: string | undefined
  /** what the model shall be called; default: the repository's name */
  name?: string | undefined
  /** parts to do without, e.g. ['image_encoder'] in a model for text to image only */
  skip?: readonly string[] | undefined
  /** e.g. "fp16", where a repository has such files */
  variant?: string | undefined
  /** branch, tag or commit; default main */
  revision?: string | undefined
  /** CPU threads that quantize; default: one per physical core */
  threads?: number | undefined
  signal?: AbortSignal | undefined
  /** Hears what would be done, before anything large is downloaded. */
  onPlan?: ((plan: PullPlan) => void) | undefined
  onProgress?: ((event: PullProgress) => void) | undefined
}

export interface PullPlan {
  name: string
  /** where the model will be, absolute */
  path: string
  sources: { id: string; license: string | undefined; bytes: number }[]
  /** of the finished file; undefined where it is only known once the weights are there */
  bytes: number | undefined
}

export interface PullProgress {
  stage: 'download' | 'quantize' | 'write'
  /** bytes; of the download those of all files together */
  done: number
  total: number
}

export interface PullResult {
  name: string
  /** absolute */
  path: string
  bytes: number
  components: string[]
  notes: string[]
  /** it was there already */
  kept: boolean
}

/** What repositories are quantized to where nothing is said. */
export const PULLED_TYPE: WeightType = 'q8_0'

const OTHER_FOLDER = 'choose another place with KANDINSKY_MODELS'
/** The metadata key of what was asked for. */
const REQUEST = 'kandinsky.pull'

/**
 * Downloads a model and keeps it under a name, quantized.
 *
 * @param source a hub id (`owner/name`, `owner/name:file.gguf`), the URL of a repository, or that of a .gguf file
 * @throws KandinskyError `INVALID_ARGUMENT`, `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL`, `SHAPE_MISMATCH`; or
 *   `signal.reason`. What has arrived is kept, and the next call continues there
 */
export async function pull(source: string, options: PullOptions = {}): Promise<PullResult> {
  checkConvertOptions(options)
  const origin = parseOrigin(source, options.revision)
  const prior = await parsePrior(options.prior)
  const name = checkModelName(options.name ?? nameOf(origin))
  const { weights, skip, variant } = options
  const request = JSON.stringify({
    source: 'url' in origin ? withoutSecrets(source) : source,
    ...{ prior: options.prior, weights, skip, variant, revision: options.revision },
  })
  const folder = modelsFolder()
  try {
    return await withLock(join(dirname(workFolder(name)), `.${name}.lock`), options.signal, () =>
      new Pull(name, request, options).run(origin, prior),
    )
  } catch (error) {
    throw explain(error, folder, 'folder of models', OTHER_FOLDER)
  }
}

class Pull {
  readonly #path: string
  readonly #work: string
  readonly #signal: AbortSignal | undefined
  /** versions of the sources, which an interrupted pull goes on with */
  #versions: Record<string, string> = {}

  constructor(
    private readonly name: string,
    private readonly request: string,
    private readonly options: PullOptions,
  ) {
    this.#path = pulledModel(name)!
    this.#work = workFolder(name)
    this.#signal = options.signal
  }

  async run(origin: Origin, givenPrior: Prior | undefined): Promise<PullResult> {
    if (await exists(this.#path)) return this.#keep()
    await this.#resume()
    const own = await this.#open(origin, 'model', false)
    const prior = givenPrior === undefined && !own.model ? priorOf(own) : givenPrior
    const away = typeof prior === 'string' ? undefined : prior
    const staged = away ? [own, await this.#open(away, 'prior', true)] : [own]
    await this.#remember()
    const plan: PullPlan = {
      ...{ name: this.name, path: this.#path, bytes: undefined },
      sources: [origin, away].flatMap((each, i) => (each ? [sourceOf(each, staged[i]!)] : [])),
    }
    const files = staged.flatMap(({ weights }) => weights)
    const headless = files.some(({ path }) => !path.endsWith('.safetensors'))
    if (headless) this.options.onPlan?.(plan)
    const download = new Downloads(files, this.options.onProgress)
    for (const file of files)
      if (!file.path.endsWith('.safetensors') && !(await exists(file.path))) await download.fetch(file)
    const [checkpoint, downloaded] = await Promise.all(staged.map((each) => this.#checkpoint(each)))
    const priorCheckpoint = typeof prior === 'string' && prior !== NONE ? await openCheckpoint(prior) : downloaded
    const whole = priorCheckpoint ? combineCheckpoints(checkpoint!, priorCheckpoint) : checkpoint!
    const weights = this.options.weights ?? (own.model ? undefined : PULLED_TYPE)
    const conversion = await planConversion(whole, { ...this.options, weights })
    const bytes = conversion.tensors.reduce((sum, { target, shape }) => sum + weightBytes(target, shape), 0)
    this.options.onPlan?.({ ...plan, bytes })
    await this.#expectSpace(bytes, files)
    const zeroImage = await this.#zeroImage(whole, download)
    const tensors = await this.#quantize(conversion, download)
    await this.#write(conversion.components, tensors, whole, zeroImage, plan)
    await rm(this.#work, { recursive: true, force: true })
    return this.#result(conversion, false)
  }

  /** What is there under this name, if it is what was asked for. */
  async #keep(): Promise<PullResult> {
    const { metadata } = await binding().readGguf(this.#path)
    if (metadata[REQUEST] !== this.request)
      throw invalid(
        'name',
        `another name than that of a model that is there ("kandinsky rm ${this.name}" removes it)`,
        this.name,
      )
    const checkpoint = await openCheckpoint(this.#path)
    const components = await Promise.all(
      (await checkpoint.components()).map(async (name) => (await checkpoint.component(name))!),
    )
    return this.#result({ components, notes: [] }, true)
  }

  async #result({ components, notes }: Pick<Conversion, 'components' | 'notes'>, kept: boolean): Promise<PullResult> {
    const { size } = await stat(this.#path)
    return {
      name: this.name,
      path: this.#path,
      bytes: size,
      components: components.map(({ name }) => name),
      notes,
      kept,
    }
  }

  /** Takes up what an interrupted pull of the same has left; that of another is of no use. */
  async #resume(): Promise<void> {
    const stored = await readTextOf(join(this.#work, 'pull.json')).catch(() => undefined)
    const { request, versions } = stored === undefined ? {} : JSON.parse(stored)
    if (request === this.request) this.#versions = versions
    else await rm(this.#work, { recursive: true, force: true })
  }

  async #remember(): Promise<void> {
    await writeFile(join(this.#work, 'pull.json'), JSON.stringify({ request: this.request, versions: this.#versions }))
  }

  async #open(origin: Origin, part: string, isPrior: boolean): Promise<Staging> {
    const folder = join(this.#work, part)
    await mkdir(folder, { recursive: true })
    const staging = await stage(origin, folder, {
      ...{ version: this.#versions[part], variant: this.options.variant, signal: this.#signal },
      isWanted: (file) => this.#isWanted(file, isPrior),
    })
    const known = this.#versions[part]
    if (known !== undefined && known !== staging.version) await staging.model?.release([])
    this.#versions[part] = staging.version
    return staging
  }

  /** Weights of what is skipped stay where they are, except those that make the zero-image embedding. */
  #isWanted(file: string, isPrior: boolean): boolean {
    const part = dirname(file)
    const { skip = [] } = this.options
    return part === 'image_encoder' || !(skip.includes(part) || (isPrior && skip.includes(`prior_${part}`)))
  }

  async #checkpoint(staging: Staging): Promise<Checkpoint> {
    const folder = await staging.stage()
    return openCheckpoint(staging.model?.path ?? folder, { variant: this.options.variant })
  }

  /** Parts and the finished file lie side by side for a moment, or parts and the sources of one network. */
  async #expectSpace(bytes: number, files: readonly StagedFile[]): Promise<void> {
    const needed = bytes + Math.max(bytes, ...files.map(({ size }) => size))
    const { bavail, bsize } = await statfs(this.#work)
    if (needed > bavail * bsize)
      throw new KandinskyError(
        'BAD_FILE',
        `Expected ${needed} bytes of free disk space for ${this.#work} but there are ${bavail * bsize}; ` +
          OTHER_FOLDER,
      )
  }

  /** What convert would store; the weights of the image encoder must be there for it, all at once. */
  async #zeroImage(checkpoint: Checkpoint, download: Downloads): Promise<readonly number[] | undefined> {
    const prior = checkpoint.side('prior')
    if (prior?.zeroImageEmbeds) return prior.zeroImageEmbeds
    const encoder = await prior?.component('image_encoder')
    if (!encoder) return undefined
    const kept = join(this.#work, 'zero-image.json')
    const known = await readTextOf(kept).catch(() => undefined)
    const files = [...new Set(encoder.tensors.map(({ path }) => path))].flatMap((path) => download.fileAt(path) ?? [])
    if (known !== undefined) {
      for (const file of files) download.skip(file)
      return JSON.parse(known)
    }
    for (const file of files) await download.fetch(file)
    const { threads } = this.options
    const embeds = await zeroImageEmbeds(checkpoint, join(this.#work, 'zero'), { threads, signal: this.#signal })
    await writeFile(kept, JSON.stringify(embeds))
    if (this.options.skip?.includes('image_encoder'))
      for (const file of files) await file.release(encoder.tensors.filter(({ path }) => path === file.path))
    return embeds
  }

  /** Each file becomes one of the parts. @returns the tensors as they lie there, in the order of the conversion */
  async #quantize({ tensors }: Conversion, download: Downloads): Promise<TensorSource[]> {
    const made = new Map<string, TensorSource>()
    const paths = [...new Set(tensors.map(({ path }) => path))]
    for (const [i, path] of paths.entries()) {
      const part = join(this.#work, `part-${i}.gguf`)
      const file = download.fileAt(path) // none of a prior that is here
      // What their header was read from has been replaced by the whole file.
      const own = tensors.filter((tensor) => tensor.path === path).map(({ stamp: _, ...tensor }) => tensor)
      if (await exists(part)) download.skip(file)
      else {
        if (file) await download.fetch(file)
        await this.#writeGguf('quantize', part, { 'general.architecture': 'kandinsky-part' }, own)
        await file?.release(own)
      }
      const { tensors: stored } = await binding().readGguf(part)
      for (const tensor of stored) made.set(tensor.name, { ...tensor, path: part, target: tensor.type as WeightType })
    }
    return tensors.map(({ name }) => made.get(name)!)
  }

  async #write(
    components: readonly Component[],
    tensors: TensorSource[],
    checkpoint: Checkpoint,
    zeroImage: readonly number[] | undefined,
    { sources }: PullPlan,
  ): Promise<void> {
    const { id, license } = sources[0]!
    const origin: Record<string, ConfigValue> = { [REQUEST]: this.request, 'general.source.url': id }
    if (license !== undefined) origin['general.license'] = license
    const metadata = await ggufMetadata(this.name, checkpoint, components, zeroImage, origin)
    await this.#writeGguf('write', this.#path, metadata, tensors)
  }

  async #writeGguf(
    stage: 'quantize' | 'write',
    path: string,
    metadata: Record<string, ConfigValue>,
    tensors: TensorSource[],
  ) {
    const job = { path, metadata, tensors, threads: checkThreads(this.options.threads) }
    const report = (done: number, total: number) => this.options.onProgress?.({ stage, done, total })
    await cancellable(this.#signal, (cancel) => binding().writeGguf({ ...job, cancel }, report))
  }
}

/** The files of a pull and how far their download is, all together. */
class Downloads {
  readonly #total: number
  readonly #there = new Map<StagedFile, number>()

  constructor(
    private readonly files: readonly StagedFile[],
    private readonly onProgress: PullOptions['onProgress'],
  ) {
    this.#total = files.reduce((sum, { size }) => sum + size, 0)
  }

  fileAt(path: string): StagedFile | undefined {
    return this.files.find((file) => file.path === path)
  }

  async fetch(file: StagedFile): Promise<void> {
    await file.fetch((bytes) => {
      this.#there.set(file, bytes)
      const done = [...this.#there.values()].reduce((sum, each) => sum + each, 0)
      this.onProgress?.({ stage: 'download', done, total: this.#total })
    })
  }

  /** It has been here before. */
  skip(file: StagedFile | undefined): void {
    if (file) this.#there.set(file, file.size)
  }
}

/** Where a prior is to be had, the path of one that is here, or none. */
type Prior = Origin | string
const NONE = 'none'

async function parsePrior(source: string | undefined): Promise<Prior | undefined> {
  if (source === undefined || source === NONE) return source
  return (await findModel(source)) ?? parseOrigin(source, undefined)
}

function sourceOf(origin: Origin, { readme, weights }: Staging): PullPlan['sources'][number] {
  const id = 'url' in origin ? withoutSecrets(origin.url) : origin.id
  return { id, license: licenseOf(readme), bytes: weights.reduce((sum, { size }) => sum + size, 0) }
}

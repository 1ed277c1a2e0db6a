// The one file that uses the addon and types the border.
import binaries from './binaries.cjs'
import { KandinskyError, type KandinskyErrorCode, kandinskyErrorCodes } from './errors.js'
import { isError } from './realms.js'
import { version } from './version.js'

/** Types a weight can have in memory or in our GGUF. */
export type WeightType = 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q6_K' | 'q5_K' | 'q4_K' | 'q5_0' | 'q4_0'
/** When MoVQ computes pictures in tiles. */
export type Tiling = 'auto' | 'always' | 'never'
/** Types a weight can have in a source file. */
export type SourceType = WeightType | 'f64' | 'i64' | 'i32' | 'i16' | 'i8' | 'u8' | 'bool' | 'f8_e4m3' | 'f8_e5m2'

/** One weight: where its bytes lie and what they become. Mirrors native/core/tensor_source.h. */
export interface TensorSource {
  /** the reference's own name, without the component prefix */
  name: string
  /** absolute path; empty when `random` generates the values */
  path: string
  /** absolute position in the file, in bytes */
  offset: number
  bytes: number
  type: SourceType
  /** as stored, outermost dimension first */
  shape: number[]
  /**
   * elements between neighbours of each dimension; without: row-major without gaps. `bytes` then reach from the first
   * element to the end of the last
   */
  stride?: number[]
  /** of the file when its header was read: `bytes@nanoseconds of the last write`; another one now is an error */
  stamp?: string
  target: WeightType
  /** a 4-D kernel is that of a transposed convolution, [in, out, kh, kw] */
  transposed?: boolean
  random?: { seed: number; scale: number; mean: number }
  /** merged into the values as they are read */
  adapters?: Adapter[]
}

/** What is added to a matrix: scale * up x down. Mirrors native/core/tensor_source.h. */
export interface Adapter {
  /** [rank, in], of a convolution [rank, in, kh, kw] */
  down: TensorSource
  /** [out, rank] or [out, rank, 1, 1] */
  up: TensorSource
  scale: number
}

/** What a weight's values need at least. Mirrors native/core/tensor_source.h. */
export type Precision = 'quantizable' | 'q8_0' | 'half' | 'exact'

/** One weight that a network needs. */
export interface TensorSpec {
  /** the reference's own name, without the component prefix */
  name: string
  /** outermost dimension first */
  shape: number[]
  precision: Precision
  /** the kernel of a transposed convolution, [in, out, kh, kw] */
  transposed: boolean
}

/** What the CPU's kernels do with weights. */
export type Packing = 'compact' | 'fast'

export type ConfigValue = boolean | number | string | boolean[] | number[] | string[]
/** `config.json` without its null entries; numbers that are whole travel as integers. */
export type Config = Record<string, ConfigValue>

/** A tensor at the border: token ids and masks are Int32Array, everything else Float32Array. */
export interface NativeTensor {
  data: Float32Array | Int32Array
  shape: readonly number[]
}
export interface NativeOutput {
  data: Float32Array
  shape: number[]
}

/** An atomic flag that a running native call polls. */
export interface CancelFlag {
  cancel(): void
}

export interface NativeNetwork {
  /** Inputs are copied before the call returns. Rejects with code 'ABORTED' when `cancel` was set. */
  run(
    method: string,
    inputs: Record<string, NativeTensor>,
    options: { cancel?: CancelFlag | undefined; taps?: string[] | undefined },
  ): Promise<Record<string, NativeOutput>>
  memory(): { weights: number; compute: number }
  /**
   * After the calls so far, adds to matrices, beside them, what the `adapters` of these sources say, and no longer what an
   * earlier call said. Of the sources themselves only the names count.
   */
  adapt(sources: TensorSource[]): Promise<void>
  /** After the calls so far, gives back the memory of weights that the next call can have again. */
  releaseWeights(): Promise<void>
  /** Waits for the running call, then frees. Idempotent. */
  dispose(): Promise<void>
}

/** A device that networks can run on, and its memory. */
export interface DeviceInfo {
  /** what the `device` option takes: `cpu`, `cuda:0` … */
  name: string
  kind: 'cpu' | 'cuda'
  description: string
  totalBytes: number
  freeBytes: number
}

export interface GgufContent {
  metadata: Record<string, ConfigValue>
  /** offsets are absolute; names still carry the component prefix */
  tensors: { name: string; type: SourceType; shape: number[]; offset: number; bytes: number }[]
  /** see TensorSource */
  stamp: string
}

export type NativeProgress = (done: number, total: number) => void

export interface Binding {
  /** of the package that the addon was built from */
  version?: string
  /** version of ggml, whether a CUDA device can be used, and which of our own CPU kernels are (a value of KANDINSKY_CPU) */
  info(): { ggml: string; cuda: boolean; cpuVariant: string }
  devices(): DeviceInfo[]
  networkClasses(): string[]
  /**
   * Every weight that a network has; loads nothing.
   * @param stored names that the checkpoint has, which decide about optional weights; default: all of them
   */
  describeNetwork(className: string, component: string, config: Config, stored?: readonly string[]): TensorSpec[]
  /** Strictly checked header of a GGUF file; reads no tensor data. */
  readGguf(path: string): Promise<GgufContent>
  loadNetwork(
    job: {
      className: string
      component: string
      config: Config
      tensors: TensorSource[]
      device: string
      threads: number
      packing: Packing
      tiling?: Tiling
      /** Reads no weights and computes nothing: runs give zeros, and `memory()` tells what they would take. CPU only. */
      dryRun?: boolean
      cancel?: CancelFlag | undefined
    },
    onProgress?: NativeProgress,
  ): Promise<NativeNetwork>
  /** Streams tensors into a new GGUF file, written beside `path` and renamed when complete. */
  writeGguf(
    job: {
      path: string
      metadata: Record<string, ConfigValue>
      tensors: TensorSource[]
      threads: number
      cancel?: CancelFlag | undefined
    },
    onProgress?: NativeProgress,
  ): Promise<void>
  CancelFlag: new () => CancelFlag
}

let loaded: Binding | undefined

/**
 * The addon, loaded on first need: importing the package for its types or schedulers alone never touches it. Its
 * functions throw and reject with KandinskyError; a cancelled call rejects with a DOMException named AbortError.
 * @throws KandinskyError `NATIVE_LOAD_FAILED`
 */
export function binding(): Binding {
  loaded ??= withErrors(loadAddon())
  return loaded
}

function loadAddon(): Binding {
  const addon = requireAddon()
  // They come as two packages, and the border between them is not promised.
  if (addon.version !== version)
    throw new KandinskyError(
      'NATIVE_LOAD_FAILED',
      `Expected the native addon of version ${version} but ${addonPath()} is of ${addon.version ?? 'an older one'}. ` +
        'Install node-kandinsky again (npm install node-kandinsky); in a checkout, npm run build.',
    )
  return addon
}

function requireAddon(): Binding {
  try {
    return binaries.loadAddon() as Binding
  } catch (cause) {
    throw new KandinskyError('NATIVE_LOAD_FAILED', loadFailure(cause as NodeJS.ErrnoException), { cause })
  }
}

/** Where a file of the package is looked for and the code is in somebody's bundle. */
export const externalAdvice =
  'it cannot be found from inside a bundle. Mark "node-kandinsky" (and "sharp") external in the bundler and install them ' +
  'beside the bundle; docs/bundlers.md has recipes.'

function loadFailure({ message, code }: NodeJS.ErrnoException): string {
  if (binaries.isBundled()) return `The native addon: ${externalAdvice}`
  const file = addonPath()
  const libc = libcVersion()
  const what = file ? `The native addon ${file} could not be loaded` : 'No native addon was found'
  if (code === 'ERR_DLOPEN_DISABLED')
    return `${what}: this process runs with --no-addons. Start it without that option.`
  return [
    `${what} for ${process.platform}-${process.arch}${libc ? ` with ${libc}` : ''}, Node ${process.versions.node}:`,
    `  ${message.trim().split('\n')[0]}`,
    ...(!file && binaries.isPlatformServed()
      ? [
          `The addon is in the package ${addonPackage(libc)}, an optional dependency, which is not installed. Install`,
          'with --include=optional; if a lock file from another platform leaves it out, delete that first.',
        ]
      : []),
    'If node_modules was copied from another platform, install it again on this one.',
    'If there is no prebuilt addon for this platform, build it in a checkout of the repository: docs/building.md.',
    'The command "kandinsky doctor" says more.',
  ].join('\n')
}

function addonPackage(libc: string | undefined): string {
  return `@node-kandinsky/${process.platform}-${process.arch}${libc === 'musl' ? '-musl' : ''}`
}

/** The addon's file; undefined if there is none for this platform. */
export function addonPath(): string | undefined {
  try {
    return binaries.addonPath()
  } catch {
    return undefined
  }
}

/** On Linux `glibc 2.36` or `musl`. Reads the loaded libraries, which takes a moment: only for diagnoses. */
export function libcVersion(): string | undefined {
  if (process.platform !== 'linux') return undefined
  const { header } = (process.report?.getReport() ?? {}) as { header?: { glibcVersionRuntime?: string } }
  return header?.glibcVersionRuntime ? `glibc ${header.glibcVersionRuntime}` : 'musl'
}

function withErrors(addon: Binding): Binding {
  return {
    info: sync(addon.info),
    devices: sync(addon.devices),
    networkClasses: sync(addon.networkClasses),
    describeNetwork: sync(addon.describeNetwork),
    readGguf: promised(addon.readGguf),
    loadNetwork: promised(async (job, onProgress) => networkWithErrors(await addon.loadNetwork(job, onProgress))),
    writeGguf: promised(addon.writeGguf),
    CancelFlag: addon.CancelFlag,
  }
}

function networkWithErrors(network: NativeNetwork): NativeNetwork {
  return {
    run: promised(network.run),
    memory: network.memory,
    adapt: promised(network.adapt),
    releaseWeights: promised(network.releaseWeights),
    dispose: promised(network.dispose),
  }
}

function sync<A extends unknown[], R>(call: (...args: A) => R): (...args: A) => R {
  return (...args) => {
    try {
      return call(...args)
    } catch (error) {
      throw toKandinskyError(error)
    }
  }
}

function promised<A extends unknown[], R>(call: (...args: A) => Promise<R>): (...args: A) => Promise<R> {
  return async (...args) => {
    try {
      return await call(...args)
    } catch (error) {
      throw toKandinskyError(error)
    }
  }
}

const CODES: ReadonlySet<string> = new Set(kandinskyErrorCodes)

/** Native errors have no JavaScript stack; one made here has the caller's. What a progress callback threw passes. */
function toKandinskyError(error: unknown): unknown {
  if (!isError(error) || error instanceof KandinskyError) return error
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'ABORTED') return new DOMException('The call was cancelled', 'AbortError')
  return code !== undefined && CODES.has(code) ? new KandinskyError(code as KandinskyErrorCode, message) : error
}

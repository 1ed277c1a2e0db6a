// The one file that loads the addon and types the border. Nothing else may require a .node file.
import { createRequire } from 'node:module'
import { KandinskyError, type KandinskyErrorCode } from './errors.js'

/** Types a weight can have in memory or in our GGUF. */
export type WeightType = 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q6_K' | 'q5_K' | 'q4_K' | 'q5_0' | 'q4_0'
/** Types a weight can have in a source file. */
export type SourceType = WeightType | 'f64' | 'i64' | 'i32' | 'i16' | 'i8' | 'u8' | 'bool'

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
  target: WeightType
  random?: { seed: number; scale: number; mean: number }
}

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
  /** Waits for the running call, then frees. Idempotent. */
  dispose(): Promise<void>
}

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
}

export type NativeProgress = (done: number, total: number) => void

export interface Binding {
  /** versions of ggml and of the addon, and how it was built */
  info(): { ggml: string; cuda: boolean; cpuVariant: string }
  devices(): DeviceInfo[]
  networkClasses(): string[]
  describeNetwork(className: string, component: string, config: Config): { name: string; shape: number[] }[]
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

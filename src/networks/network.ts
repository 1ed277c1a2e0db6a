// Networks as pipelines use them: loaded when needed, one call at a time, cancellable.

import type { Component } from '../checkpoint/pipeline-files.js'
import { invalid, KandinskyError } from '../errors.js'
import {
  binding,
  type CancelFlag,
  type Config,
  type DeviceInfo,
  type NativeNetwork,
  type NativeProgress,
  type NativeTensor,
  type Packing,
  type Tiling,
  type WeightType,
} from '../native.js'
import { Tensor } from '../tensor.js'
import { checkWeightType } from './policy.js'
import { tensorSources } from './sources.js'

export interface ModelOptions {
  /** 'auto' (default: the first GPU, or else the CPU), 'cpu', 'cuda' or 'cuda:N' */
  device?: string | undefined
  /** type of the large matrices in memory; default: as stored */
  weights?: WeightType | undefined
  /** CPU threads; default: one per physical core */
  threads?: number | undefined
  /**
   * CPU only. `compact` (default) leaves weights in memory as stored and expands each as it is used; `fast` expands
   * those of the prior and the UNet once per picture and keeps them, 2 to 8 bytes each, until their loop is over
   */
  packing?: Packing | undefined
  /**
   * when MoVQ computes pictures in tiles: the same result in less memory, but slower. 'auto' (default: when memory
   * would not suffice), 'always' or 'never'. A call that asks for taps is never tiled; other networks have no tiles.
   */
  tiling?: Tiling | undefined
  /** networks that share a group take turns on the device, and load when their turn comes */
  group?: ModelGroup | undefined
}

export interface LoadOptions {
  signal?: AbortSignal | undefined
  /** bytes of weights loaded so far, and of all */
  onProgress?: NativeProgress | undefined
}

/** The devices that networks can run on. */
export function listDevices(): DeviceInfo[] {
  return binding().devices()
}

/** The device that a `device` option stands for. @throws KandinskyError `DEVICE_UNAVAILABLE`, `INVALID_ARGUMENT` */
export function resolveDevice(device: string = 'auto'): string {
  const expected = "'auto', 'cpu', 'cuda' or 'cuda:N'"
  if (typeof device !== 'string' || !/^(auto|cpu|cuda(:\d+)?)$/.test(device)) throw invalid('device', expected, device)
  const devices = listDevices()
  const gpu = devices.find(({ kind }) => kind === 'cuda')?.name
  const found = device === 'cuda' ? gpu : devices.find(({ name }) => name === device)?.name
  const name = device === 'auto' ? (gpu ?? 'cpu') : found
  if (name) return name
  const names = devices.map((available) => available.name).join(', ')
  throw new KandinskyError('DEVICE_UNAVAILABLE', `Expected one of ${names} for device but received "${device}"`)
}

/** Checks a `threads` option; 0 stands for the addon's own choice. */
export function checkThreads(threads: number | undefined): number {
  if (threads === undefined) return 0
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024)
    throw invalid('threads', 'an integer from 1 to 1024', threads)
  return threads
}

function checkPacking(packing: Packing = 'compact', device: string): Packing {
  if (packing !== 'compact' && packing !== 'fast') throw invalid('packing', "'compact' or 'fast'", packing)
  if (packing === 'fast' && device !== 'cpu') throw invalid('packing', `'compact' with the device ${device}`, packing)
  return packing
}

function checkTiling(tiling: Tiling = 'auto'): Tiling {
  if (!['auto', 'always', 'never'].includes(tiling)) throw invalid('tiling', "'auto', 'always' or 'never'", tiling)
  return tiling
}

/**
 * Runs a native job that `signal` can stop.
 * @throws `signal.reason` if it aborts before the job is done
 */
export async function cancellable<T>(
  signal: AbortSignal | undefined,
  job: (cancel: CancelFlag | undefined) => Promise<T>,
): Promise<T> {
  if (!signal) return job(undefined)
  signal.throwIfAborted()
  const flag = new (binding().CancelFlag)()
  const cancel = () => flag.cancel()
  signal.addEventListener('abort', cancel, { once: true })
  try {
    return await job(flag)
  } catch (error) {
    signal.throwIfAborted()
    throw error
  } finally {
    signal.removeEventListener('abort', cancel)
  }
}

/** A queue of calls, and at most one network of those that share it on the device. */
export class ModelGroup {
  /** the network that is loaded */
  resident: Model | undefined
  #last: Promise<void> = Promise.resolve()

  /** Runs `job` after all earlier ones; an abort while it waits rejects at once and leaves the order intact. */
  async enqueue<T>(signal: AbortSignal | undefined, job: () => Promise<T>): Promise<T> {
    signal?.throwIfAborted()
    const previous = this.#last
    let release = () => {}
    this.#last = new Promise((resolve) => {
      release = resolve
    })
    try {
      await untilAborted(previous, signal)
      return await job()
    } finally {
      previous.then(release)
    }
  }
}

async function untilAborted(promise: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return promise
  let abort = () => {}
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
  })
  try {
    await Promise.race([promise, aborted])
    signal.throwIfAborted()
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

/** One network. Calls queue; `dispose` waits for the running one. */
export class Model {
  /** as the pipeline calls it, e.g. "unet" */
  readonly name: string
  readonly className: string
  readonly config: Config
  readonly device: string
  readonly #component: Component
  readonly #weights: WeightType | undefined
  readonly #threads: number
  readonly #packing: Packing
  readonly #tiling: Tiling
  readonly #group: ModelGroup
  #network: NativeNetwork | undefined
  #disposed = false

  /** Checks the options and loads nothing. @throws KandinskyError `INVALID_ARGUMENT`, `DEVICE_UNAVAILABLE` */
  constructor(component: Component, options: ModelOptions = {}) {
    this.name = component.name
    this.className = component.className
    this.config = component.config
    this.device = resolveDevice(options.device)
    this.#component = component
    this.#weights = checkWeightType(options.weights)
    this.#threads = checkThreads(options.threads)
    this.#packing = checkPacking(options.packing, this.device)
    this.#tiling = checkTiling(options.tiling)
    this.#group = options.group ?? new ModelGroup()
  }

  /** Loads the weights unless they are loaded; another network of the group gives way. */
  load(options: LoadOptions = {}): Promise<void> {
    return this.#group.enqueue(options.signal, async () => {
      await this.#ready(options)
    })
  }

  /** Frees the weights after the calls so far. The next call loads them again. */
  unload(): Promise<void> {
    return this.#group.enqueue(undefined, () => this.#release())
  }

  /**
   * Runs one of the network's methods, loading it first where needed.
   *
   * @param method 'forward', 'encode', 'decode' …
   * @param inputs tensors under the reference's argument names; token ids are Int32Array
   * @param options.taps names of intermediate tensors to return as well (module paths, e.g. "down_blocks.0")
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`, `OUT_OF_MEMORY`, `DISPOSED`; or `signal.reason`
   */
  run(
    method: string,
    inputs: Record<string, NativeTensor>,
    options: { signal?: AbortSignal | undefined; taps?: string[] | undefined } = {},
  ): Promise<Record<string, Tensor>> {
    const { signal, taps } = options
    return this.#group.enqueue(signal, async () => {
      const network = await this.#ready({ signal })
      const outputs = await cancellable(signal, (cancel) => network.run(method, inputs, { cancel, taps }))
      signal?.throwIfAborted() // it may have come too late to stop the network
      return Object.fromEntries(
        Object.entries(outputs).map(([name, { data, shape }]) => [name, new Tensor(data, shape)]),
      )
    })
  }

  /** Bytes held now: weights, and activations of the largest call so far. */
  memory(): { weights: number; compute: number } {
    return this.#network?.memory() ?? { weights: 0, compute: 0 }
  }

  /**
   * Gives back, after the calls so far, the memory of weights that can be had again. For the end of a stage: the next
   * call takes those that lie mapped in a file from the system's file cache, in some hundredths of a second per GB, and
   * packs those of `packing: 'fast'` anew, in a second or two per GB.
   */
  releaseWeights(): Promise<void> {
    return this.#group.enqueue(undefined, async () => this.#network?.releaseWeights())
  }

  /** Waits for the running call, then frees everything. Later calls reject with `DISPOSED`. Idempotent. */
  dispose(): Promise<void> {
    this.#disposed = true
    return this.#group.enqueue(undefined, () => this.#release())
  }

  async #ready({ signal, onProgress }: LoadOptions): Promise<NativeNetwork> {
    if (this.#disposed) throw new KandinskyError('DISPOSED', `The network ${this.name} was disposed`)
    if (this.#network) return this.#network
    const { resident } = this.#group
    if (resident) await resident.#release()
    const job = {
      className: this.className,
      component: this.name,
      config: this.config,
      tensors: tensorSources(this.#component, this.#weights),
      device: this.device,
      threads: this.#threads,
      packing: this.#packing,
      tiling: this.#tiling,
    }
    const network = await cancellable(signal, (cancel) => binding().loadNetwork({ ...job, cancel }, onProgress))
    this.#network = network
    this.#group.resident = this
    return network
  }

  async #release(): Promise<void> {
    const network = this.#network
    this.#network = undefined
    if (this.#group.resident === this) this.#group.resident = undefined
    await network?.dispose()
  }
}

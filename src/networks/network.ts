// Networks as pipelines use them: loaded when needed, one call at a time, cancellable.
import type { Component } from '../checkpoint/pipeline-files.js'
import { invalid, KandinskyError } from '../errors.js'
import {
  binding,
  type Config,
  type NativeNetwork,
  type NativeProgress,
  type NativeTensor,
  type Packing,
  type TensorSource,
  type TensorSpec,
  type Tiling,
  type WeightType,
} from '../native.js'
import { Tensor } from '../tensor.js'
import type { Inputs, Method, NetworkClass, Outputs } from './calls.js'
import { cancellable } from './cancellable.js'
import { checkThreads, resolveDevice } from './devices.js'
import { NetworkGroup } from './group.js'
import { adaptersOf, mergeAdapters, type NetworkLora } from './lora.js'
import { checkWeightType } from './policy.js'
import { specsOf, tensorSources } from './sources.js'

/** How a network is loaded. Adding an option here makes every `fromPretrained` take it. */
export interface NetworkOptions {
  /** `auto` (a GPU if there is one, or else the CPU), `cpu`, `cuda`, `cuda:1` …; default `auto` */
  device?: string | undefined
  /** type of the large matrices in memory; default: as stored */
  weights?: WeightType | undefined
  /** CPU threads, default one per physical core */
  threads?: number | undefined
  /**
   * CPU only. `compact` (default) leaves weights in memory as stored and expands each as it is used; `fast` expands
   * those of the prior and the UNet once per picture and keeps them, 2 to 8 bytes each, until their loop is over
   */
  packing?: Packing | undefined
  /**
   * when MoVQ computes pictures in tiles: the same result in less than half the memory, somewhat slower. `auto`: when
   * memory would not suffice; `always`; `never`. Default `auto`. A call that asks for taps is never tiled; pipelines
   * without MoVQ do not take this option
   */
  tiling?: Tiling | undefined
  /**
   * Loads no weights and computes nothing: networks give zeros, after having told what the call would take. For
   * estimates, on the CPU. Not tiled unless `tiling` is `always`
   */
  dryRun?: ((usage: NetworkUsage) => void) | undefined
}

/** The memory of one call of a network, in bytes. */
export interface NetworkUsage {
  /** as the pipeline calls it, e.g. "unet" */
  name: string
  className: string
  /** of the weights in the types that they have in memory */
  weights: number
  /** of the activations of the largest call so far */
  compute: number
}

export const networkOptionNames = Object.keys({
  device: true,
  weights: true,
  threads: true,
  packing: true,
  tiling: true,
  dryRun: true,
} satisfies Record<keyof NetworkOptions, true>)

export interface LoadOptions {
  signal?: AbortSignal | undefined
  /** bytes of weights loaded so far, and of all */
  onProgress?: NativeProgress | undefined
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

/** How a network is loaded, checked. @throws KandinskyError `INVALID_ARGUMENT`, `DEVICE_UNAVAILABLE` */
export function checkNetworkOptions(options: NetworkOptions) {
  const device = resolveDevice(options.device)
  const { dryRun } = options
  if (dryRun !== undefined && typeof dryRun !== 'function') throw invalid('dryRun', 'a function', dryRun)
  const settings = {
    threads: checkThreads(options.threads),
    packing: checkPacking(options.packing, device),
    tiling: checkTiling(options.tiling),
  }
  return { device, weights: checkWeightType(options.weights), settings }
}

function withState(loras: ReadonlyMap<string, NetworkLora>, state: NetworkLora['state']): NetworkLora[] {
  return [...loras.values()].filter((lora) => lora.state === state && lora.weight !== 0)
}

/** One network. Calls queue; `dispose` waits for the running one. */
export class Network<Class extends NetworkClass = NetworkClass> {
  /** as the pipeline calls it, e.g. "unet" */
  readonly name: string
  readonly className: string
  readonly config: Config
  readonly device: string
  readonly #component: Component
  /** the type that was asked for; undefined: as stored */
  readonly weights: WeightType | undefined
  readonly #settings: { threads: number; packing: Packing; tiling: Tiling }
  readonly #dryRun: NetworkOptions['dryRun']
  readonly #group: NetworkGroup
  #network: NativeNetwork | undefined
  #loras: ReadonlyMap<string, NetworkLora> = new Map()
  #disposed = false

  /**
   * Checks the options and loads nothing.
   * @param options.group networks that share one take turns on the device, and load when their turn comes
   * @throws KandinskyError `INVALID_ARGUMENT`, `DEVICE_UNAVAILABLE`
   */
  constructor(component: Component, options: NetworkOptions & { group?: NetworkGroup | undefined } = {}) {
    this.name = component.name
    this.className = component.className
    this.config = component.config
    const { device, weights, settings } = checkNetworkOptions(options)
    this.device = device
    this.#component = component
    this.weights = weights
    this.#settings = settings
    this.#dryRun = options.dryRun
    this.#group = options.group ?? new NetworkGroup()
  }

  /** Loads the weights unless they are loaded; another network of the group gives way. */
  load(options: LoadOptions = {}): Promise<void> {
    return this.#group.enqueue(options.signal, async () => {
      await this.#ready(options)
    })
  }

  /** By name, in the order in which they were added. */
  get loras(): ReadonlyMap<string, NetworkLora> {
    return this.#loras
  }

  /**
   * Every weight that the network has.
   * @throws KandinskyError `UNSUPPORTED_MODEL`
   */
  specs(): TensorSpec[] {
    return specsOf(this.#component)
  }

  /**
   * Sets the LoRAs after the calls so far. Those that are on are added beside the weights at once; where others become
   * fused or no longer are, the network is loaded again when it is next needed. After an error all is as before.
   */
  setLoras(loras: ReadonlyMap<string, NetworkLora>): Promise<void> {
    return this.#group.enqueue(undefined, async () => {
      const before = this.#loras
      this.#loras = loras
      const signature = (all: ReadonlyMap<string, NetworkLora>) =>
        withState(all, 'fused')
          .map(({ hash, weight }) => `${hash} ${weight}`)
          .join()
      if (signature(before) !== signature(loras)) return this.release()
      try {
        if (this.#network) await this.#network.adapt(this.#adapted())
      } catch (error) {
        this.#loras = before
        throw error
      }
    })
  }

  /** Frees the weights after the calls so far. The next call loads them again. */
  unload(): Promise<void> {
    return this.#group.enqueue(undefined, () => this.release())
  }

  /**
   * Runs one of the network's methods, loading it first where needed.
   *
   * @param method 'forward', 'encode', 'decode' … (calls.ts)
   * @param inputs tensors under the reference's argument names
   * @param options.taps names of intermediate tensors to return as well (module paths, e.g. "down_blocks.0")
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`, `OUT_OF_MEMORY`, `DISPOSED`; or `signal.reason`
   */
  run<Name extends Method<Class>>(
    method: Name,
    inputs: Inputs<Class, Name>,
    options: { signal?: AbortSignal | undefined; taps?: string[] | undefined } = {},
  ): Promise<Outputs<Class, Name>> {
    const { signal, taps } = options
    return this.#group.enqueue(signal, async () => {
      const network = await this.#ready({ signal })
      const given = inputs as Record<string, NativeTensor>
      const outputs = await cancellable(signal, (cancel) => network.run(method, given, { cancel, taps }))
      if (this.#dryRun) this.#dryRun({ name: this.name, className: this.className, ...network.memory() })
      signal?.throwIfAborted() // it may have come too late to stop the network
      return Object.fromEntries(
        Object.entries(outputs).map(([name, { data, shape }]) => [name, new Tensor(data, shape)]),
      ) as Outputs<Class, Name>
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
    return this.#group.enqueue(undefined, () => this.release())
  }

  async #ready({ signal, onProgress }: LoadOptions): Promise<NativeNetwork> {
    if (this.#disposed) throw new KandinskyError('DISPOSED', `The network ${this.name} was disposed`)
    if (this.#network) return this.#network
    const { resident } = this.#group
    if (resident) await resident.release()
    const job = {
      className: this.className,
      component: this.name,
      config: this.config,
      tensors: mergeAdapters(
        tensorSources(this.#component, this.weights),
        adaptersOf(withState(this.#loras, 'fused')),
        this.weights,
      ),
      device: this.device,
      ...this.#settings,
      dryRun: this.#dryRun !== undefined,
    }
    const network = await cancellable(signal, (cancel) => binding().loadNetwork({ ...job, cancel }, onProgress))
    this.#network = network
    this.#group.resident = this
    const adapted = this.#adapted()
    if (adapted.length > 0) await network.adapt(adapted)
    return network
  }

  /** What is added beside weights; of these sources only names and adapters count. */
  #adapted(): TensorSource[] {
    return [...adaptersOf(withState(this.#loras, 'on'))].map(([name, adapters]) => ({
      ...{ name, adapters, path: '', offset: 0, bytes: 0, type: 'f32', shape: [], target: 'f32' },
    }))
  }

  /** Frees the weights at once: for the group, in whose turn it happens. */
  async release(): Promise<void> {
    const network = this.#network
    this.#network = undefined
    if (this.#group.resident === this) this.#group.resident = undefined
    await network?.dispose()
  }
}

// LoRA on every pipeline, under the names of diffusers (loaders/lora_base.py). The networks hold the adapters, so that
// pipelines that share networks (fromPipe) share them, too.
import { readLoraFile } from '../../checkpoint/lora-file.js'
import { invalid } from '../../errors.js'
import { resolveLora } from '../../hub/lora.js'
import type { Recipe } from '../../images/recipe.js'
import { checkLoraWeight, matchLora, type NetworkLora } from '../../networks/lora.js'
import type { Network } from '../../networks/network.js'
import { expectOptions } from '../call/options.js'
import { type SourceOptions, sourceOptionNames } from './open.js'

/** What `loadLoraWeights` takes beside its source. */
export interface LoraOptions extends Omit<SourceOptions, 'variant'> {
  /** how `setAdapters` calls it; default: `default_0`, `default_1` … */
  adapterName?: string | undefined
  /** the file in a folder or repository; default: `pytorch_lora_weights.safetensors` and what else tools write */
  weightName?: string | undefined
  /** what its additions are multiplied with; default 1 */
  weight?: number | undefined
}

/** What `fuseLora` takes. */
export interface FuseOptions {
  /** on top of each adapter's weight; default 1 */
  loraScale?: number | undefined
  /** default: the active ones */
  adapterNames?: readonly string[] | undefined
}

/** What every pipeline does with LoRAs. */
export abstract class LoraLoader {
  /** Whose matrices LoRAs can add to. */
  protected abstract get networks(): readonly Network[]

  /**
   * Adds a LoRA: low-rank products beside the matrices, which stay mapped or quantized as they are. It is the only active
   * one until `setAdapters` says otherwise, as in diffusers.
   *
   * Files of diffusers' attention processors (what the LoRA training scripts of Kandinsky 2.2 save), of PEFT and of kohya
   * are understood; alphas count. Adapters of other kinds (DoRA, LoHa, LoKr) are refused.
   *
   * @param source a .safetensors or .bin file, a folder with one, or a hub id
   * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`; `UNSUPPORTED_MODEL` for a key that no network of the pipeline has;
   *   `SHAPE_MISMATCH` for a matrix of another size; `INVALID_ARGUMENT` for a name that is taken
   */
  async loadLoraWeights(source: string, options: LoraOptions = {}): Promise<void> {
    expectOptions(options, [...sourceOptionNames.filter((name) => name !== 'variant'), ...loraOptionNames])
    const { adapterName = this.#freeName(), weight = 1, onProgress, ...rest } = options
    if (typeof adapterName !== 'string' || adapterName === '') throw invalid('adapterName', 'a name', adapterName)
    checkLoraWeight(weight, 'weight')
    if (this.#names().includes(adapterName)) throw invalid('adapterName', 'a name that is not taken', adapterName)
    const file = await readLoraFile(
      await resolveLora(source, {
        ...rest,
        onProgress: ({ file, done, total }) => onProgress?.({ type: 'download', name: file, done, total }),
      }),
    )
    rest.signal?.throwIfAborted()
    const { networks } = this
    const layers = matchLora(
      file,
      networks.map((network) => ({ name: network.name, specs: network.specs() })),
    )
    await this.#change((loras, network) => {
      const own = layers[networks.indexOf(network)]!
      for (const [name, lora] of loras) if (lora.state === 'on') loras.set(name, { ...lora, state: 'off' })
      if (own.size > 0) loras.set(adapterName, { hash: file.hash, layers: own, weight, state: 'on' })
    })
  }

  /**
   * Makes these adapters the active ones, at once and without loading anything again.
   * @param weights one for all, or one each; default 1
   * @throws KandinskyError `INVALID_ARGUMENT` for a name that is not loaded, or fused
   */
  async setAdapters(adapterNames: string | readonly string[], weights: number | readonly number[] = 1): Promise<void> {
    const names = [adapterNames].flat()
    const each = typeof weights === 'number' ? names.map(() => weights) : weights
    if (!Array.isArray(each) || each.length !== names.length)
      throw invalid('weights', `one number or ${names.length}`, weights)
    for (const weight of each) checkLoraWeight(weight, 'weights')
    this.#expectLoaded(names)
    const fused = names.find((name) => this.networks.some(({ loras }) => loras.get(name)?.state === 'fused'))
    if (fused !== undefined) throw invalid('adapterNames', 'adapters that are not fused (unfuseLora)', fused)
    await this.#change((loras) => {
      for (const [name, lora] of loras) {
        const at = names.indexOf(name)
        if (at >= 0) loras.set(name, { ...lora, state: 'on', weight: each[at]! })
        else if (lora.state === 'on') loras.set(name, { ...lora, state: 'off' })
      }
    })
  }

  /** The names of the adapters that act beside the weights. */
  getActiveAdapters(): string[] {
    return this.#names((lora) => lora.state === 'on')
  }

  /** The names of all adapters of each network that has some. */
  getListAdapters(): Record<string, string[]> {
    const lists = this.networks.map(({ name, loras }): [string, string[]] => [name, [...loras.keys()]])
    return Object.fromEntries(lists.filter(([, names]) => names.length > 0))
  }

  /**
   * Merges adapters into the matrices: nothing is computed beside them any more. The networks load again when they are
   * next needed. Matrices that are quantized as stored become float16, as small changes do not survive another
   * quantization; with the option `weights` they get that type.
   */
  async fuseLora({ loraScale = 1, adapterNames }: FuseOptions = {}): Promise<void> {
    checkLoraWeight(loraScale, 'loraScale')
    const names = adapterNames ?? this.getActiveAdapters()
    this.#expectLoaded(names)
    await this.#change((loras) => {
      for (const [name, lora] of loras)
        if (names.includes(name) && lora.state !== 'fused')
          loras.set(name, { ...lora, state: 'fused', weight: lora.weight * loraScale, unfused: lora.weight })
    })
  }

  /** Takes the fused adapters out of the matrices, exactly, by loading these as they are stored; they act beside them again. */
  async unfuseLora(): Promise<void> {
    await this.#change((loras) => {
      for (const [name, lora] of loras)
        if (lora.state === 'fused')
          loras.set(name, { ...lora, state: 'on', weight: lora.unfused ?? lora.weight, unfused: undefined })
    })
  }

  /** Forgets all adapters, fused ones, too: the networks are as they were loaded first. */
  async unloadLoraWeights(): Promise<void> {
    await this.#change((loras) => loras.clear())
  }

  /** Forgets some. */
  async deleteAdapters(adapterNames: string | readonly string[]): Promise<void> {
    const names = [adapterNames].flat()
    this.#expectLoaded(names)
    await this.#change((loras) => {
      for (const name of names) loras.delete(name)
    })
  }

  /** On all networks or, after an error, on none. */
  async #change(change: (loras: Map<string, NetworkLora>, network: Network) => void): Promise<void> {
    const before = this.networks.map((network) => [network, network.loras] as const)
    try {
      for (const [network, own] of before) {
        const loras = new Map(own)
        change(loras, network)
        await network.setLoras(loras)
      }
    } catch (error) {
      for (const [network, loras] of before) if (network.loras !== loras) await network.setLoras(loras)
      throw error
    }
  }

  #names(wanted: (lora: NetworkLora) => boolean = () => true): string[] {
    const all = this.networks.flatMap(({ loras }) =>
      [...loras].filter(([, lora]) => wanted(lora)).map(([name]) => name),
    )
    return [...new Set(all)]
  }

  #freeName(): string {
    const names = this.#names()
    for (let i = 0; ; i++) if (!names.includes(`default_${i}`)) return `default_${i}`
  }

  #expectLoaded(names: readonly string[]): void {
    const loaded = this.#names()
    for (const name of names)
      if (!loaded.includes(name))
        throw invalid('adapterNames', loaded.length > 0 ? `names among ${loaded.join(', ')}` : 'a loaded adapter', name)
  }
}

const loraOptionNames = ['adapterName', 'weightName', 'weight']

/** The part of a recipe that says which LoRAs made a picture. */
export function loraRecipe(networks: readonly Network[]): Recipe {
  const loras = new Map<string, { name: string; hash: string; weight: number }>()
  for (const network of networks)
    for (const [name, { hash, weight, state }] of network.loras)
      if (state !== 'off' && weight !== 0) loras.set(name, { name, hash, weight })
  return loras.size > 0 ? { loras: [...loras.values()] } : {}
}

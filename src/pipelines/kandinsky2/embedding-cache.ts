// What `interpolate` has made of texts and pictures. The frames of an interpolation differ in weights only, and a run of
// the prior takes as long as several steps of the decoder.
import { createHash } from 'node:crypto'
import { Generator, type GeneratorPosition, type RandomSource } from '../../random.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import type { Tensor } from '../../tensor.js'

/** Two embeddings of 1280 values each: 64 runs take 0.6 MB. */
const KEPT = 64

interface Run<Result> {
  result: Result
  /** where the generators were afterwards */
  positions: GeneratorPosition[]
}

/** The most recent runs and pictures. A run is the same if all that goes into it is, the noise included. */
export class EmbeddingCache<Result> {
  readonly #runs = new Map<string, Run<Result>>()
  readonly #images = new Map<string, Tensor>()
  #scheduler: Scheduler | undefined

  /**
   * The result of a run, remembered or made; generators move on in either case.
   * @param inputs what decides about the result beside scheduler and noise, as JSON can hold it
   */
  async run(
    inputs: unknown,
    scheduler: Scheduler,
    generator: RandomSource | readonly RandomSource[],
    make: () => Promise<Result>,
  ): Promise<Result> {
    const generators = [generator].flat()
    // Other sources of noise do not tell where they are.
    if (!areGenerators(generators)) return make()
    if (scheduler !== this.#scheduler) this.#runs.clear()
    this.#scheduler = scheduler
    const key = JSON.stringify([
      inputs,
      generators.map(({ seed, algorithm, position }) => [`${seed}`, algorithm, position]),
    ])
    const known = this.#runs.get(key)
    if (known) for (const [i, position] of known.positions.entries()) generators[i]!.position = position
    const result = known?.result ?? (await make())
    keep(this.#runs, key, { result, positions: generators.map(({ position }) => position) })
    return result
  }

  /** The embedding of pixels, remembered or made. */
  async image(
    { data, shape }: { data: Uint8Array | Float32Array; shape: readonly number[] },
    make: () => Promise<Tensor>,
  ) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    const key = `${data.BYTES_PER_ELEMENT} ${shape} ${createHash('sha256').update(bytes).digest('base64')}`
    const embeds = this.#images.get(key) ?? (await make())
    keep(this.#images, key, embeds)
    return embeds
  }

  clear(): void {
    this.#runs.clear()
    this.#images.clear()
  }
}

function areGenerators(sources: readonly RandomSource[]): sources is Generator[] {
  return sources.every((source) => source instanceof Generator)
}

function keep<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key)
  map.set(key, value)
  if (map.size > KEPT) map.delete(map.keys().next().value!)
}

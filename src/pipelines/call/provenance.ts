// What made a picture: filled in by the pipelines, carried by RawImage, written into PNG files (recipe.ts).
import { createHash } from 'node:crypto'
import path from 'node:path'
import type { Checkpoint } from '../../checkpoint/open.js'
import { withFile } from '../../files.js'
import type { RawImage } from '../../images/image.js'
import type { Recipe } from '../../images/recipe.js'
import { Generator, type GeneratorAlgorithm, type GeneratorPosition, type RandomSource } from '../../random.js'
import { Tensor } from '../../tensor.js'
import { version } from '../../version.js'

/** Name and hash of a checkpoint, for recipes. */
export interface ModelIdentity {
  name: string
  /** 10 hexadecimal digits */
  hash: string
}

const SAMPLED_TENSORS = 64
const SAMPLED_BYTES = 4096

/**
 * Tells checkpoints apart without reading gigabytes: the hash covers names, types and shapes of all tensors and the first
 * bytes of 64 of them per network. Fine-tunes differ in every tensor.
 */
export async function identify(checkpoint: Checkpoint): Promise<ModelIdentity> {
  const hash = createHash('sha256')
  for (const name of await checkpoint.components()) {
    const { tensors } = (await checkpoint.component(name))!
    for (const tensor of tensors) hash.update(`${name}.${tensor.name} ${tensor.type} ${tensor.shape.join('x')}\n`)
    const stride = Math.max(1, Math.floor(tensors.length / SAMPLED_TENSORS))
    for (let i = 0; i < tensors.length; i += stride) {
      const { path: file, offset, bytes } = tensors[i]!
      hash.update(await readStart(file, offset, Math.min(bytes, SAMPLED_BYTES)))
    }
  }
  return { name: path.basename(checkpoint.source, '.gguf'), hash: hash.digest('hex').slice(0, 10) }
}

function readStart(file: string, offset: number, length: number): Promise<Uint8Array> {
  return withFile(file, async (handle) => {
    const { buffer, bytesRead } = await handle.read(new Uint8Array(length), 0, length, offset)
    return buffer.subarray(0, bytesRead)
  })
}

/** Where a generator stood when a call began. */
export interface NoiseOrigin {
  seed: number | string
  algorithm: GeneratorAlgorithm
  position: GeneratorPosition
}

/** One for all pictures of a call, or one each; of other sources of noise nothing is known. */
export type NoiseOrigins = readonly (NoiseOrigin | undefined)[]

export function originsOf(generator: RandomSource | readonly RandomSource[]): NoiseOrigins {
  return [generator].flat().map((source) => {
    if (!(source instanceof Generator)) return undefined
    const { seed, algorithm, position } = source
    return { seed: plainSeed(seed), algorithm, position }
  })
}

/** Tells pictures and tensors apart: one hash of each picture, or of each row of a tensor. */
export function hashesOf(values: readonly (RawImage | Tensor)[]): string[] {
  return values.flatMap((value) => {
    if (!(value instanceof Tensor)) return hash(value.data, [value.height, value.width, value.channels])
    const length = value.data.length / value.shape[0]!
    const row = (i: number) => value.data.subarray(i * length, (i + 1) * length)
    return Array.from({ length: value.shape[0]! }, (_, i) => hash(row(i), value.shape.slice(1)))
  })
}

function hash({ buffer, byteOffset, byteLength }: Uint8Array | Float32Array, shape: readonly number[]): string {
  const bytes = new Uint8Array(buffer, byteOffset, byteLength)
  return createHash('sha256').update(`${shape} `).update(bytes).digest('hex').slice(0, 16)
}

/** What differs between the pictures of a call. */
export interface RecipeSources {
  origins: NoiseOrigins
  /** for equal shares of the pictures, in order */
  prompts?: readonly Recipe[] | undefined
  /** hashes of pictures and embeddings that went in, by option; each list for equal shares of the pictures */
  inputs?: Readonly<Record<string, readonly string[]>> | undefined
}

/** Gives each picture its recipe: all that makes it again, alone. Tensors carry none. */
export function attachRecipe(
  images: RawImage[] | Tensor,
  recipe: Recipe,
  { origins, prompts = [], inputs = {} }: RecipeSources,
): void {
  if (!Array.isArray(images)) return
  for (const [index, image] of images.entries()) {
    const share = <T>(values: readonly T[]) => values[Math.floor((index * values.length) / images.length)]
    const { width, height } = image
    image.recipe = {
      ...share(prompts),
      ...recipe,
      ...Object.fromEntries(Object.entries(inputs).map(([name, hashes]) => [name, share(hashes)])),
      ...noiseOf(origins, index, images.length),
      ...{ index, width, height, version: `node-kandinsky ${version}` },
    }
  }
}

/** A seed where that is all, otherwise the generator, and how many pictures share its stream. */
function noiseOf(origins: NoiseOrigins, index: number, pictures: number): Recipe {
  const isOwn = origins.length === pictures
  const origin = isOwn ? origins[index] : origins[0]
  if (!origin) return {}
  const { seed, algorithm, position } = origin
  if (isOwn && algorithm === 'torch-cpu' && position.drawn === 0) return { seed }
  return { generator: { ...origin, ...(!isOwn && { pictures }) } }
}

/** A seed as JSON holds it without loss. */
export function plainSeed(seed: number | bigint): number | string {
  return Number.isSafeInteger(Number(seed)) ? Number(seed) : String(seed)
}

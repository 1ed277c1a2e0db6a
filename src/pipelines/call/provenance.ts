// What made a picture: filled in by the pipelines, carried by RawImage, written into PNG files (recipe.ts).
import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import path from 'node:path'
import type { Checkpoint } from '../../checkpoint/open.js'
import type { RawImage } from '../../images/image.js'
import type { Recipe } from '../../images/recipe.js'
import { Generator, type RandomSource } from '../../random.js'
import type { Tensor } from '../../tensor.js'
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

async function readStart(file: string, offset: number, length: number): Promise<Uint8Array> {
  const handle = await open(file)
  try {
    const { buffer, bytesRead } = await handle.read(new Uint8Array(length), 0, length, offset)
    return buffer.subarray(0, bytesRead)
  } finally {
    await handle.close()
  }
}

export interface RecipeSources {
  /** one for all pictures, or one each */
  generator: RandomSource | readonly RandomSource[]
  /** for equal shares of the pictures, in order */
  prompts?: readonly Recipe[]
}

/** Gives each picture its recipe, with its own prompt and seed. Tensors carry none. */
export function attachRecipe(
  images: RawImage[] | Tensor,
  recipe: Recipe,
  { generator, prompts = [] }: RecipeSources,
): void {
  if (!Array.isArray(images)) return
  for (const [index, image] of images.entries()) {
    const source = Array.isArray(generator) ? (generator[index] ?? generator[0]) : generator
    const seed = source instanceof Generator ? plainSeed(source.seed) : undefined
    const { width, height } = image
    const prompt = prompts[Math.floor((index * prompts.length) / images.length)]
    image.recipe = { ...prompt, ...recipe, seed, index, width, height, version: `node-kandinsky ${version}` }
  }
}

/** A seed as JSON holds it without loss. */
export function plainSeed(seed: number | bigint): number | string {
  return Number.isSafeInteger(Number(seed)) ? Number(seed) : String(seed)
}

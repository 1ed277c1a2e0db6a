// From a picture back to the call that made it.
import { invalid, KandinskyError } from '../errors.js'
import { readRecipe } from '../images/image.js'
import type { Recipe } from '../images/recipe.js'
import type { ByteSource } from '../images/source.js'
import { Generator, type RandomSource } from '../random.js'
import { schedulerFromConfig } from '../schedulers/registry.js'
import type { Scheduler } from '../schedulers/scheduler.js'
import type { NoiseOrigin } from './call/provenance.js'
import type { Mix } from './kandinsky2/combined.js'

/**
 * Options of `generate`: those that every pipeline has. A picture's recipe may have more (`strength`, the prior's steps and
 * guidance, `mix`), which are there, too; pictures that went in are not.
 */
export interface RecipeOptions {
  prompt: string
  negativePrompt?: string
  seed?: number | bigint
  generator?: RandomSource
  numInferenceSteps?: number
  guidanceScale?: number
  width?: number
  height?: number
}

const plainNames = [
  ...['prompt', 'negativePrompt', 'numInferenceSteps', 'guidanceScale', 'guidanceInterval', 'forecast', 'hiresFix'],
  ...['priorNumInferenceSteps', 'priorGuidanceScale', 'width', 'height', 'strength'],
]

/**
 * The options that make a picture again, alone, to the byte: `pipe.generate(await recipeOptions('picture.png'))`, with the
 * same model, device and weights, and with `pipe.scheduler = await recipeScheduler('picture.png')` where another was set.
 * Pictures and embeddings that went in (image, maskImage, hint, imageEmbeds) must be given again; the recipe has hashes
 * of them.
 *
 * @param source a PNG file that carries a recipe (path, URL or bytes), or the recipe
 * @param changes options that take the place of the recipe's
 * @throws KandinskyError `INVALID_ARGUMENT` for a picture without a recipe, or one that cannot be made alone: its noise came
 *   from a stream that it shared with others, or from a source without a seed, or (Kandinsky 3) a longer prompt was beside it; `FILE_NOT_FOUND`, `BAD_FILE`
 */
export async function recipeOptions<Changes extends object = object>(
  source: ByteSource | Recipe,
  changes?: Changes,
): Promise<Omit<RecipeOptions, keyof Changes> & Changes> {
  const recipe = await recipeOf(source)
  if (recipe.contextTokens !== undefined)
    throw new KandinskyError(
      'INVALID_ARGUMENT',
      'The picture was made in one call with a longer prompt, which changed it, and cannot be made alone',
    )
  const given = { ...changes } as Record<string, unknown>
  const options: Record<string, unknown> = {}
  for (const name of plainNames) if (recipe[name] !== undefined) options[name] = recipe[name]
  if (recipe.mix !== undefined && given.mix === undefined && given.prompt === undefined) options.mix = mixOf(recipe.mix)
  if (given.seed === undefined && given.generator === undefined) Object.assign(options, noiseOf(recipe))
  if (given.mix !== undefined) delete options.prompt
  return { ...options, ...given } as unknown as Omit<RecipeOptions, keyof Changes> & Changes
}

/**
 * The scheduler that a picture was made with.
 * @param source a PNG file that carries a recipe (path, URL or bytes), or the recipe
 * @throws KandinskyError `INVALID_ARGUMENT` for a picture without one; `FILE_NOT_FOUND`, `BAD_FILE`
 */
export async function recipeScheduler(source: ByteSource | Recipe): Promise<Scheduler> {
  const { scheduler, schedulerConfig } = await recipeOf(source)
  return schedulerFromConfig({ ...(schedulerConfig as object), _class_name: scheduler })
}

async function recipeOf(source: ByteSource | Recipe): Promise<Recipe> {
  const isSource = typeof source === 'string' || source instanceof URL || ArrayBuffer.isView(source)
  if (source === null || (typeof source !== 'object' && !isSource))
    throw invalid('source', 'a PNG file or a recipe', source)
  const isBytes = Object.prototype.toString.call(source) === '[object ArrayBuffer]'
  const recipe = isSource || isBytes ? await readRecipe(source as ByteSource) : (source as Recipe)
  if (recipe === undefined) throw new KandinskyError('INVALID_ARGUMENT', 'Expected a picture that carries a recipe')
  return recipe
}

function noiseOf({ seed, generator }: Recipe): Pick<RecipeOptions, 'seed' | 'generator'> {
  if (seed !== undefined) return { seed: typeof seed === 'string' ? BigInt(seed) : seed }
  const { pictures, ...origin } = (generator ?? {}) as NoiseOrigin & { pictures?: number }
  if (origin.seed === undefined)
    throw new KandinskyError('INVALID_ARGUMENT', 'The recipe has no seed: the noise came from a source that has none')
  if (pictures !== undefined)
    throw new KandinskyError(
      'INVALID_ARGUMENT',
      `The picture shared one stream of noise with others (${pictures} in all) and cannot be made alone; make them all with ` +
        'that generator, or use a seed',
    )
  const source = new Generator(typeof origin.seed === 'string' ? BigInt(origin.seed) : origin.seed, origin.algorithm)
  source.position = origin.position
  return { generator: source }
}

function mixOf(mix: unknown): Mix {
  const { items, weights } = mix as Mix
  if (!items.every((item) => typeof item === 'string'))
    throw new KandinskyError('INVALID_ARGUMENT', 'The picture was mixed from pictures, which must be given again: mix')
  return { items, weights }
}

// What made a picture, as it travels in PNG files: as JSON for this package, and as the `parameters` text that
// AUTOMATIC1111's web UI introduced and that galleries and other tools read.
import { invalid, KandinskyError } from '../errors.js'
import { insertTextChunks, type PngText, readTextChunk } from './png.js'

const KEYWORD = 'kandinsky'

/** Generation parameters. Anything else that JSON holds may be added and comes back as it was. */
export interface Recipe {
  prompt?: string | undefined
  negativePrompt?: string | undefined
  /** with which the picture can be made alone; a string beyond 2^53 */
  seed?: number | string | undefined
  /** class name, e.g. `DDPMScheduler` */
  scheduler?: string | undefined
  numInferenceSteps?: number | undefined
  guidanceScale?: number | undefined
  /** in pixels */
  width?: number | undefined
  /** in pixels */
  height?: number | undefined
  strength?: number | undefined
  /** the scheduler's whole config */
  schedulerConfig?: object | undefined
  priorNumInferenceSteps?: number | undefined
  priorGuidanceScale?: number | undefined
  model?: string | undefined
  modelHash?: string | undefined
  /** the LoRAs that took part: how they were called, hashes of their files, and what they were multiplied with */
  loras?: readonly { name: string; hash: string; weight: number }[] | undefined
  /** program and version, e.g. `node-kandinsky 0.1.0` */
  version?: string | undefined
  [key: string]: unknown
}

/** A copy of a PNG file that carries a recipe. */
export function addRecipe(png: Uint8Array, recipe: Recipe): Uint8Array {
  const texts: PngText[] = [{ keyword: KEYWORD, text: toJson(recipe) }]
  const parameters = formatParameters(recipe)
  if (parameters !== '') texts.push({ keyword: 'parameters', text: parameters })
  return insertTextChunks(png, texts)
}

/**
 * The recipe that a PNG file carries; undefined if it carries none.
 *
 * @throws KandinskyError `BAD_FILE` for what is no intact PNG file or no JSON object
 */
export function parseRecipe(png: Uint8Array): Recipe | undefined {
  const json = readTextChunk(png, KEYWORD)
  if (json === undefined) return undefined
  let recipe: unknown
  try {
    recipe = JSON.parse(json)
  } catch (error) {
    throw new KandinskyError('BAD_FILE', `Expected JSON in the recipe of a PNG file: ${(error as Error).message}`)
  }
  if (typeof recipe !== 'object' || recipe === null || Array.isArray(recipe))
    throw new KandinskyError('BAD_FILE', 'Expected a JSON object in the recipe of a PNG file')
  return recipe as Recipe
}

function toJson(recipe: Recipe): string {
  let json: string | undefined
  try {
    json = JSON.stringify(recipe)
  } catch (error) {
    throw new KandinskyError('INVALID_ARGUMENT', `Expected a recipe that JSON can hold: ${(error as Error).message}`)
  }
  if (!json?.startsWith('{')) throw invalid('recipe', 'an object', recipe)
  return json
}

/** Prompt, negative prompt and one line of `Name: value` pairs, each where known. */
export function formatParameters(recipe: Recipe): string {
  const { prompt, negativePrompt, width, height } = recipe
  const hires = recipe.hiresFix as { scale: number; strength: number } | undefined
  const seed = recipe.seed ?? (recipe.generator as Recipe | undefined)?.seed
  const values = {
    Steps: recipe.numInferenceSteps,
    Sampler: recipe.scheduler,
    'CFG scale': recipe.guidanceScale,
    Seed: seed,
    Size: width === undefined || height === undefined ? undefined : `${width}x${height}`,
    'Denoising strength': recipe.strength ?? hires?.strength,
    'Hires upscale': hires?.scale,
    Model: recipe.model,
    'Model hash': recipe.modelHash,
    'Lora hashes': recipe.loras?.map(({ name, hash }) => `${name}: ${hash}`).join(', '),
    Version: recipe.version,
  }
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined)
  return [
    prompt,
    negativePrompt && `Negative prompt: ${negativePrompt}`,
    pairs.map(([name, value]) => `${name}: ${quote(String(value))}`).join(', '),
  ]
    .filter((line) => line)
    .join('\n')
}

/** Quotes what would read as another pair. */
function quote(value: string): string {
  return /[,:\n"]/.test(value) ? JSON.stringify(value) : value
}

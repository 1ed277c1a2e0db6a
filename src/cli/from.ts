// `kandinsky generate --from picture.png`: the flags that made a picture, from its recipe.
import { readRecipe } from '../images/image.js'
import type { Recipe } from '../images/recipe.js'
import { type Invocation, UsageError } from './options.js'
import { expectFile } from './plan.js'

/** Flags by what recipes call them. */
const flags = {
  negative: 'negativePrompt',
  seed: 'seed',
  steps: 'numInferenceSteps',
  guidance: 'guidanceScale',
  'prior-steps': 'priorNumInferenceSteps',
  'prior-guidance': 'priorGuidanceScale',
  width: 'width',
  height: 'height',
  strength: 'strength',
  weights: 'weights',
} as const

/** Flags of pictures that went in, which must be given again. */
const pictureFlags = { image: 'image', mask: 'maskImage', hint: 'hint' } as const

/** @throws UsageError for a picture without a recipe */
export async function recipeFrom(file: string | undefined): Promise<Recipe | undefined> {
  if (file === undefined) return undefined
  await expectFile('from', file)
  const recipe = await readRecipe(file)
  if (!recipe) throw new UsageError(`expected a picture that carries a recipe for --from but ${file} has none`)
  return recipe
}

/**
 * What was typed, completed by the recipe.
 * @throws UsageError where the recipe does not say all
 */
export function withRecipe(invocation: Invocation, recipe: Recipe): Pick<Invocation, 'values' | 'positionals'> {
  const { values, positionals } = invocation
  // With --outpaint mask and size follow from the picture.
  const outpaint = values.mask === undefined ? recipe.outpaint : undefined
  for (const [flag, name] of Object.entries(pictureFlags)) {
    const isKnown =
      values[flag] !== undefined || values.mix !== undefined || (flag === 'mask' && outpaint !== undefined)
    if (recipe[name] !== undefined && !isKnown)
      throw new UsageError(`--from: the picture was made with --${flag}; name that picture again`)
  }
  const loras = recipe.loras ?? []
  if (loras.length > 0 && values.lora === undefined) {
    const flags = loras.map(({ name, weight }) => `${name}=${weight}`).join(', ')
    throw new UsageError(`--from: the picture was made with LoRAs (${flags}); name their files again with --lora`)
  }
  if (values.seed === undefined && recipe.seed === undefined)
    throw new UsageError(
      '--from: the picture has no seed of its own, as it was made from a generator; choose one with --seed',
    )
  if (recipe.contextTokens !== undefined)
    throw new UsageError(
      '--from: the picture was made beside a longer prompt, which changed it; it cannot be made alone',
    )
  const known: Invocation['values'] = {}
  for (const [flag, name] of Object.entries(flags)) {
    const value = recipe[name]
    if (typeof value === 'number' || typeof value === 'string') known[flag] = String(value)
  }
  const { guidanceInterval, forecast } = recipe as { guidanceInterval?: number[]; forecast?: Record<string, number> }
  if (Array.isArray(guidanceInterval)) known['guidance-interval'] = guidanceInterval.join(',')
  if (forecast) known.forecast = [forecast.interval, forecast.warmup, forecast.order].join(',')
  const { hiresFix } = recipe as { hiresFix?: { scale: number; strength: number } }
  if (hiresFix) {
    known['hires-scale'] = String(hiresFix.scale)
    known['hires-strength'] = String(hiresFix.strength)
  }
  if (values.image === undefined) delete known.strength
  if (outpaint !== undefined && values.image !== undefined) known.outpaint = String(outpaint)
  if ((known.outpaint ?? values.outpaint) !== undefined) for (const flag of ['width', 'height']) delete known[flag]
  if (process.env.KANDINSKY_MODEL === undefined && recipe.model !== undefined) known.model = recipe.model
  const hasPrompt = positionals.length > 0 || values.prompts !== undefined || values.mix !== undefined
  if (!hasPrompt && recipe.mix !== undefined) known.mix = mixFlags(recipe.mix)
  const text = hasPrompt || recipe.mix !== undefined || recipe.prompt === undefined ? positionals : [recipe.prompt]
  return { values: { ...known, ...values }, positionals: text }
}

function mixFlags(mix: unknown): string[] {
  const { items, weights } = mix as { items: unknown[]; weights: number[] }
  if (!items.every((item) => typeof item === 'string'))
    throw new UsageError('--from: the picture was mixed from pictures; name them again with --mix')
  return items.map((item, i) => `${item}=${weights[i]}`)
}

/** What makes the new picture another one than that of the recipe, where nobody asked for it. */
export function differences(recipe: Recipe, made: Recipe): string[] {
  const notes = []
  if (recipe.modelHash !== made.modelHash) notes.push(`The picture was made with another model (${recipe.model}).`)
  const loras = ({ loras = [] }: Recipe) => loras.map(({ hash, weight }) => `${hash}=${weight}`).join()
  if (loras(recipe) !== loras(made)) notes.push('The picture was made with other LoRAs, or with other weights of them.')
  for (const [flag, name] of Object.entries(pictureFlags))
    if (recipe[name] !== undefined && recipe[name] !== made[name])
      notes.push(`--${flag} is not the picture that the recipe names.`)
  if (recipe.device !== made.device) notes.push(`The picture was made on the device ${recipe.device}.`)
  return notes
}

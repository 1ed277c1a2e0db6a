// The recipe that a PNG file of this package carries, as settings of the form. The server's reader is src/images/recipe.ts;
// this one needs not trust less: what it reads is shown in the form, and checked when it comes back.

const KEYWORD = 'kandinsky'
const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]

/** @returns the recipe, or undefined for a file without one */
export async function readRecipe(file) {
  const bytes = new Uint8Array(await file.arrayBuffer())
  if (!SIGNATURE.every((value, i) => bytes[i] === value)) return undefined
  const view = new DataView(bytes.buffer)
  for (let at = SIGNATURE.length; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at)
    const type = new TextDecoder('latin1').decode(bytes.subarray(at + 4, at + 8))
    const text = textOf(type, bytes.subarray(at + 8, at + 8 + length))
    if (text !== undefined)
      try {
        const recipe = JSON.parse(text)
        return typeof recipe === 'object' && recipe !== null ? recipe : undefined
      } catch {
        return undefined
      }
    at += length + 12
  }
}

/** Keyword, null, and the text: Latin-1 in tEXt; in iTXt behind four more nulls and in UTF-8 (PNG specification, 11.3.3). */
function textOf(type, data) {
  if (type !== 'tEXt' && type !== 'iTXt') return undefined
  const head = type === 'tEXt' ? `${KEYWORD}\0` : `${KEYWORD}\0\0\0\0\0`
  for (let i = 0; i < head.length; i++) if (data[i] !== head.charCodeAt(i)) return undefined
  // Not the decoder's 'latin1', which is Windows-1252.
  if (type === 'tEXt') return Array.from(data.subarray(head.length), (byte) => String.fromCharCode(byte)).join('')
  return new TextDecoder().decode(data.subarray(head.length))
}

/** Options of the library that the form does not have. */
const elsewhere = {
  hint: 'the hint',
  hiresFix: 'hiresFix',
  guidanceInterval: 'guidanceInterval',
  forecast: 'forecast',
  outpaint: 'outpainting',
}

/** @returns settings of the form, and what of the recipe has no place there */
export function settingsOf(recipe) {
  const texts = (recipe.mix?.items ?? []).filter((item) => typeof item === 'string')
  const settings = {
    mode: recipe.mix ? 'mix' : 'prompt',
    prompt: recipe.prompt ?? '',
    mix: (recipe.mix?.items ?? []).flatMap((item, i) =>
      typeof item === 'string' ? [{ text: item, weight: Number(recipe.mix.weights?.[i] ?? 1) }] : [],
    ),
    negative_prompt: recipe.negativePrompt ?? '',
    model: recipe.model,
    scheduler: recipe.scheduler,
    n: 1,
  }
  const names = {
    seed: 'seed',
    width: 'width',
    height: 'height',
    numInferenceSteps: 'steps',
    guidanceScale: 'guidance_scale',
  }
  for (const [from, to] of Object.entries(names)) settings[to] = recipe[from] === undefined ? '' : String(recipe[from])
  if (typeof recipe.strength === 'number') settings.strength = recipe.strength
  const missing = []
  if (texts.length < (recipe.mix?.items?.length ?? 0)) missing.push('pictures of the mix')
  if (recipe.image !== undefined || recipe.strength !== undefined) missing.push('the start picture')
  for (const [name, words] of Object.entries(elsewhere)) if (recipe[name] !== undefined) missing.push(words)
  return { settings, missing }
}

/** What the caption shows of a recipe, as names and values. */
export function factsOf(recipe) {
  const facts = {
    Size: recipe.width && `${recipe.width} × ${recipe.height}`,
    Steps: recipe.numInferenceSteps,
    Guidance: recipe.guidanceScale,
    Seed: recipe.seed,
    Strength: recipe.strength,
    Scheduler: recipe.scheduler?.replace(/Scheduler$/, ''),
    Model: recipe.model,
  }
  return Object.entries(facts).filter(([, value]) => value !== undefined)
}

/** A picture's text: its prompt, or what was mixed. */
export function titleOf({ mode, prompt, mix = [] }) {
  if (mode !== 'mix') return prompt
  return mix.map(({ text, weight }) => `${text ?? 'a picture'} × ${weight}`).join(', ')
}

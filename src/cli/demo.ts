// What the packaged demo model says of itself: it draws something for any text, but knows few things and one size.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { isPackaged, packagedModel } from '../hub/packaged.js'
import { isPicture, type Mix } from './mix.js'
import { type Invocation, numberOption } from './options.js'

/** Made by scripts/demo-model/words.py. */
interface Vocabulary {
  /** what it can draw */
  concepts: string[]
  /** that mean something to it, or are to be expected around what is asked for */
  words: string[]
}

/** The side of the pictures that it was trained on, in pixels. */
const SIDE = 128
const SHOWN_WORDS = 5

/** Names of what the demo model can draw. */
export function demoConcepts(): string[] {
  return vocabulary().concepts
}

/** The words of a text that the demo model does not know, each once. */
export function unknownWords(text: string): string[] {
  const known = new Set(vocabulary().words)
  const words = text.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? []
  // An "s" is what is left of "cat's".
  return [...new Set(words)].filter((word) => word !== 's' && !known.has(word))
}

/** What to tell who asks a demo model for these pictures. */
export function demoNotes(
  model: string,
  values: Invocation['values'],
  prompts: readonly string[],
  mix?: Mix,
): string[] {
  if (!isPackaged(model)) return []
  const texts = mix ? mix.items.filter((item) => !isPicture(item)) : prompts
  const unknown = unknownWords(texts.join('\n'))
  const sides = ['width', 'height'].map((name) => numberOption(values, name) ?? SIDE)
  const notes: string[] = []
  if (unknown.length > 0)
    notes.push(
      `note: the demo model does not know ${listOf(unknown)} and will draw something else; ` +
        `"kandinsky inspect demo" lists the ${demoConcepts().length} things that it can draw`,
    )
  if (sides.some((side) => Math.ceil(side / 64) * 64 !== SIDE))
    notes.push(`note: the demo model was trained on ${SIDE} x ${SIDE} pixels only; other sizes come out worse`)
  return notes
}

function listOf(words: readonly string[]): string {
  const quoted = words.slice(0, SHOWN_WORDS).map((word) => `"${word.slice(0, 40)}"`)
  return words.length > SHOWN_WORDS
    ? `${quoted.join(', ')} and ${words.length - SHOWN_WORDS} other words`
    : quoted.join(', ')
}

let loaded: Vocabulary | undefined

function vocabulary(): Vocabulary {
  loaded ??= JSON.parse(
    readFileSync(path.join(path.dirname(packagedModel('demo')!), 'demo.json'), 'utf8'),
  ) as Vocabulary
  return loaded
}

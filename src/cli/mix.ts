// `--mix 'text or image'=weight`: what the prior's interpolation takes, from the command line.
import { existsSync } from 'node:fs'
import path from 'node:path'
import { imageFormats, loadImage } from '../images/image.js'
import type { ImageOrPrompt } from '../pipelines/kandinsky2/prior.js'
import { UsageError } from './options.js'

export interface Mix {
  /** as typed: texts, and paths or URLs of pictures */
  items: string[]
  weights: number[]
}

/** @throws UsageError unless every text is `item=weight` */
export function parseMix(texts: readonly string[]): Mix {
  const parts = texts.map((text) => {
    const divider = text.lastIndexOf('=')
    const weight = text.slice(divider + 1).trim()
    if (divider < 1 || weight === '' || !Number.isFinite(Number(weight)))
      throw new UsageError(`expected 'text or image'=weight for --mix but received ${text}`)
    return { item: text.slice(0, divider), weight: Number(weight) }
  })
  return { items: parts.map(({ item }) => item), weights: parts.map(({ weight }) => weight) }
}

/** Whether an item means a picture: a file, a URL, or the name of one that is missing. */
export function isPicture(item: string): boolean {
  return (
    existsSync(item) || /^(https?|data|file):/i.test(item) || imageFormats.includes(path.extname(item).toLowerCase())
  )
}

/** Loads the pictures; the other items are prompts. */
export function resolveMix({ items }: Mix, signal: AbortSignal): Promise<ImageOrPrompt[]> {
  return Promise.all(items.map((item) => (isPicture(item) ? loadImage(item, { signal }) : item)))
}

import { invalid, KandinskyError } from '../errors.js'

/**
 * With truncation, longer texts are tokenized up to a word boundary before this many UTF-16 units, which is many times
 * what a row holds: a prompt of a megabyte would otherwise take seconds. (A single word above it is cut.)
 */
const LONG_TEXT = 16384

/** What is used of `@huggingface/tokenizers`; its own types do not resolve under NodeNext. */
export interface Backend {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] }
  decode(ids: number[], options: { clean_up_tokenization_spaces: boolean }): string
}

export interface EncodeOptions {
  /** longest row in tokens, special tokens included; the tokenizer's `modelMaxLength` if not given */
  maxLength?: number
  /** cut longer texts, keeping the special tokens around them (default true) */
  truncation?: boolean
  /** fill rows up to `maxLength`, up to the longest row, or not at all (default `max_length`) */
  padding?: 'max_length' | 'longest' | 'do_not_pad'
}

export interface Encoding {
  /** one row of token ids per text */
  inputIds: Int32Array[]
  /** 1 for tokens of the text and its special tokens, 0 for padding */
  attentionMask: Int32Array[]
  /** per text, what truncation removed, decoded; undefined where nothing was removed */
  truncated: (string | undefined)[]
}

/** What surrounds and fills the ids of a text. */
export interface SpecialIds {
  /** ids before the text, e.g. BOS */
  prefix: readonly number[]
  /** ids after the text, e.g. EOS */
  suffix: readonly number[]
  padTokenId: number
}

/**
 * Truncation, special tokens and padding around a `@huggingface/tokenizers` backend, as the `__call__` of transformers'
 * fast tokenizers does it for single texts (both sides fixed to the right). What differs between models (CLIP's BPE,
 * XLM-R's and T5's Unigram) is the backend and the special ids.
 */
export class Tokenizer {
  /** longest row the text encoder takes, in tokens */
  readonly modelMaxLength: number
  readonly #backend: Backend
  readonly #special: SpecialIds

  constructor(backend: Backend, special: SpecialIds, modelMaxLength: number) {
    this.#backend = backend
    this.#special = special
    this.modelMaxLength = modelMaxLength
  }

  /**
   * @param texts any strings; lone surrogates count as U+FFFD
   * @throws KandinskyError `INVALID_ARGUMENT` for other values or options
   */
  encode(texts: readonly string[], options: EncodeOptions = {}): Encoding {
    const { maxLength = this.modelMaxLength, truncation = true, padding = 'max_length' } = options
    const { prefix, suffix, padTokenId } = this.#special
    if (!Array.isArray(texts) || !texts.every((text) => typeof text === 'string'))
      throw invalid('texts', 'an array of strings', texts)
    const specials = prefix.length + suffix.length
    if (!Number.isSafeInteger(maxLength) || maxLength < specials)
      throw invalid('maxLength', `an integer of at least ${specials}`, maxLength)
    if (!['max_length', 'longest', 'do_not_pad'].includes(padding))
      throw invalid('padding', "'max_length', 'longest' or 'do_not_pad'", padding)

    const truncated: (string | undefined)[] = []
    const rows = texts.map((text) => {
      const content = truncation ? this.#truncate(text, maxLength - specials) : { kept: this.#ids(text) }
      truncated.push(content.removed)
      return [...prefix, ...content.kept, ...suffix]
    })
    const longest = rows.reduce((length, row) => Math.max(length, row.length), 0)
    const width = { max_length: maxLength, longest, do_not_pad: 0 }[padding]
    const filled = (row: number[], fill: number) => new Int32Array(Math.max(width, row.length)).fill(fill)
    const inputIds = rows.map((row) => {
      const ids = filled(row, padTokenId)
      ids.set(row)
      return ids
    })
    const attentionMask = rows.map((row) => filled(row, 0).fill(1, 0, row.length))
    return { inputIds, attentionMask, truncated }
  }

  #ids(text: string): number[] {
    return this.#backend.encode(text, { add_special_tokens: false }).ids
  }

  #truncate(text: string, count: number): { kept: number[]; removed?: string } {
    const { head, tail } = splitLongText(text)
    const headIds = this.#ids(head)
    const enough = headIds.length > count || tail === ''
    const ids = enough ? headIds : this.#ids(text)
    if (ids.length <= count) return { kept: ids }
    const removed = `${this.decode(ids.slice(count))} ${enough ? tail : ''}`.trim()
    return { kept: ids.slice(0, count), removed }
  }

  /** The text of token ids; special tokens are kept as they are written. */
  decode(ids: readonly number[]): string {
    if (ids.length === 0) return ''
    // The spaces before punctuation stay: transformers ignores clean_up_tokenization_spaces for BPE.
    return this.#backend.decode([...ids], { clean_up_tokenization_spaces: false }).trim()
  }
}

function splitLongText(text: string): { head: string; tail: string } {
  if (text.length <= LONG_TEXT) return { head: text, tail: '' }
  const collapsed = text.replace(/\p{White_Space}+/gu, ' ')
  const space = collapsed.lastIndexOf(' ', LONG_TEXT)
  const end = space > 0 ? space : LONG_TEXT
  return { head: collapsed.slice(0, end), tail: collapsed.slice(end).trimStart() }
}

/** Contents of tokenizer files by their name in the repository, e.g. `{ 'vocab.json': '{…}' }`. */
export type TokenizerFiles = Readonly<Record<string, string>>

export type JsonObject = Record<string, unknown>

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function badFile(message: string): KandinskyError {
  return new KandinskyError('BAD_FILE', message)
}

/** A JSON object among the files; undefined when the file is absent. */
export function readJson(files: TokenizerFiles, name: string): JsonObject | undefined {
  const text = Object.hasOwn(files, name) ? files[name] : undefined
  if (text === undefined) return undefined
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new KandinskyError('BAD_FILE', `Expected JSON in ${name}: ${(error as Error).message}`, { cause: error })
  }
  if (!isObject(value)) throw badFile(`Expected a JSON object in ${name}`)
  return value
}

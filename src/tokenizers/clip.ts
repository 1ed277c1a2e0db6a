// CLIP's byte-level BPE as transformers 5 has it (models/clip/tokenization_clip.py): no ftfy, no spacing of CJK text.
// Vocabulary and merges come from the files; normalizer and word pattern are always CLIP's own, as in transformers,
// which ignores those of a tokenizer.json, too.
//
// Easy to get wrong:
// - a special token is also recognised inside a text. The 2.1 prior pads with "!", so there every "!" of a prompt
//   becomes the padding id instead of the word "!</w>";
// - special_tokens_map.json beats tokenizer_config.json, unless the latter has an `added_tokens_decoder`.
import { Tokenizer as Backend } from '@huggingface/tokenizers'
import { KandinskyError } from '../errors.js'
import { badFile, isObject, type JsonObject, readJson, Tokenizer, type TokenizerFiles } from './tokenizer.js'

/** Context length of every CLIP text encoder; used where tokenizer_config.json does not tell. */
const CONTEXT_LENGTH = 77

const WORD = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"
const SPECIAL_OR_WORD = `<\\|startoftext\\|>|<\\|endoftext\\|>|${WORD}`

const SPECIAL_TOKENS = {
  bos_token: '<|startoftext|>',
  eos_token: '<|endoftext|>',
  unk_token: '<|endoftext|>',
  pad_token: '<|endoftext|>',
}
type SpecialName = keyof typeof SPECIAL_TOKENS

interface AddedToken {
  id: number
  content: string
  /** matched in the normalized (lower-case) text instead of the text as given */
  normalized: boolean
  lstrip: boolean
  rstrip: boolean
  special: true
}

export class ClipTokenizer extends Tokenizer {
  /**
   * @param files contents of `tokenizer.json`, or of `vocab.json` and `merges.txt`; and, where the repository has them,
   *   of `tokenizer_config.json` and `special_tokens_map.json`. Other files are ignored.
   * @throws KandinskyError `BAD_FILE` when a file is missing, malformed or does not fit the others
   */
  static fromFiles(files: TokenizerFiles): ClipTokenizer {
    const config = readJson(files, 'tokenizer_config.json') ?? {}
    const { source, vocab, merges, addedTokens } = readBpeModel(files)
    const { added, ids, unkToken } = readSpecialTokens(files, config, vocab, addedTokens, source)
    const regex = (pattern: string) => ({
      type: 'Split',
      pattern: { Regex: pattern },
      behavior: 'Removed',
      invert: true,
    })
    const backend = new Backend(
      {
        added_tokens: added,
        normalizer: {
          type: 'Sequence',
          normalizers: [
            { type: 'NFC' },
            { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
            // The reference lower-cases code point by code point; JavaScript would make a final sigma of some of these.
            { type: 'Replace', pattern: { String: 'Σ' }, content: 'σ' },
            { type: 'Lowercase' },
          ],
        },
        pre_tokenizer: {
          type: 'Sequence',
          // The second split stands for ByteLevel's own one, which in JavaScript takes U+FEFF for white space.
          pretokenizers: [regex(SPECIAL_OR_WORD), regex(WORD), { type: 'ByteLevel', use_regex: false }],
        },
        model: { type: 'BPE', vocab, merges, unk_token: unkToken, end_of_word_suffix: '</w>' },
        post_processor: null,
        decoder: { type: 'ByteLevel' },
      },
      {},
    )
    return new ClipTokenizer(
      backend,
      { prefix: [ids.bos_token], suffix: [ids.eos_token], padTokenId: ids.pad_token },
      readMaxLength(config),
    )
  }
}

interface Model {
  /** the file that held the vocabulary, for messages */
  source: string
  vocab: Record<string, number>
  merges: [string, string][]
  addedTokens: unknown[]
}

export function readBpeModel(files: TokenizerFiles): Model {
  const combined = readJson(files, 'tokenizer.json')
  if (combined) {
    const model = combined.model
    if (!isObject(model) || model.type !== 'BPE' || !Array.isArray(model.merges))
      throw badFile('Expected a BPE model with vocab and merges in tokenizer.json')
    const vocab = checkVocab(model.vocab, 'tokenizer.json')
    const addedTokens = Array.isArray(combined.added_tokens) ? combined.added_tokens : []
    return { source: 'tokenizer.json', vocab, merges: checkMerges(model.merges, vocab, 'tokenizer.json'), addedTokens }
  }
  const vocabulary = readJson(files, 'vocab.json')
  const mergesText = files['merges.txt']
  if (!vocabulary || mergesText === undefined)
    throw badFile(
      `Expected tokenizer.json, or vocab.json and merges.txt, for a BPE tokenizer but received ${Object.keys(files).join(', ') || 'no files'}`,
    )
  const vocab = checkVocab(vocabulary, 'vocab.json')
  const lines = mergesText.split(/\r?\n/).filter((line) => line !== '' && !line.startsWith('#version'))
  return { source: 'vocab.json', vocab, merges: checkMerges(lines, vocab, 'merges.txt'), addedTokens: [] }
}

function checkVocab(value: unknown, file: string): Record<string, number> {
  if (!isObject(value)) throw badFile(`Expected a vocabulary object in ${file}`)
  const entries = Object.entries(value)
  const seen = new Set<unknown>()
  for (const [token, id] of entries) {
    // Ids are indices of an embedding table: a gap or a repetition is the mark of a damaged or mixed-up file.
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= entries.length || seen.has(id))
      throw badFile(`Expected unique ids below ${entries.length} in ${file} but ${JSON.stringify(token)} has ${id}`)
    seen.add(id)
  }
  return value as Record<string, number>
}

function checkMerges(merges: unknown[], vocab: Record<string, number>, file: string): [string, string][] {
  return merges.map((merge, i) => {
    const pair = typeof merge === 'string' ? merge.split(' ') : merge
    if (!Array.isArray(pair) || pair.length !== 2 || !pair.every((part) => typeof part === 'string' && part !== ''))
      throw badFile(`Expected two symbols in merge ${i + 1} of ${file}`)
    const [left, right] = pair as [string, string]
    for (const symbol of [left, right, left + right])
      if (!Object.hasOwn(vocab, symbol))
        throw badFile(`Expected ${JSON.stringify(symbol)} of merge ${i + 1} of ${file} in the vocabulary`)
    return [left, right]
  })
}

/** The added tokens of tokenizer_config.json, or else of tokenizer.json. */
export function readAddedTokens(
  config: JsonObject,
  vocab: Record<string, number>,
  addedTokens: unknown[],
  source: string,
): Map<string, AddedToken> {
  const decoder = isObject(config.added_tokens_decoder) ? config.added_tokens_decoder : undefined
  const listed = decoder
    ? Object.entries(decoder).map(([id, token]) => (isObject(token) ? { ...token, id: Number(id) } : token))
    : addedTokens
  const added = new Map<string, AddedToken>()
  for (const entry of listed) {
    const content = tokenContent(entry)
    const id = isObject(entry) ? entry.id : undefined
    const known = Object.hasOwn(vocab, content) ? vocab[content] : id
    if (!Number.isInteger(id) || (id as number) < 0 || known !== id)
      throw badFile(`Expected the id of the added token ${JSON.stringify(content)} to be its id in ${source}`)
    added.set(content, addedToken(content, id as number, entry))
  }
  return added
}

/** Named special tokens and added tokens, with the precedence of transformers' `_from_pretrained`. */
function readSpecialTokens(
  files: TokenizerFiles,
  config: JsonObject,
  vocab: Record<string, number>,
  addedTokens: unknown[],
  source: string,
): { added: AddedToken[]; ids: Record<SpecialName, number>; unkToken: string } {
  const added = readAddedTokens(config, vocab, addedTokens, source)
  const map = isObject(config.added_tokens_decoder) ? {} : (readJson(files, 'special_tokens_map.json') ?? {})
  const settled = new Set(added.keys())
  const ids = {} as Record<SpecialName, number>
  let unkToken = ''
  for (const [name, standard] of Object.entries(SPECIAL_TOKENS) as [SpecialName, string][]) {
    const entry = map[name] ?? config[name] ?? standard
    const content = tokenContent(entry)
    const id = Object.hasOwn(vocab, content) ? vocab[content] : added.get(content)?.id
    if (id === undefined) throw badFile(`Expected the ${name} ${JSON.stringify(content)} in ${source}`)
    ids[name] = id
    if (name === 'unk_token') unkToken = content
    // Of several names for one token the last decides how it is matched, except where a list already did.
    if (!settled.has(content)) added.set(content, addedToken(content, id, entry))
  }
  return { added: [...added.values()], ids, unkToken }
}

function addedToken(content: string, id: number, entry: unknown): AddedToken {
  const flags: JsonObject = isObject(entry) ? { normalized: true, ...entry } : {}
  const { normalized, lstrip, rstrip } = flags
  return {
    id,
    content,
    normalized: normalized === true,
    lstrip: lstrip === true,
    rstrip: rstrip === true,
    special: true,
  }
}

function tokenContent(entry: unknown): string {
  const content = isObject(entry) ? entry.content : entry
  if (typeof content !== 'string' || content === '') throw badFile('Expected special tokens to be non-empty strings')
  return content
}

function readMaxLength(config: JsonObject): number {
  for (const side of ['padding_side', 'truncation_side'])
    if (config[side] !== undefined && config[side] !== 'right')
      throw new KandinskyError(
        'UNSUPPORTED_MODEL',
        `Expected "right" for ${side} of a CLIP tokenizer but received ${config[side]}`,
      )
  const length = config.model_max_length ?? CONTEXT_LENGTH
  if (typeof length !== 'number' || !Number.isInteger(length) || length < 3)
    throw badFile('Expected a model_max_length of at least 3 tokens in tokenizer_config.json')
  // transformers writes 1e30 for "not known"
  return length > 1e6 ? CONTEXT_LENGTH : length
}

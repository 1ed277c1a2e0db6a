// Unigram tokenizers of SentencePiece as transformers 5 builds them around the Rust tokenizers library: added tokens,
// charsmap, words at white space with "▁" in front, the likeliest pieces of each word.
import { Tokenizer as UnigramBackend } from '@huggingface/tokenizers'
import { Charsmap } from './charsmap.js'
import { readSentencePieceModel } from './sentencepiece.js'
import { type Backend, badFile, isObject, readJson, type TokenizerFiles } from './tokenizer.js'

export interface AddedToken {
  id: number
  content: string
  /** matched in the normalized text instead of the text as given */
  normalized: boolean
  lstrip: boolean
  rstrip: boolean
  special: true
}

/** Pieces with their log probabilities, in the order of the file's ids. */
export interface UnigramModel {
  pieces: [piece: string, score: number][]
  charsmap: Charsmap
  /** name of the file that it is from */
  source: string
}

/**
 * The pieces of a `tokenizer.json`, which come with the ids of transformers, or else of a SentencePiece model, which
 * come with its own ids.
 *
 * @param files texts; the SentencePiece model in base64
 * @throws KandinskyError `BAD_FILE`
 */
export function readUnigramModel(files: TokenizerFiles, modelFile: string): UnigramModel {
  const combined = readJson(files, 'tokenizer.json')
  if (combined) {
    const charsmap = new Charsmap(Buffer.from(findCharsmap(combined.normalizer), 'base64'), 'tokenizer.json')
    return { pieces: checkPieces(combined.model), charsmap, source: 'tokenizer.json' }
  }
  const model = files[modelFile]
  if (model === undefined)
    throw badFile(
      `Expected tokenizer.json or ${modelFile} for a Unigram tokenizer but received ${Object.keys(files).join(', ') || 'no files'}`,
    )
  const { pieces, charsmap } = readSentencePieceModel(Buffer.from(model, 'base64'), modelFile)
  return { pieces, charsmap: new Charsmap(charsmap, modelFile), source: modelFile }
}

function checkPieces(model: unknown): UnigramModel['pieces'] {
  if (!isObject(model) || model.type !== 'Unigram' || !Array.isArray(model.vocab) || model.vocab.length === 0)
    throw badFile('Expected a Unigram model with a vocab in tokenizer.json')
  if (model.byte_fallback) throw badFile('Expected a Unigram model without byte fallback in tokenizer.json')
  for (const [i, entry] of model.vocab.entries())
    if (!Array.isArray(entry) || typeof entry[0] !== 'string' || entry[0] === '' || !Number.isFinite(entry[1]))
      throw badFile(`Expected a piece and its score as entry ${i} of the vocab in tokenizer.json`)
  return model.vocab as UnigramModel['pieces']
}

/** The charsmap in base64, wherever in the normalizer it is; as in transformers, the rest of the normalizer is ignored. */
function findCharsmap(normalizer: unknown): string {
  const parts = isObject(normalizer) && Array.isArray(normalizer.normalizers) ? normalizer.normalizers : [normalizer]
  const precompiled = parts.find((part) => isObject(part) && part.type === 'Precompiled')
  const charsmap = isObject(precompiled) ? precompiled.precompiled_charsmap : undefined
  if (typeof charsmap !== 'string') throw badFile('Expected a precompiled charsmap in tokenizer.json')
  return charsmap
}

/** @param pieces in the order of their ids */
export function unigramBackend(
  { pieces, charsmap }: UnigramModel,
  unkId: number,
  addedTokens: readonly AddedToken[],
): Backend {
  const metaspace = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true }
  const backend = new UnigramBackend(
    {
      added_tokens: addedTokens,
      // Replaced below; without any, added tokens would all be looked for in the text as given.
      normalizer: { type: 'NFC' },
      pre_tokenizer: {
        type: 'Sequence',
        pretokenizers: [
          // WhitespaceSplit in JavaScript takes U+FEFF for white space, and U+0085 for none.
          { type: 'Split', pattern: { Regex: '\\P{White_Space}+' }, behavior: 'Removed', invert: true },
          metaspace,
        ],
      },
      model: { type: 'Unigram', vocab: pieces, unk_id: unkId },
      post_processor: null,
      decoder: metaspace,
    },
    {},
  )
  backend.normalizer = ((text: string) => charsmap.normalize(text)) as NonNullable<typeof backend.normalizer>
  return backend
}

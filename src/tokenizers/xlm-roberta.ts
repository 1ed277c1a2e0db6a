// The tokenizer of MultilingualCLIP as transformers 5 has it (models/xlm_roberta/tokenization_xlm_roberta.py).
//
// Easy to get wrong: SentencePiece's own ids are not those of the text encoder. fairseq put <s>, <pad>, </s> and <unk>
// first and <mask> last; in between SentencePiece's pieces follow in their order, without its own first three.
import { badFile, readJson, Tokenizer, type TokenizerFiles } from './tokenizer.js'
import { type AddedToken, readUnigramModel, unigramBackend } from './unigram.js'

/** The text encoder was trained on prompts of this length, and the pipelines of 2.1 always fill it. */
const PROMPT_LENGTH = 77

const FIRST_TOKENS = ['<s>', '<pad>', '</s>', '<unk>']
const MASK = '<mask>'
const [BOS, PAD, EOS, UNK] = [0, 1, 2, 3]

export class XlmRobertaTokenizer extends Tokenizer {
  /**
   * @param files contents of `tokenizer.json`, or of `sentencepiece.bpe.model` in base64. Other files are ignored: the
   *   special tokens are always XLM-R's own
   * @throws KandinskyError `BAD_FILE` when a file is missing or malformed
   */
  static fromFiles(files: TokenizerFiles): XlmRobertaTokenizer {
    const model = readUnigramModel(files, 'sentencepiece.bpe.model')
    if (!readJson(files, 'tokenizer.json')) model.pieces = fairseqOrder(model.pieces)
    const tokens = [...FIRST_TOKENS, MASK].map((content): AddedToken => {
      const id = content === MASK ? model.pieces.length - 1 : FIRST_TOKENS.indexOf(content)
      if (model.pieces[id]?.[0] !== content)
        throw badFile(`Expected ${content} as token ${id} of ${model.source} but found ${model.pieces[id]?.[0]}`)
      return { id, content, normalized: content === MASK, lstrip: content === MASK, rstrip: false, special: true }
    })
    const backend = unigramBackend(model, UNK, tokens)
    return new XlmRobertaTokenizer(backend, { prefix: [BOS], suffix: [EOS], padTokenId: PAD }, PROMPT_LENGTH)
  }
}

function fairseqOrder(pieces: [string, number][]): [string, number][] {
  return [...FIRST_TOKENS.map((token): [string, number] => [token, 0]), ...pieces.slice(3), [MASK, 0]]
}

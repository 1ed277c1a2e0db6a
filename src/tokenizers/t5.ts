// The tokenizer of T5 as transformers 5 has it (models/t5/tokenization_t5.py).
//
// Easy to get wrong: SentencePiece's ids are those of the text encoder, with <pad>, </s> and <unk> first; behind them stand
// a hundred tokens for gaps, counted down: <extra_id_99> has the lowest id. They count as tokens where a prompt has them.
// Nothing stands before a text.
import { badFile, readJson, Tokenizer, type TokenizerFiles } from './tokenizer.js'
import { type AddedToken, readUnigramModel, unigramBackend } from './unigram.js'

/** Kandinsky 3 reads so many tokens, whatever the tokenizer's files say. */
const PROMPT_LENGTH = 128

const FIRST_TOKENS = ['<pad>', '</s>', '<unk>']
const [PAD, EOS, UNK] = [0, 1, 2]
const EXTRA_IDS = 100

export class T5Tokenizer extends Tokenizer {
  /**
   * @param files contents of `tokenizer.json`, or of `spiece.model` in base64. Other files are ignored
   * @throws KandinskyError `BAD_FILE` when a file is missing or malformed
   */
  static fromFiles(files: TokenizerFiles): T5Tokenizer {
    const model = readUnigramModel(files, 'spiece.model')
    const extra = Array.from({ length: EXTRA_IDS }, (_, i) => `<extra_id_${EXTRA_IDS - 1 - i}>`)
    if (!readJson(files, 'tokenizer.json'))
      model.pieces = [...model.pieces, ...extra.map((piece): [string, number] => [piece, 0])]
    const ids = new Map(model.pieces.map(([piece], id) => [piece, id]))
    for (const [id, token] of FIRST_TOKENS.entries())
      if (ids.get(token) !== id)
        throw badFile(`Expected ${token} as token ${id} of ${model.source} but found ${model.pieces[id]?.[0]}`)
    const tokens = [...FIRST_TOKENS, ...extra].flatMap((content): AddedToken[] => {
      const id = ids.get(content)
      return id === undefined ? [] : [{ id, content, normalized: false, lstrip: false, rstrip: false, special: true }]
    })
    return new T5Tokenizer(
      unigramBackend(model, UNK, tokens),
      { prefix: [], suffix: [EOS], padTokenId: PAD },
      PROMPT_LENGTH,
    )
  }
}

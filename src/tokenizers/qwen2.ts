// Qwen2's byte-level BPE, which reads the prompts of Kandinsky 5. Vocabulary and merges come from the files; normalizer and
// word pattern are always Qwen2's own.
//
// Easy to get wrong:
// - added tokens (<|im_end|>, <tool_call> …) are recognised inside a text, too, special or not;
// - nothing stands before or behind a text, and padding is <|endoftext|>;
// - contractions match in any case, also with a long s; \s of the pattern is Unicode's white space, not JavaScript's.
import { Tokenizer as Backend } from '@huggingface/tokenizers'
import { readAddedTokens, readBpeModel } from './clip.js'
import { badFile, readJson, Tokenizer, type TokenizerFiles } from './tokenizer.js'

/** Of Qwen2.5-VL's positions; prompts are cut by their pipeline. */
const CONTEXT_LENGTH = 128000
const PAD = '<|endoftext|>'

const SPACE = '\\p{White_Space}'
const WORD = [
  "'(?:[sSſ]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])",
  '[^\\r\\n\\p{L}\\p{N}]?\\p{L}+',
  '\\p{N}',
  ` ?[^${SPACE}\\p{L}\\p{N}]+[\\r\\n]*`,
  `${SPACE}*[\\r\\n]+`,
  `${SPACE}+(?!\\P{White_Space})`,
  `${SPACE}+`,
].join('|')

export class Qwen2Tokenizer extends Tokenizer {
  /** id of the token that fills rows */
  readonly padTokenId: number

  constructor(backend: ConstructorParameters<typeof Tokenizer>[0], padTokenId: number) {
    super(backend, { prefix: [], suffix: [], padTokenId }, CONTEXT_LENGTH)
    this.padTokenId = padTokenId
  }

  /**
   * @param files contents of `tokenizer.json`, or of `vocab.json`, `merges.txt` and `tokenizer_config.json`
   * @throws KandinskyError `BAD_FILE` when a file is missing, malformed or does not fit the others
   */
  static fromFiles(files: TokenizerFiles): Qwen2Tokenizer {
    const { source, vocab, merges, addedTokens } = readBpeModel(files)
    const added = readAddedTokens(readJson(files, 'tokenizer_config.json') ?? {}, vocab, addedTokens, source)
    const pad = added.get(PAD)
    if (!pad) throw badFile(`Expected the added token ${PAD} in ${source} or tokenizer_config.json`)
    const backend = new Backend(
      {
        added_tokens: [...added.values()],
        normalizer: { type: 'NFC' },
        pre_tokenizer: {
          type: 'Sequence',
          pretokenizers: [
            { type: 'Split', pattern: { Regex: WORD }, behavior: 'Isolated', invert: false },
            { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
          ],
        },
        model: { type: 'BPE', vocab, merges },
        post_processor: null,
        decoder: { type: 'ByteLevel' },
      },
      {},
    )
    return new Qwen2Tokenizer(backend, pad.id)
  }
}

// XlmRobertaTokenizer against ids recorded from transformers 5 (XLMRobertaTokenizer around the Rust library).
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Charsmap } from '../../dist/tokenizers/charsmap.js'
import { readSentencePieceModel } from '../../dist/tokenizers/sentencepiece.js'
import { XlmRobertaTokenizer } from '../../dist/tokenizers/xlm-roberta.js'

const folder = new URL('../fixtures/tokenizers/xlm-roberta/', import.meta.url)
const modelBytes = readFileSync(new URL('sentencepiece.bpe.model', folder))
const json = JSON.parse(readFileSync(new URL('tokenizer.json', folder), 'utf8'))
const { cases } = JSON.parse(readFileSync(new URL('cases.json', folder), 'utf8'))

const fromJson = (change = (value) => value) =>
  XlmRobertaTokenizer.fromFiles({ 'tokenizer.json': JSON.stringify(change(structuredClone(json))) })
const fromModel = (bytes = modelBytes) =>
  XlmRobertaTokenizer.fromFiles({ 'sentencepiece.bpe.model': bytes.toString('base64') })
const ids = (tokenizer, text) => [...tokenizer.encode([text], { padding: 'do_not_pad' }).inputIds[0]]
const badFile = (pattern) => (error) => error.code === 'BAD_FILE' && pattern.test(error.message)

for (const [form, load] of [
  ['tokenizer.json', fromJson],
  ['sentencepiece.bpe.model', fromModel],
])
  it(`${form}: ids and attention mask of every recorded text`, () => {
    const { inputIds, attentionMask } = load().encode(cases.map(({ text }) => text))
    for (const [i, { text, ids, mask }] of cases.entries()) {
      assert.deepEqual([...inputIds[i]], ids, `ids of ${JSON.stringify(text)}`)
      assert.deepEqual([...attentionMask[i]], mask, `mask of ${JSON.stringify(text)}`)
    }
  })

describe('where the tokenizer library differs from the reference', () => {
  const recorded = JSON.parse(readFileSync(new URL('../../extra/xlm-roberta-cases.json', folder), 'utf8'))
  for (const { text, ids: expected } of recorded)
    it(`${JSON.stringify(text)} gives what transformers gives`, () => {
      assert.deepEqual(ids(fromJson(), text), expected)
    })
})

describe('texts', () => {
  it('rows hold 77 tokens; what does not fit is cut off before </s> and told', () => {
    const { inputIds, attentionMask, truncated } = fromJson().encode(['word '.repeat(100), 'word'])
    assert.equal(inputIds[0].length, 77)
    assert.equal(inputIds[0].at(-1), 2)
    assert.ok(attentionMask[0].every((value) => value === 1))
    assert.match(truncated[0], /^word( word)+$/)
    assert.equal(truncated[1], undefined)
  })

  it('any string gives ids of the vocabulary between <s> and </s>', () => {
    const tokenizer = fromJson()
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const row = ids(tokenizer, text)
        assert.ok(row[0] === 0 && row.at(-1) === 2)
        assert.ok(row.every((id) => Number.isInteger(id) && id >= 0 && id < 2002))
      }),
    )
  })
})

describe('hostile files', () => {
  const model = readSentencePieceModel(modelBytes, 'x.model')

  it('the model file cut off anywhere is refused, or holds fewer pieces', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: modelBytes.length - 1 }), (length) => {
        try {
          assert.ok(
            readSentencePieceModel(modelBytes.subarray(0, length), 'x.model').pieces.length <= model.pieces.length,
          )
        } catch (error) {
          assert.equal(error.code, 'BAD_FILE')
        }
      }),
    )
  })

  it('the model file with a changed byte is read or refused as BAD_FILE', () => {
    fc.assert(
      fc.property(fc.nat(modelBytes.length - 1), fc.nat(255), (position, value) => {
        const changed = Buffer.from(modelBytes)
        changed[position] = value
        try {
          fromModel(changed).encode(['a ﬁne cat'])
        } catch (error) {
          assert.equal(error.code, 'BAD_FILE')
        }
      }),
      { numRuns: 30 },
    )
  })

  it('a charsmap of random bytes is refused or normalizes to some string', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 8, maxLength: 64 }), fc.string({ unit: 'grapheme' }), (bytes, text) => {
        bytes.set([16, 0, 0, 0])
        bytes[bytes.length - 1] = 0
        try {
          assert.equal(typeof new Charsmap(bytes, 'x').normalize(text), 'string')
        } catch (error) {
          assert.equal(error.code, 'BAD_FILE')
        }
      }),
    )
  })

  for (const [what, change, message] of [
    ['another model', (value) => ({ ...value, model: { ...value.model, type: 'BPE' } }), /Unigram model/],
    ['no charsmap', (value) => ({ ...value, normalizer: { type: 'NFC' } }), /precompiled charsmap/],
    [
      'a piece without score',
      (value) => ({ ...value, model: { ...value.model, vocab: [...value.model.vocab.slice(0, 9), ['x']] } }),
      /entry 9/,
    ],
    [
      'other special tokens',
      (value) => ({ ...value, model: { ...value.model, vocab: value.model.vocab.slice(1) } }),
      /Expected <s> as token 0/,
    ],
  ])
    it(`${what} in tokenizer.json is refused`, () => {
      assert.throws(() => fromJson(change), badFile(message))
    })

  it('without either file, says what is needed', () => {
    assert.throws(
      () => XlmRobertaTokenizer.fromFiles({ 'tokenizer_config.json': '{}' }),
      badFile(/tokenizer.json or sentencepiece.bpe.model/),
    )
  })
})

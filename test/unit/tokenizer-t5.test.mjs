// T5Tokenizer against ids recorded from transformers 5.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import { T5Tokenizer } from '../../dist/tokenizers/t5.js'

const folder = new URL('../fixtures/tokenizers/t5/', import.meta.url)
const modelBytes = readFileSync(new URL('spiece.model', folder))
const json = JSON.parse(readFileSync(new URL('tokenizer.json', folder), 'utf8'))
const { cases } = JSON.parse(readFileSync(new URL('cases.json', folder), 'utf8'))

const fromJson = (change = (value) => value) =>
  T5Tokenizer.fromFiles({ 'tokenizer.json': JSON.stringify(change(structuredClone(json))) })
const fromModel = (bytes = modelBytes) => T5Tokenizer.fromFiles({ 'spiece.model': bytes.toString('base64') })
const ids = (tokenizer, text) => [...tokenizer.encode([text], { padding: 'do_not_pad' }).inputIds[0]]

for (const [form, load] of [
  ['tokenizer.json', fromJson],
  ['spiece.model', fromModel],
])
  test(`${form}: ids and attention mask of every recorded text`, () => {
    const { inputIds, attentionMask } = load().encode(cases.map(({ text }) => text))
    for (const [i, { text, ids: expected, mask }] of cases.entries()) {
      assert.deepEqual([...inputIds[i]], expected, `ids of ${JSON.stringify(text)}`)
      assert.deepEqual([...attentionMask[i]], mask, `mask of ${JSON.stringify(text)}`)
    }
  })

test('rows hold 128 tokens; what does not fit is cut off before </s> and told', () => {
  const { inputIds, truncated } = fromModel().encode(['word '.repeat(200), 'word'])
  assert.equal(inputIds[0].length, 128)
  assert.equal(inputIds[0].at(-1), 1)
  assert.match(truncated[0], /word( word)+$/)
  assert.equal(truncated[1], undefined)
})

test('the tokens for gaps are counted down behind the pieces', () => {
  for (const tokenizer of [fromJson(), fromModel()]) {
    assert.deepEqual(ids(tokenizer, '<extra_id_99>'), [2000, 1])
    assert.deepEqual(ids(tokenizer, '<extra_id_0>'), [2099, 1])
  }
})

test('files of another tokenizer are refused with what was expected', () => {
  const swapped = (value) => {
    value.model.vocab[1][0] = '<s>'
    return value
  }
  assert.throws(() => fromJson(swapped), { code: 'BAD_FILE', message: /<\/s> as token 1 of tokenizer.json.*<s>/ })
  assert.throws(() => T5Tokenizer.fromFiles({}), { code: 'BAD_FILE', message: /spiece.model/ })
  assert.throws(() => fromModel(modelBytes.subarray(0, 100)), { code: 'BAD_FILE', message: /spiece.model/ })
})

// Qwen2's tokenizer against recorded cases of transformers (test/fixtures/tokenizers/qwen2).
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { Qwen2Tokenizer } from '../../dist/tokenizers/qwen2.js'
import { fixtures } from '../helpers/cases.mjs'

const read = (name) => readFileSync(path.join(fixtures, 'tokenizers/qwen2', name), 'utf8')
const filesOf = (...names) => Object.fromEntries(names.map((name) => [name, read(name)]))
const { cases, max_length } = JSON.parse(read('cases.json'))

for (const [what, files] of [
  ['tokenizer.json', filesOf('tokenizer.json')],
  ['vocab.json and merges.txt', filesOf('vocab.json', 'merges.txt', 'tokenizer_config.json')],
])
  test(`texts as transformers reads them, from ${what}`, () => {
    const tokenizer = Qwen2Tokenizer.fromFiles(files)
    assert.ok(cases.length > 0)
    for (const { text, ids, mask } of cases) {
      const encoded = tokenizer.encode([text], { maxLength: max_length })
      assert.deepEqual([...encoded.inputIds[0]], ids, JSON.stringify(text))
      assert.deepEqual([...encoded.attentionMask[0]], mask, JSON.stringify(text))
    }
  })

test('files without the padding token are refused', () => {
  assert.throws(() => Qwen2Tokenizer.fromFiles(filesOf('vocab.json', 'merges.txt')), {
    code: 'BAD_FILE',
    message: /<\|endoftext\|>/,
  })
})

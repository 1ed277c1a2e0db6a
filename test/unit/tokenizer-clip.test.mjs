// ClipTokenizer against ids recorded from transformers 5 (fast CLIPTokenizer).
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { ClipTokenizer } from '../../dist/tokenizers/clip.js'

const folder = new URL('../fixtures/tokenizers/', import.meta.url)
const NAMES = ['vocab.json', 'merges.txt', 'tokenizer_config.json', 'special_tokens_map.json']
const readFiles = (name) =>
  Object.fromEntries(NAMES.map((file) => [file, readFileSync(new URL(`${name}/${file}`, folder), 'utf8')]))
const readCases = (name) => JSON.parse(readFileSync(new URL(`${name}/cases.json`, folder), 'utf8')).cases

const vit = readFiles('clip-vit')
const small = readFiles('clip-small')
const withJson = (files, name, change) => ({ ...files, [name]: JSON.stringify(change(JSON.parse(files[name]))) })
const withPad = (files, pad) =>
  ['tokenizer_config.json', 'special_tokens_map.json'].reduce(
    (changed, name) => withJson(changed, name, (config) => ({ ...config, pad_token: pad })),
    files,
  )
const tokenizerJson = (files, mergeOf) => ({
  'tokenizer_config.json': files['tokenizer_config.json'],
  'tokenizer.json': JSON.stringify({
    added_tokens: [],
    model: {
      type: 'BPE',
      vocab: JSON.parse(files['vocab.json']),
      merges: files['merges.txt'].trim().split('\n').slice(1).map(mergeOf),
    },
  }),
})
/** ids of one text without padding */
const ids = (tokenizer, text, options) => [
  ...tokenizer.encode([text], { padding: 'do_not_pad', ...options }).inputIds[0],
]
const badFile = (pattern) => (error) => error.code === 'BAD_FILE' && pattern.test(error.message)

describe('recorded ids', () => {
  for (const name of ['clip-small', 'clip-vit'])
    it(`${name}: ids and attention mask of every text`, () => {
      const cases = readCases(name)
      const { inputIds, attentionMask } = ClipTokenizer.fromFiles(readFiles(name)).encode(cases.map(({ text }) => text))
      for (const [i, { text, ids, mask }] of cases.entries()) {
        assert.deepEqual([...inputIds[i]], ids, `ids of ${JSON.stringify(text)}`)
        assert.deepEqual([...attentionMask[i]], mask, `mask of ${JSON.stringify(text)}`)
      }
    })

  for (const [form, mergeOf] of [
    ['strings', (line) => line],
    ['pairs', (line) => line.split(' ')],
  ])
    it(`a tokenizer.json with merges as ${form} gives the same ids as vocab.json and merges.txt`, () => {
      const tokenizer = ClipTokenizer.fromFiles(tokenizerJson(small, mergeOf))
      for (const { text, ids } of readCases('clip-small'))
        assert.deepEqual([...tokenizer.encode([text]).inputIds[0]], ids, JSON.stringify(text))
    })

  it('follows the reference where JavaScript differs by itself', () => {
    const tokenizer = ClipTokenizer.fromFiles(vit)
    const sigma = [139, 225, 138, 107, 139, 225, 139, 227, 139, 228, 138, 123, 139, 481]
    assert.deepEqual(ids(tokenizer, 'ΣΊΣΥΦΟΣ'), [49406, ...sigma, 49407], 'no final sigma')
    assert.deepEqual(ids(tokenizer, '!\ufeff!'), [49406, 0, 171, 119, 123, 256, 49407], 'U+FEFF is no white space')
  })
})

describe('special tokens', () => {
  it('a text may hold BOS and EOS; upper case only matches tokens that are compared after lower-casing', () => {
    const tokenizer = ClipTokenizer.fromFiles(vit)
    assert.deepEqual(ids(tokenizer, '<|STARTOFTEXT|>x'), [49406, 49406, 343, 49407])
    const spelledOut = [49406, 27, 347, 40786, 4160, 91, 285, 256, 49407]
    assert.deepEqual(ids(tokenizer, '<|ENDOFTEXT|>!'), spelledOut)
  })

  it('with "!" as padding (2.1 prior), "!" in a text is the padding id, too', () => {
    const tokenizer = ClipTokenizer.fromFiles(withPad(vit, '!'))
    assert.deepEqual(ids(tokenizer, 'wow! nice!!!'), [49406, 2781, 0, 1805, 0, 0, 0, 49407])
    const { inputIds, attentionMask } = tokenizer.encode(['wow'])
    assert.deepEqual([...inputIds[0]], [49406, 2781, 49407, ...new Array(74).fill(0)])
    assert.deepEqual([...attentionMask[0]], [1, 1, 1, ...new Array(74).fill(0)])
  })

  it('special_tokens_map.json beats tokenizer_config.json, but not its added_tokens_decoder', () => {
    const map = withJson(vit, 'special_tokens_map.json', (config) => ({ ...config, pad_token: '!' }))
    assert.equal(ClipTokenizer.fromFiles(map).encode(['']).inputIds[0][76], 0)
    const token = (content) => ({ content, normalized: true, lstrip: false, rstrip: false, special: true })
    const added_tokens_decoder = { 49406: token('<|startoftext|>'), 49407: token('<|endoftext|>') }
    const decoder = withJson(map, 'tokenizer_config.json', (config) => ({ ...config, added_tokens_decoder }))
    const tokenizer = ClipTokenizer.fromFiles(decoder)
    assert.equal(tokenizer.encode(['']).inputIds[0][76], 49407)
    assert.deepEqual(ids(tokenizer, '<|ENDOFTEXT|>'), [49406, 49407, 49407], 'the decoder tells how EOS is matched')
  })
})

describe('length', () => {
  const tokenizer = ClipTokenizer.fromFiles(vit)

  it('truncation keeps EOS and reports what was removed', () => {
    const { inputIds, truncated } = tokenizer.encode([`xxx ${'word '.repeat(100)}`, 'short'])
    assert.equal(inputIds[0].length, 77)
    assert.equal(inputIds[0][76], 49407)
    assert.deepEqual(truncated, [Array(26).fill('word').join(' '), undefined])
  })

  it('removed text reads as in the warning of the reference', () => {
    const text = `${'red cat, '.repeat(40)}${'wow!! <|endoftext|> <|startoftext|> X (y) , . '.repeat(2)}`
    const end = 'wow !!<|endoftext|><|startoftext|>x ( y ) , .'
    const { truncated } = ClipTokenizer.fromFiles(withPad(vit, '!')).encode([text])
    assert.equal(truncated[0], `${'red cat , '.repeat(15)}${end} ${end}`)
  })

  it('without truncation rows may be longer; padding to the longest fills the others', () => {
    const options = { truncation: false, padding: 'longest' }
    const { inputIds, attentionMask, truncated } = tokenizer.encode(['word '.repeat(100), 'cat'], options)
    assert.deepEqual([inputIds[0].length, inputIds[1].length], [102, 102])
    assert.equal(
      attentionMask[1].reduce((sum, one) => sum + one),
      3,
    )
    assert.deepEqual(truncated, [undefined, undefined])
  })

  it('a megabyte of any kind gives the row of its beginning', () => {
    const units = ['a', '!', 'red cat, ', '<|endoftext|>', '😀', '\ud800', 'красный', 'ab\n']
    for (const unit of units) {
      const { inputIds, truncated } = tokenizer.encode([unit.repeat(1e6 / unit.length)])
      assert.deepEqual([...inputIds[0]], [...tokenizer.encode([unit.repeat(2000)]).inputIds[0]], JSON.stringify(unit))
      assert.ok(truncated[0].length > 1e5, JSON.stringify(unit))
    }
    assert.deepEqual(ids(tokenizer, `${' '.repeat(1e6)}cat`), ids(tokenizer, 'cat'))
  })

  it('a long text that fits into maxLength is not cut', () => {
    const text = 'cat '.repeat(6000)
    const all = ids(tokenizer, text, { truncation: false })
    const { inputIds, truncated } = tokenizer.encode([text], { maxLength: 5500 })
    assert.deepEqual([...inputIds[0]], [...all.slice(0, 5499), 49407])
    assert.equal(truncated[0].split(' ').length, 502)
    assert.deepEqual(tokenizer.encode([text], { maxLength: 7000 }).truncated, [undefined])
  })

  it('any string gives a full row that starts with BOS', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 300 }), fc.string({ maxLength: 5 }), (text, lone) => {
        const row = tokenizer.encode([`${text}\ud800${lone}\udfff`]).inputIds[0]
        assert.equal(row.length, 77)
        assert.equal(row[0], 49406)
        assert.ok(row.includes(49407))
        assert.ok(row.every((id) => id >= 0 && id < 49408))
      }),
      { numRuns: 200 },
    )
  })

  it('refuses what is no text and no length', () => {
    const invalid = { code: 'INVALID_ARGUMENT' }
    assert.throws(() => tokenizer.encode('cat'), invalid)
    assert.throws(() => tokenizer.encode([1]), invalid)
    for (const maxLength of [1, 2.5, NaN, -1]) assert.throws(() => tokenizer.encode(['cat'], { maxLength }), invalid)
    assert.throws(() => tokenizer.encode(['cat'], { padding: true }), invalid)
  })
})

describe('bad files', () => {
  const refuse = (files, pattern) => assert.throws(() => ClipTokenizer.fromFiles(files), badFile(pattern))

  it('missing files are named', () => {
    refuse({}, /tokenizer\.json, or vocab\.json and merges\.txt.*no files/)
    refuse({ 'vocab.json': small['vocab.json'] }, /merges\.txt.*received vocab\.json/)
  })

  it('malformed files are named', () => {
    refuse({ ...small, 'vocab.json': '{"a": 1' }, /JSON in vocab\.json/)
    refuse({ ...small, 'vocab.json': '[]' }, /object in vocab\.json/)
    refuse({ ...small, 'vocab.json': '{"a": 4294967295}' }, /ids below 1 in vocab\.json/)
    refuse({ ...small, 'merges.txt': '#version: 0.2\ni n\nin\n' }, /two symbols in merge 2 of merges\.txt/)
    refuse({ 'tokenizer.json': '{"model": {"type": "Unigram", "vocab": []}}' }, /BPE model.*tokenizer\.json/)
    refuse({ ...small, 'special_tokens_map.json': '{"pad_token": 7}' }, /non-empty strings/)
  })

  it('files of different tokenizers do not pass', () => {
    refuse({ ...vit, 'vocab.json': small['vocab.json'] }, /of merges\.txt in the vocabulary/)
    refuse(withPad(small, '<pad>'), /pad_token "<pad>" in vocab\.json/)
    const added_tokens_decoder = { 49407: { content: '<|endoftext|>' } }
    refuse(
      withJson(small, 'tokenizer_config.json', (config) => ({ ...config, added_tokens_decoder })),
      /added token "<\|endoftext\|>".*vocab\.json/,
    )
  })

  it('padding on the left is not CLIP', () => {
    const files = withJson(small, 'tokenizer_config.json', (config) => ({ ...config, padding_side: 'left' }))
    assert.throws(() => ClipTokenizer.fromFiles(files), { code: 'UNSUPPORTED_MODEL' })
  })
})

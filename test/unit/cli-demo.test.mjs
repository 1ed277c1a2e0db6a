// What the command line tells those who ask the packaged demo model for what it cannot know.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { demoConcepts, demoNotes, unknownWords } from '../../dist/cli/demo.js'
import { kandinskyIn } from '../helpers/cli.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const root = path.resolve(import.meta.dirname, '../..')

test('what it can draw is what it was trained on', () => {
  const lines = readFileSync(path.join(root, 'scripts/demo-model/concepts.txt'), 'utf8').split('\n')
  const named = lines.filter((line) => line !== '' && !line.startsWith('#'))
  const names = named.map((line) =>
    line
      .split(/[:,]/)
      .slice(0, 2)
      .map((part) => part.trim()),
  )
  assert.deepEqual(
    demoConcepts(),
    names.map(([label, first]) => first ?? label.toLowerCase()),
  )
  assert.deepEqual(unknownWords(demoConcepts().join(', ')), [])
})

test('words that it does not know are named, those around what is asked for are not', () => {
  assert.deepEqual(unknownWords('a photo of a red apple, 3D render'), [])
  assert.deepEqual(unknownWords('Could you please paint me the T-Rex?'), [])
  assert.deepEqual(unknownWords('a Submarine under the submarine’s periscope'), ['submarine', 'periscope'])
  assert.deepEqual(unknownWords('ein großer Hund'), ['ein', 'großer', 'hund'])
  assert.deepEqual(unknownWords(''), [])
})

test('notes are for the demo model only, and short', () => {
  const note = (text, values = {}, model = 'demo', mix = undefined) => demoNotes(model, values, [text], mix).join('\n')
  assert.match(note('a submarine'), /does not know "submarine" .*"kandinsky inspect demo" lists the 143 things/)
  assert.equal(note('a submarine', {}, 'k22'), '')
  assert.equal(note('a cat'), '')
  assert.match(note('one1 two2 three3 four4 five5 six6 seven7'), /"five5" and 2 other words/)
  assert.ok(note('x'.repeat(10000)).length < 300)
  assert.match(note('', {}, 'demo', { items: ['a zeppelin', 'photo.png'], weights: [1, 1] }), /"zeppelin"/)
  assert.match(note('a cat', { width: '512' }), /trained on 128 x 128/)
  assert.equal(note('a cat', { width: '100', height: '128' }), '', 'rounded up to 128')
})

test('generate says it, --quiet does not, and inspect lists the things', (t) => {
  const folder = temporaryFolder(t)
  const args = ['generate', 'a submarine', '--steps', '1', '--prior-steps', '1', '-m', 'demo', '-o', 'x.png']
  assert.match(kandinskyIn(folder, args).stderr, /^note: the demo model does not know "submarine"/m)
  assert.equal(kandinskyIn(folder, [...args, '--quiet']).stderr, '')
  assert.match(kandinskyIn(folder, ['inspect', 'demo']).stdout, /\nIt draws 143 things: red apple, green apple,/)
  assert.equal(kandinskyIn(folder, ['inspect', 'demo', '--json']).lines()[0].concepts.length, 143)
})

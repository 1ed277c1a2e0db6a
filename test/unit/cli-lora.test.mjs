// --lora of generate and convert, and what a picture's recipe says about it.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { readRecipe } from '../../dist/index.js'
import { checkpoint, fixtures } from '../helpers/cases.mjs'
import { kandinskyIn, small } from '../helpers/cli.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const decoderLora = path.join(fixtures, 'extra/lora/decoder')
const priorLora = path.join(fixtures, 'extra/lora/prior/pytorch_lora_weights.bin')
const prior = ['--prior', checkpoint('kandinsky-2-2-prior')]

test('generate takes LoRAs, records them, and makes their picture again', async (t) => {
  const folder = temporaryFolder(t)
  const run = (...args) => kandinskyIn(folder, ['generate', ...args, ...prior, '--quiet'])
  const loras = ['--lora', `${decoderLora}=0.5`, '--lora', priorLora]
  const made = run('a cat', ...small, '--seed', '3', '-o', 'a.png', ...loras)
  assert.equal(made.status, 0, made.stderr)
  assert.equal(run('a cat', ...small, '--seed', '3', '-o', 'plain.png').status, 0)
  const read = (name) => readFileSync(path.join(folder, name))
  assert.notDeepEqual(read('a.png'), read('plain.png'))
  const { loras: recorded } = await readRecipe(path.join(folder, 'a.png'))
  assert.deepEqual(
    recorded.map(({ name, weight }) => [name, weight]),
    [
      ['prior', 1],
      ['decoder', 0.5],
    ],
  )
  assert.match(read('a.png').toString('latin1'), /Lora hashes: "prior: [0-9a-f]{10}, decoder: [0-9a-f]{10}"/)
  const without = run('--from', 'a.png', ...small, '-o', 'b.png')
  assert.equal(without.status, 2)
  assert.match(without.stderr, /made with LoRAs \(prior=1, decoder=0\.5\)/)
  const again = run('--from', 'a.png', ...small, '-o', 'b.png', ...loras)
  assert.equal(again.status, 0, again.stderr)
  assert.deepEqual(read('b.png'), read('a.png'))
  const other = kandinskyIn(folder, [
    'generate',
    '--from',
    'a.png',
    ...small,
    ...prior,
    '-o',
    'c.png',
    '--lora',
    priorLora,
  ])
  assert.match(other.stderr, /other LoRAs/)
})

test('convert merges LoRAs, and what is no weight is refused before anything is read', (t) => {
  const folder = temporaryFolder(t)
  const run = (...args) => kandinskyIn(folder, ['convert', checkpoint('kandinsky-2-2-decoder'), ...args, '--quiet'])
  for (const [name, ...flags] of [['plain.gguf'], ['merged.gguf', '--lora', `${decoderLora}=0.5`]])
    assert.equal(run(name, ...flags).status, 0)
  assert.notDeepEqual(readFileSync(path.join(folder, 'plain.gguf')), readFileSync(path.join(folder, 'merged.gguf')))
  for (const wrong of ['=1', `${decoderLora}=`, `${decoderLora}=much`]) {
    const refused = run('no.gguf', '--lora', wrong)
    assert.equal(refused.status, 2)
    assert.match(refused.stderr, /file=weight for --lora/)
  }
  assert.match(run('no.gguf', '--lora', priorLora).stderr, /no such module/)
})

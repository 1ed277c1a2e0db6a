// What fuzzing has saved (native/fuzz/corpus: inputs that reach everything reached so far, and those that once found
// something), read through the addon; and a few thousand mutations of every reader in TypeScript. `npm run fuzz` is the same
// with sanitizers and for as long as wanted.
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'node:test'
import { openCheckpoint } from '../../dist/checkpoint/open.js'
import { KandinskyError } from '../../dist/index.js'
import { binding } from '../../dist/native.js'
import { fuzzReader, readers } from '../../scripts/fuzz-readers.mjs'

const corpus = path.resolve(import.meta.dirname, '../../native/fuzz/corpus/gguf')

test('every saved GGUF file is read or refused', async () => {
  const files = readdirSync(corpus)
  assert.ok(files.length > 10)
  for (const file of files) {
    const refused = (error) => assert.ok(error instanceof KandinskyError, `${file}: ${error.stack}`)
    await openCheckpoint(path.join(corpus, file)).catch(refused)
    await binding()
      .readGguf(path.join(corpus, file))
      .catch((error) => assert.ok(error.code, `${file}: ${error.stack}`))
  }
})

const findings = mkdtempSync(path.join(tmpdir(), 'kandinsky-findings-'))
test.after(() => rmSync(findings, { recursive: true, force: true }))

for (const reader of readers)
  test(`${reader}: 300 mutated inputs are read or refused`, async () => {
    const { inputs, found } = await fuzzReader(reader, { seconds: 20, count: 300, seed: 11, findings })
    assert.equal(found, 0)
    assert.ok(inputs > 0)
  })

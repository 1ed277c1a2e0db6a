// Folders as people have them: with parts reached by links, and with files that belong to somebody else.
import assert from 'node:assert/strict'
import { cpSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { openCheckpoint } from '../../dist/checkpoint/open.js'
import { chooseFiles } from '../../dist/hub/files.js'
import { resolveSource } from '../../dist/hub/resolve.js'
import { convert, KandinskyV22PriorPipeline } from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const noise = Buffer.from([0, 5, 0x16, 7, 0xff, 0xe9])

function copyOf(t, name) {
  const folder = path.join(temporaryFolder(t), name)
  cpSync(checkpoint(name), folder, { recursive: true })
  return folder
}

test('parts and whole checkpoints reached by links are as if they were there', async (t) => {
  const folder = copyOf(t, 'kandinsky-2-2-decoder')
  for (const part of ['unet', 'scheduler', 'model_index.json']) {
    renameSync(path.join(folder, part), path.join(folder, '..', part))
    symlinkSync(path.join('..', part), path.join(folder, part))
  }
  const link = path.join(folder, '../link')
  symlinkSync(folder, link)
  symlinkSync(path.join(folder, 'nowhere'), path.join(folder, 'broken'))
  const [linked, direct] = ['linked', 'direct'].map((name) => path.join(folder, '..', `${name}.gguf`))
  await convert(link, linked)
  await convert(checkpoint('kandinsky-2-2-decoder'), direct)
  const [a, b] = [await openCheckpoint(linked), await openCheckpoint(direct)]
  assert.deepEqual(await a.texts(), await b.texts())
  assert.deepEqual((await a.component('unet')).tensors.length, (await b.component('unet')).tensors.length)
})

test('a snapshot in the cache may hold folders reached by links', async (t) => {
  const cacheDir = temporaryFolder(t)
  const commit = 'a'.repeat(40)
  const snapshot = path.join(cacheDir, 'models--a--b/snapshots', commit)
  mkdirSync(snapshot, { recursive: true })
  for (const part of ['unet', 'movq', 'scheduler', 'model_index.json'])
    symlinkSync(path.join(checkpoint('kandinsky-2-2-decoder'), part), path.join(snapshot, part))
  process.env.HF_HUB_OFFLINE = '1'
  t.after(() => delete process.env.HF_HUB_OFFLINE)
  assert.equal((await resolveSource('a/b', { cacheDir, revision: commit })).path, snapshot)
})

test('hidden files and files that nothing reads are left alone', async (t) => {
  const folder = copyOf(t, 'kandinsky-2-2-prior')
  for (const file of [
    ...['tokenizer/._vocab.json', 'tokenizer/notes.txt', 'tokenizer/old.json', 'tokenizer/._spiece.model'],
    ...['scheduler/._scheduler_config.json', 'prior/._diffusion_pytorch_model.safetensors', '._model_index.json'],
  ])
    writeFileSync(path.join(folder, file), noise)
  const output = path.join(folder, '..', 'models', 'prior.gguf')
  mkdirSync(path.dirname(output))
  await convert(folder, output)
  writeFileSync(path.join(path.dirname(output), '._prior.gguf'), noise)
  for (const source of [folder, path.dirname(output)]) {
    assert.ok(!(await (await openCheckpoint(source)).texts()).some((name) => /\._|notes|old/.test(name)))
    await (await KandinskyV22PriorPipeline.fromPretrained(source, { device: 'cpu' })).dispose()
  }
})

test('a file that something reads must be readable', async (t) => {
  const folder = copyOf(t, 'kandinsky-2-2-prior')
  writeFileSync(path.join(folder, 'tokenizer/vocab.json'), noise)
  const error = { code: 'BAD_FILE', message: /vocab\.json is not valid UTF-8/ }
  await assert.rejects(KandinskyV22PriorPipeline.fromPretrained(folder, { device: 'cpu' }), error)
})

test('hidden files of a repository are neither models nor parts of one', async () => {
  const wanted = { id: 'a/b', file: undefined, subfolder: undefined, variant: undefined }
  const obtain = async () => path.join(checkpoint('kandinsky-2-2-decoder'), 'model_index.json')
  assert.equal((await chooseFiles(['._k22.gguf', 'k22.gguf'], wanted, obtain)).model, 'k22.gguf')
  const parts = ['unet', 'movq'].flatMap((part) => [
    `${part}/config.json`,
    `${part}/diffusion_pytorch_model.safetensors`,
  ])
  const names = ['model_index.json', 'scheduler/scheduler_config.json', 'scheduler/._scheduler_config.json', ...parts]
  const { files } = await chooseFiles(names, wanted, obtain)
  assert.deepEqual(
    files.filter((name) => name.includes('._')),
    [],
  )
})

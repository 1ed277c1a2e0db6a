// Files that change underneath a model: an error, never a signal and never another picture.
import assert from 'node:assert/strict'
import { copyFileSync, renameSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { AutoPipelineForText2Image, Generator } from '../../dist/index.js'
import { temporaryFolder } from '../helpers/files.mjs'

const demo = path.resolve(import.meta.dirname, '../../models/demo.gguf')
const options = { prompt: 'a red apple', numInferenceSteps: 2, priorNumInferenceSteps: 2, outputType: 'latent' }
const changed = { name: 'KandinskyError', code: 'BAD_FILE', message: /model\.gguf changed.*load it again/ }

async function loaded(t, loadOptions) {
  const file = path.join(temporaryFolder(t), 'model.gguf')
  copyFileSync(demo, file)
  utimesSync(file, new Date(), new Date(2020, 1, 1))
  const pipe = await AutoPipelineForText2Image.fromPretrained(file, loadOptions)
  t.after(() => pipe.dispose())
  await pipe.generate(options)
  return { pipe, file }
}

test('a model that was cut is refused', async (t) => {
  const { pipe, file } = await loaded(t)
  truncateSync(file, 5000)
  await assert.rejects(pipe.generate(options), changed)
})

test('a model that another one was copied over is refused, of whatever size', async (t) => {
  const { pipe, file } = await loaded(t)
  copyFileSync(demo, file)
  await assert.rejects(pipe.generate(options), changed)
})

test('a model that is cut in the middle of a generation is refused', async (t) => {
  const { pipe, file } = await loaded(t)
  const onStep = ({ step }) => step === 1 && writeFileSync(file, '')
  await assert.rejects(pipe.generate({ ...options, numInferenceSteps: 20, onStep }), changed)
})

test('a model that was replaced is used as it was, unless it must be read again', async (t) => {
  const replace = (file) => {
    copyFileSync(demo, `${file}.new`)
    renameSync(`${file}.new`, file)
  }
  const staying = await loaded(t)
  const before = (await staying.pipe.generate({ ...options, generator: new Generator(1) })).images
  replace(staying.file)
  assert.deepEqual((await staying.pipe.generate({ ...options, generator: new Generator(1) })).images, before)

  const leaving = await loaded(t, { offload: 'model' })
  replace(leaving.file)
  await assert.rejects(leaving.pipe.generate(options), changed)
})

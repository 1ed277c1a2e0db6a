// A combined pipeline as the reference's save_pretrained writes it loads and converts like its two halves.
import assert from 'node:assert/strict'
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { openCheckpoint } from '../../dist/checkpoint/open.js'
import { AutoPipelineForText2Image, convert, Generator } from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

function savePretrained(t, decoder, prior, className) {
  const folder = path.join(temporaryFolder(t), 'combined')
  mkdirSync(folder)
  const index = { _class_name: className, _diffusers_version: '0.40.0' }
  for (const [source, prefix] of [
    [decoder, ''],
    [prior, 'prior_'],
  ]) {
    const slots = JSON.parse(readFileSync(path.join(source, 'model_index.json'), 'utf8'))
    for (const name of readdirSync(source)) {
      if (!statSync(path.join(source, name)).isDirectory() || !slots[name]) continue
      cpSync(path.join(source, name), path.join(folder, prefix + name), { recursive: true })
      index[prefix + name] = slots[name]
    }
  }
  writeFileSync(path.join(folder, 'model_index.json'), JSON.stringify(index))
  return folder
}

const families = {
  'kandinsky-2-2-decoder': ['kandinsky-2-2-prior', 'KandinskyV22CombinedPipeline'],
  'kandinsky-2-1': ['kandinsky-2-1-prior', 'KandinskyCombinedPipeline'],
}

async function draw(source, options) {
  const pipe = await AutoPipelineForText2Image.fromPretrained(source, { device: 'cpu', ...options })
  const steps = { numInferenceSteps: 2, priorNumInferenceSteps: 2, height: 64, width: 64 }
  const { images } = await pipe.generate({ prompt: 'a cat', ...steps, generator: new Generator(1) })
  await pipe.dispose()
  return images[0].data
}

for (const [name, [priorName, className]] of Object.entries(families))
  test(`${className}, saved as one`, async (t) => {
    const [decoder, prior] = [checkpoint(name), checkpoint(priorName)]
    const folder = savePretrained(t, decoder, prior, className)
    const [a, b] = ['a.gguf', 'b.gguf'].map((file) => path.join(folder, '..', file))
    await convert(folder, a)
    await convert(decoder, b, { prior })
    const [saved, whole] = [await openCheckpoint(a), await openCheckpoint(b)]
    assert.deepEqual((await saved.components()).sort(), (await whole.components()).sort())
    assert.deepEqual(saved.zeroImageEmbeds, whole.zeroImageEmbeds)
    const picture = await draw(decoder, { prior })
    assert.deepEqual(await draw(folder), picture)
    assert.deepEqual(await draw(a), await draw(b))

    rmSync(path.join(folder, 'prior_scheduler'), { recursive: true })
    await assert.rejects(convert(folder, a), { message: /lacks the files of prior_scheduler,/ })
  })

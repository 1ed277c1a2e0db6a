// A checkpoint's generation_config.json: what calls take where they say nothing.
import assert from 'node:assert/strict'
import { cpSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { AutoPipelineForText2Image, convert, KandinskyV22Pipeline } from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

/** Copies of the prior and the decoder with these defaults. */
function withDefaults(t, { prior = {}, decoder = {} }) {
  const folder = temporaryFolder(t)
  const write = (name, source, defaults) => {
    cpSync(checkpoint(source), path.join(folder, name), { recursive: true })
    writeFileSync(path.join(folder, name, 'generation_config.json'), JSON.stringify(defaults))
    return path.join(folder, name)
  }
  return {
    folder,
    prior: write('prior', 'kandinsky-2-2-prior', prior),
    decoder: write('decoder', 'kandinsky-2-2-decoder', decoder),
  }
}

async function run(source, { prior, ...options }) {
  const pipe = await AutoPipelineForText2Image.fromPretrained(source, { prior, threads: 1 })
  const steps = { prior: 0, decoder: 0 }
  const onStep = ({ stage }) => steps[stage]++
  const { images } = await pipe.generate({ prompt: 'a red apple', onStep, ...options })
  await pipe.dispose()
  return { steps, recipe: images[0].recipe, width: images[0].width, height: images[0].height }
}

const small = {
  decoder: { height: 64, width: 128, num_inference_steps: 3, guidance_scale: 1.5, other: [] },
  prior: { num_inference_steps: 2, guidance_scale: null },
}

test('calls without options take the defaults of the checkpoint, in a folder and in a file made from it', async (t) => {
  const { folder, prior, decoder } = withDefaults(t, small)
  const file = path.join(folder, 'model.gguf')
  await convert(decoder, file, { prior, skipZeroImage: true })
  for (const [source, options] of [
    [decoder, { prior }],
    [file, {}],
  ]) {
    const { steps, recipe, width, height } = await run(source, options)
    assert.deepEqual(steps, { prior: 2, decoder: 3 })
    assert.deepEqual([width, height, recipe.guidanceScale], [128, 64, 1.5])
  }
})

test('options of a call go first', async (t) => {
  const { prior, decoder } = withDefaults(t, small)
  const given = { width: 64, numInferenceSteps: 2, guidanceScale: 3, priorNumInferenceSteps: 1 }
  const { steps, recipe, width, height } = await run(decoder, { prior, ...given })
  assert.deepEqual(steps, { prior: 1, decoder: 2 })
  assert.deepEqual([width, height, recipe.guidanceScale], [64, 64, 3])
})

test('values that no call could have are refused by name', async (t) => {
  for (const [key, value] of [
    ['height', 0],
    ['width', '64'],
    ['num_inference_steps', 2.5],
    ['guidance_scale', -1],
    ['guidance_scale', []],
  ]) {
    const { decoder } = withDefaults(t, { decoder: { [key]: value } })
    await assert.rejects(KandinskyV22Pipeline.fromPretrained(decoder), { code: 'BAD_FILE', message: new RegExp(key) })
  }
})

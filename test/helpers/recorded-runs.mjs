// The recorded runs of diffusers' pipelines as tests: same seeds, same draws, same results.
import assert from 'node:assert/strict'
import test from 'node:test'
import * as kandinsky from '../../dist/index.js'
import { checkpoint, difference, optionsOf, pipelineCases, schedulerOf } from './cases.mjs'

/** Half a byte step of an image; embeddings are compared relative to their largest value. */
const IMAGE_TOLERANCE = 0.5 / 255
const EMBEDS_TOLERANCE = 1e-4

/** The fixtures store float16; float32 keeps the activations unrounded, too. */
const f32 = { weights: 'f32', threads: 1 }

/** A test for each recorded run of the exported pipelines whose names match, as far as `wanted` takes it. */
export function testRecordedRuns(names, wanted = () => true) {
  const classes = Object.keys(kandinsky).filter((name) => names.test(name))
  for (const recorded of pipelineCases(...classes).filter(wanted))
    test(`${recorded.case} (${recorded.pipeline}) gives what diffusers gave`, (t) => replayRun(recorded, t))
}

async function replayRun(recorded, t) {
  const pipe = await load(recorded)
  t.after(() => pipe.dispose())
  pipe.scheduler = schedulerOf(recorded) ?? pipe.scheduler
  Object.assign(pipe, recorded.attributes)
  const draws = []
  const options = await optionsOf(recorded, draws)
  const result = await call(pipe, recorded.method, options)

  // `keep`: only what it names was stored
  if (!Array.isArray(options.generator) && !recorded.keep) expectDraws(draws, recorded)
  for (const [name, output] of Object.entries(outputsOf(result))) {
    const expected = recorded.tensors.get(`output.${name}`) ?? recorded.tensors.get('output.latents')
    const { max, scale } = difference(output, expected)
    const limit = name === 'images' ? IMAGE_TOLERANCE : EMBEDS_TOLERANCE * scale
    assert.ok(max <= limit, `${recorded.case}: ${name} differs by up to ${max}, more than ${limit}`)
  }
}

function load({ pipeline, checkpoints: { prior, decoder, checkpoint: whole } }) {
  const both = prior && decoder ? { prior: checkpoint(prior) } : {}
  // biome-ignore lint/performance/noDynamicNamespaceImportAccess: the recorded case names the class
  return kandinsky[pipeline].fromPretrained(checkpoint(decoder ?? prior ?? whole), { ...f32, ...both })
}

function call(pipe, method, options) {
  if (method === 'call') return pipe.generate(options)
  const { imagesAndPrompts, weights, ...rest } = options
  return pipe.interpolate(imagesAndPrompts, weights, rest)
}

function outputsOf({ images, imageEmbeds, negativeImageEmbeds }) {
  if (images) return { images }
  return { image_embeds: imageEmbeds, negative_image_embeds: negativeImageEmbeds }
}

/** Same shapes in the same order, and the same values as torch drew. */
function expectDraws(draws, recorded) {
  const expected = [...recorded.tensors.keys()].filter((name) => name.startsWith('draw.')).sort()
  assert.equal(draws.length, expected.length, `${recorded.case}: number of draws`)
  for (const [i, name] of expected.entries()) {
    const { max } = difference(draws[i], recorded.tensors.get(name))
    assert.ok(max < 1e-6, `${recorded.case}: ${name} differs by up to ${max}`)
  }
}

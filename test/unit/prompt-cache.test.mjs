// The same prompt with another seed: its text is read once.
import assert from 'node:assert/strict'
import test from 'node:test'
import {
  AutoPipeline,
  Generator,
  KandinskyPipeline,
  KandinskyPriorPipeline,
  KandinskyV22PriorPipeline,
} from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'

const classes = {
  'kandinsky-2-1': KandinskyPipeline,
  'kandinsky-2-1-prior': KandinskyPriorPipeline,
  'kandinsky-2-2-prior': KandinskyV22PriorPipeline,
}
const embeds = () => new Generator(1).randn([1, 64])

for (const [name, size] of [
  ['kandinsky-2-1', { width: 64, height: 64, imageEmbeds: embeds(), negativeImageEmbeds: embeds() }],
  ['kandinsky-2-1-prior', {}],
  ['kandinsky-2-2-prior', {}],
  ['kandinsky-3', { width: 64, height: 64 }],
  ['kandinsky-5-t2i', { width: 64, height: 64 }],
])
  test(`${name}: the text encoder runs once for a prompt, and the result is that of a new pipeline`, async (t) => {
    const load = async () => {
      const pipe = await (classes[name] ?? AutoPipeline).fromPretrained(checkpoint(name), {
        weights: 'f32',
        threads: 1,
        device: 'cpu',
      })
      t.after(() => pipe.dispose())
      if (name === 'kandinsky-5-t2i') pipe.resolutions = [[64, 64]]
      return pipe
    }
    const pipe = await load()
    const { textEncoder } = pipe.components
    const run = textEncoder.run.bind(textEncoder)
    let reads = 0
    textEncoder.run = (...call) => {
      reads++
      return run(...call)
    }
    const draw = async (from, prompt, seed) => {
      const { images, imageEmbeds } = await from.generate({ prompt, seed, numInferenceSteps: 2, ...size })
      return (imageEmbeds ?? images[0]).data
    }
    await draw(pipe, 'a cat', 1)
    const once = reads
    assert.ok(once > 0)
    const again = await draw(pipe, 'a cat', 2)
    assert.equal(reads, once)
    assert.deepEqual(again, await draw(await load(), 'a cat', 2))
    await draw(pipe, 'a dog', 2)
    assert.ok(reads > once)
    await pipe.dispose()
    await assert.rejects(draw(pipe, 'a cat', 1), { code: 'DISPOSED' })
  })

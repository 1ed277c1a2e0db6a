// `interpolate` computes each text and picture once, as long as nothing that goes into it changes.
import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import { Generator, KandinskyV22PriorPipeline, loadImage } from '../../dist/index.js'
import { checkpoint, fixtures } from '../helpers/cases.mjs'

const picture = await loadImage(path.join(fixtures, 'images', 'gradient_64x64.png'))

async function load(t) {
  const options = { device: 'cpu', threads: 1 }
  const pipe = await KandinskyV22PriorPipeline.fromPretrained(checkpoint('kandinsky-2-2-prior'), options)
  t.after(() => pipe.dispose())
  return pipe
}

/** Counts the calls of the pipeline's networks. */
function counted({ components }) {
  const calls = {}
  for (const name of ['textEncoder', 'prior', 'imageEncoder']) {
    const network = components[name]
    const run = network.run.bind(network)
    network.run = (...args) => {
      calls[name] = (calls[name] ?? 0) + 1
      return run(...args)
    }
  }
  return calls
}

const values = ({ imageEmbeds, negativeImageEmbeds }) => [imageEmbeds, negativeImageEmbeds].map(({ data }) => [...data])
const frame = (share, generator, more = {}) => [
  ['a cat', picture],
  [share, 1 - share],
  { generator, numInferenceSteps: 2, ...more },
]

test('frames of an interpolation cost nothing but the first, and are the same to the bit', async (t) => {
  const [pipe, fresh] = [await load(t), await load(t)]
  const calls = counted(pipe)
  await pipe.interpolate(...frame(0, new Generator(1)))
  const first = { ...calls }
  for (const share of [0.25, 0.5, 1]) {
    const generator = new Generator(1)
    const made = await pipe.interpolate(...frame(share, generator))
    assert.deepEqual(calls, first, 'no network ran')
    const other = new Generator(1)
    const expected = await fresh.interpolate(...frame(share, other))
    assert.deepEqual(values(made), values(expected))
    assert.deepEqual(generator.randn([3]).data, other.randn([3]).data, 'the stream goes on where it would')
  }
})

test('other texts, noise, options and schedulers are computed', async (t) => {
  const pipe = await load(t)
  const calls = counted(pipe)
  const generator = new Generator(1)
  const costs = async (...args) => {
    const before = calls.prior ?? 0
    await pipe.interpolate(...args)
    return (calls.prior ?? 0) > before
  }
  assert.ok(await costs(...frame(0.5, generator)))
  assert.ok(await costs(...frame(0.5, generator)), 'the stream has moved on')
  assert.ok(!(await costs(...frame(0.5, new Generator(1)))))
  assert.ok(await costs(...frame(0.5, new Generator(2))))
  assert.ok(await costs(...frame(0.5, new Generator(1, 'torch-cuda'))))
  assert.ok(await costs(...frame(0.5, new Generator(1), { guidanceScale: 2 })))
  assert.ok(await costs(...frame(0.5, new Generator(1), { negativePriorPrompt: 'a dog' })))
  assert.ok(await costs(...frame(0.5, new Generator(1), { callbackOnStepEnd: () => {} })))
  assert.ok(await costs(...frame(0.5, { randn: (...args) => new Generator(1).randn(...args) })))
  pipe.scheduler = pipe.scheduler.clone()
  assert.ok(await costs(...frame(0.5, new Generator(1))))
})

test('what a caller does to a result changes no later one', async (t) => {
  const pipe = await load(t)
  const first = await pipe.interpolate(...frame(0.5, new Generator(1)))
  const expected = values(first)
  for (const { data } of Object.values(first)) data.fill(0)
  assert.deepEqual(values(await pipe.interpolate(...frame(0.5, new Generator(1)))), expected)
})

test('a disposed pipeline does not answer from memory', async (t) => {
  const pipe = await load(t)
  await pipe.interpolate(...frame(0.5, new Generator(1)))
  await pipe.dispose()
  await assert.rejects(pipe.interpolate(...frame(0.5, new Generator(1))), { code: 'DISPOSED' })
})

test('a generator can be moved to where another of its seed is', () => {
  for (const algorithm of ['torch-cpu', 'torch-cuda']) {
    const generator = new Generator(5, algorithm)
    const draw = (source) => [[3], [1], [700], [17], [5]].map((shape) => [...source.randn(shape).data])
    draw(generator)
    const { position } = generator
    const expected = draw(generator)
    const other = new Generator(5, algorithm)
    other.position = JSON.parse(JSON.stringify(position))
    assert.deepEqual(draw(other), expected, 'forwards')
    other.position = position
    assert.deepEqual(draw(other), expected, 'and back')
    other.position = { drawn: 0 }
    assert.deepEqual(draw(other), draw(new Generator(5, algorithm)))
    for (const wrong of [undefined, {}, { drawn: -1 }, { drawn: 1.5 }, { drawn: 0, spare: 'x' }])
      assert.throws(() => (other.position = wrong), { code: 'INVALID_ARGUMENT' })
  }
})

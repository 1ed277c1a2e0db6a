// Calls at the same time on one device: first come, first served.
import assert from 'node:assert/strict'
import test from 'node:test'
import { AutoPipelineForText2Image, Generator } from '../../dist/index.js'

const options = { numInferenceSteps: 3, priorNumInferenceSteps: 2, outputType: 'latent' }

async function demo(t, loadOptions) {
  const pipe = await AutoPipelineForText2Image.fromPretrained('demo', loadOptions)
  t.after(() => pipe.dispose())
  return pipe
}

for (const offload of ['none', 'model'])
  test(`the calls of two pipelines end in the order they came, offload ${offload}`, async (t) => {
    const pipes = [await demo(t, { offload }), await demo(t, { offload })]
    const steps = []
    const call = (index) =>
      pipes[index % 2].generate({
        ...options,
        prompt: 'a red apple',
        generator: new Generator(index),
        onStep: () => steps.push(index),
      })
    const together = await Promise.all([call(0), call(1), call(2)])
    assert.deepEqual(
      steps,
      [0, 1, 2].flatMap((index) => Array(5).fill(index)),
    )
    for (const index of [0, 1, 2])
      assert.deepEqual((await call(index)).images, together[index].images, `call ${index} equals the same call alone`)
  })

test('an error, and an abort while waiting, let the next one go', async (t) => {
  const pipe = await demo(t)
  const failing = pipe.generate({
    ...options,
    prompt: 'a',
    onStep: () => {
      throw new Error('from the callback')
    },
  })
  const aborted = pipe.generate({ ...options, prompt: 'b', signal: AbortSignal.timeout(1) })
  const last = pipe.generate({ ...options, prompt: 'c' })
  await Promise.all([
    assert.rejects(failing, /from the callback/),
    assert.rejects(aborted, { name: 'TimeoutError' }),
    last,
  ])
  assert.equal((await last).images.shape[0], 1)
})

test('a call from a callback of another does not wait for it', async (t) => {
  const pipe = await demo(t)
  let inner
  const callbackOnStepEnd = async ({ step }) => {
    if (step === 1) inner = await pipe.generate({ ...options, prompt: 'inner', generator: new Generator(1) })
  }
  await pipe.generate({ ...options, prompt: 'outer', callbackOnStepEnd })
  const alone = await pipe.generate({ ...options, prompt: 'inner', generator: new Generator(1) })
  assert.deepEqual(inner.images, alone.images)
})

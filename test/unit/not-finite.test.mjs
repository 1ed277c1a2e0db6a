// A picture of NaN is no result: the call says where the latents stopped being numbers.
import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import { AutoPipelineForText2Image } from '../../dist/index.js'

test('guidance beyond float32 is refused, and what becomes infinite at the step where it does', async (t) => {
  const pipe = await AutoPipelineForText2Image.fromPretrained(
    path.resolve(import.meta.dirname, '../../models/demo.gguf'),
  )
  t.after(() => pipe.dispose())
  const options = { prompt: 'a red apple', numInferenceSteps: 2, priorNumInferenceSteps: 2 }
  for (const option of ['guidanceScale', 'priorGuidanceScale'])
    await assert.rejects(pipe.generate({ ...options, [option]: 1e308 }), {
      ...{ name: 'KandinskyError', code: 'INVALID_ARGUMENT' },
      message: /finite number for guidanceScale/,
    })
  await assert.rejects(pipe.generate({ ...options, guidanceScale: 3e38 }), {
    ...{ name: 'KandinskyError', code: 'INVALID_ARGUMENT' },
    message: /latents of the decoder became NaN or infinite at step \d.*guidanceScale/,
  })
  const { images } = await pipe.generate(options)
  assert.equal(images.length, 1)
})

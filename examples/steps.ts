// What happens between the steps: another scheduler, a preview after each step, latents changed on the way, a time limit.
import { AutoPipelineForText2Image, EulerDiscreteScheduler, Generator, type StepEvent, Tensor } from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, prior, prompt, size, steps, seed, output } = settings({
  model: 'kandinsky-community/kandinsky-2-2-decoder',
  prior: 'kandinsky-community/kandinsky-2-2-prior',
  prompt: 'red cat, 4k photo',
  size: 768,
  steps: 25,
  seed: 1,
  output: 'cat.png',
})

await using pipe = await AutoPipelineForText2Image.fromPretrained(model, { prior, offload: 'model' })
pipe.scheduler = EulerDiscreteScheduler.fromConfig(pipe.scheduler.config)

/** Pulls the first channel of the latents towards its mean in the first steps. */
function soften({ step, latents }: StepEvent) {
  if (step > 3) return
  const channel = latents.data.length / latents.shape[1]!
  const mean = latents.data.subarray(0, channel).reduce((sum, value) => sum + value, 0) / channel
  const data = latents.data.map((value, i) => (i < channel ? value + 0.05 * (mean - value) : value))
  return { latents: new Tensor(data, latents.shape) }
}

const { images } = await pipe.generate({
  prompt,
  height: size,
  width: size,
  numInferenceSteps: steps,
  generator: new Generator(seed),
  preview: true,
  callbackOnStepEnd: async (event) => {
    await event.preview![0]!.resize(256, 256).save(output)
    return soften(event)
  },
  signal: AbortSignal.timeout(60 * 60 * 1000),
})
await images[0]!.save(output)

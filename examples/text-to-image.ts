// Text to picture, with a progress line.
import { AutoPipelineForText2Image, Generator } from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, prior, prompt, negative, size, steps, seed, output } = settings({
  model: 'kandinsky-community/kandinsky-2-2-decoder',
  prior: 'kandinsky-community/kandinsky-2-2-prior',
  prompt: 'A alien cheeseburger creature eating itself, claymation, cinematic, moody lighting',
  negative: 'low quality, bad quality',
  size: 768,
  steps: 50,
  seed: 1,
  output: 'cheeseburger-monster.png',
})

await using pipe = await AutoPipelineForText2Image.fromPretrained(model, { prior })
const events = pipe.stream({
  prompt,
  negativePrompt: negative,
  height: size,
  width: size,
  numInferenceSteps: steps,
  priorGuidanceScale: 1,
  generator: new Generator(seed),
})
for await (const event of events) {
  if (event.type === 'step') console.log(`${event.stage} ${event.step}/${event.steps}, ${event.etaMs} ms left`)
  else await event.images[0]!.save(output)
}

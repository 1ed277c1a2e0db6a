// A depth map leads the picture: the same shapes as a robot.
import { Generator, KandinskyV22ControlnetPipeline, KandinskyV22PriorPipeline } from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, prior, hint, prompt, negative, size, steps, priorSteps, seed, output } = settings({
  model: 'kandinsky-community/kandinsky-2-2-controlnet-depth',
  prior: 'kandinsky-community/kandinsky-2-2-prior',
  hint: 'cat-depth.png',
  prompt: 'A robot, 4k photo',
  negative:
    'lowres, text, error, cropped, worst quality, low quality, jpeg artifacts, ugly, duplicate, morbid, mutilated, out of ' +
    'frame, extra fingers, mutated hands, poorly drawn hands, poorly drawn face, mutation, deformed, blurry, dehydrated, ' +
    'bad anatomy, bad proportions, extra limbs, cloned face, disfigured, gross proportions, malformed limbs, missing ' +
    'arms, missing legs, extra arms, extra legs, fused fingers, too many fingers, long neck, username, watermark, signature',
  size: 768,
  steps: 50,
  priorSteps: 25,
  seed: 43,
  output: 'robot-cat.png',
})

await using priorPipe = await KandinskyV22PriorPipeline.fromPretrained(prior)
await using pipe = await KandinskyV22ControlnetPipeline.fromPretrained(model)
const generator = new Generator(seed)
const embeds = await priorPipe.generate({
  prompt,
  negativePrompt: negative,
  numInferenceSteps: priorSteps,
  generator,
})
const { images } = await pipe.generate({
  ...embeds,
  hint, // near is white
  height: size,
  width: size,
  numInferenceSteps: steps,
  generator,
})
await images[0]!.save(output)

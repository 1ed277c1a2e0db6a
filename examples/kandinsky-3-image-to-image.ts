// Prompt and picture to picture with Kandinsky 3, in the picture's own size.
import { Generator, Kandinsky3Img2ImgPipeline } from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, image, prompt, strength, steps, seed, output } = settings({
  model: 'kandinsky-3.gguf', // kandinsky convert kandinsky-community/kandinsky-3 kandinsky-3.gguf --variant fp16 --type q4_K
  image: 'cat.png',
  prompt: 'A painting of the inside of a subway train with tiny raccoons.',
  strength: 0.75,
  steps: 25,
  seed: 0,
  output: 'subway.png',
})

await using pipe = await Kandinsky3Img2ImgPipeline.fromPretrained(model)
const { images } = await pipe.generate({
  prompt,
  image,
  strength,
  numInferenceSteps: steps,
  generator: new Generator(seed),
})
await images[0]!.save(output)

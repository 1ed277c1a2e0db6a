// Text and picture to picture: a sketch becomes a landscape.
import { AutoPipelineForImage2Image, Generator, loadImage, makeImageGrid } from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, prior, image, prompt, negative, strength, size, steps, seed, output } = settings({
  model: 'kandinsky-community/kandinsky-2-2-decoder',
  prior: 'kandinsky-community/kandinsky-2-2-prior',
  image: 'sketch-mountains-input.jpg',
  prompt: 'A fantasy landscape, Cinematic lighting',
  negative: 'low quality, bad quality',
  strength: 0.3,
  size: 768,
  steps: 100,
  seed: 1,
  output: 'fantasy-landscape.png',
})

await using pipe = await AutoPipelineForImage2Image.fromPretrained(model, { prior })
const original = (await loadImage(image)).thumbnail(size, size)
// The sides of the result are multiples of 64; the picture is resized to them.
const { images } = await pipe.generate({
  prompt,
  negativePrompt: negative,
  image: original,
  height: original.height,
  width: original.width,
  strength,
  numInferenceSteps: steps,
  generator: new Generator(seed),
})
const result = images[0]!
await makeImageGrid([original.resize(result.width, result.height), result], 1, 2).save(output)

// Repaints a part of a picture: a hat for the cat. WHITE is repainted, black is kept.
import { AutoPipelineForInpainting, Generator, loadImage, makeImageGrid, Tensor } from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, prior, image, prompt, size, steps, seed, output } = settings({
  model: 'kandinsky-community/kandinsky-2-2-decoder-inpaint',
  prior: 'kandinsky-community/kandinsky-2-2-prior',
  image: 'cat.png',
  prompt: 'a hat',
  size: 768,
  steps: 100,
  seed: 1,
  output: 'cat-with-hat.png',
})

await using pipe = await AutoPipelineForInpainting.fromPretrained(model, { prior })
// The upper third is white. A mask may also be a picture: a path, a URL or a RawImage.
const pixels = Float32Array.from({ length: size * size }, (_, i) => (i < (size * size) / 3 ? 1 : 0))
const { images } = await pipe.generate({
  prompt,
  image,
  maskImage: new Tensor(pixels, [size, size]),
  height: size,
  width: size,
  numInferenceSteps: steps,
  generator: new Generator(seed),
})
const original = await loadImage(image)
await makeImageGrid([original, images[0]!], 1, 2, size).save(output)

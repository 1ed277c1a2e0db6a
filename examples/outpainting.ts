// Goes on with a picture beyond its left and right borders.
import { AutoPipelineForInpainting, Generator, loadImage, outpaint } from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, prior, image, prompt, size, room, steps, seed, output } = settings({
  model: 'kandinsky-community/kandinsky-2-2-decoder-inpaint',
  prior: 'kandinsky-community/kandinsky-2-2-prior',
  image: 'cat.png',
  prompt: 'a cat in a garden',
  size: 512,
  room: 128,
  steps: 100,
  seed: 1,
  output: 'garden.png',
})

await using pipe = await AutoPipelineForInpainting.fromPretrained(model, { prior })
// Larger pictures would make a larger canvas than the model knows.
const picture = (await loadImage(image)).thumbnail(size)
const { images } = await pipe.generate({
  prompt,
  ...(await outpaint({ image: picture, left: room, right: room, overlap: 16 })),
  numInferenceSteps: steps,
  generator: new Generator(seed),
})
await images[0]!.save(output)

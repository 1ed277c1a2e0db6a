// Repaints a part of a picture with Kandinsky 3, in the picture's own size. WHITE is repainted, black is kept.
import { Generator, Kandinsky3InpaintPipeline, loadImage, RawImage } from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, image, prompt, steps, seed, output } = settings({
  model: 'kandinsky-3-inpainting.gguf', // kandinsky pull ai-forever/Kandinsky3.1 --variant inpainting --type q4_K
  image: 'cat.png',
  prompt: 'a hat',
  steps: 50,
  seed: 0,
  output: 'cat-with-hat.png',
})

await using pipe = await Kandinsky3InpaintPipeline.fromPretrained(model)
const { width, height } = await loadImage(image)
// The upper third is white. A mask may also be a path, a URL or a tensor.
const pixels = Uint8Array.from({ length: width * height }, (_, i) => (i < (width * height) / 3 ? 255 : 0))
const { images } = await pipe.generate({
  prompt,
  image,
  maskImage: new RawImage(pixels, width, height, 1),
  numInferenceSteps: steps,
  generator: new Generator(seed),
})
await images[0]!.save(output)

// A picture gives the content, its depth map the shapes, a text the rest. The prior starts from the picture, too.
import {
  Generator,
  KandinskyV22ControlnetImg2ImgPipeline,
  KandinskyV22PriorEmb2EmbPipeline,
  loadImage,
} from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, prior, image, hint, prompt, negative, size, steps, priorSteps, seed, output } = settings({
  model: 'kandinsky-community/kandinsky-2-2-controlnet-depth',
  prior: 'kandinsky-community/kandinsky-2-2-prior',
  image: 'cat.png',
  hint: 'cat-depth.png',
  prompt: 'A robot, 4k photo',
  negative: 'lowres, text, error, cropped, worst quality, low quality, jpeg artifacts, ugly, deformed, blurry',
  size: 768,
  steps: 50,
  priorSteps: 25,
  seed: 43,
  output: 'robot-cat.png',
})

await using priorPipe = await KandinskyV22PriorEmb2EmbPipeline.fromPretrained(prior)
await using pipe = await KandinskyV22ControlnetImg2ImgPipeline.fromPretrained(model)
const generator = new Generator(seed)
const picture = await loadImage(image)
const shared = { image: picture, numInferenceSteps: priorSteps, generator }
const { imageEmbeds } = await priorPipe.generate({ ...shared, prompt, strength: 0.85 })
// At strength 1 nothing of the picture is left: an embedding of the negative text alone.
const { imageEmbeds: negativeImageEmbeds } = await priorPipe.generate({ ...shared, prompt: negative, strength: 1 })
const { images } = await pipe.generate({
  imageEmbeds,
  negativeImageEmbeds,
  image: picture,
  hint,
  strength: 0.5,
  height: size,
  width: size,
  numInferenceSteps: steps,
  generator,
})
await images[0]!.save(output)

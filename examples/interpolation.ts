// A mix of texts and pictures, weighted. The mix is computed once, kept in a file, and can be painted again and again.
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { Generator, KandinskyV22Pipeline, KandinskyV22PriorPipeline, loadImage, Tensor } from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, prior, prompt, image1, image2, size, steps, priorSteps, seed, cache, output } = settings({
  model: 'kandinsky-community/kandinsky-2-2-decoder',
  prior: 'kandinsky-community/kandinsky-2-2-prior',
  prompt: 'a cat',
  image1: 'cat.png',
  image2: 'starry_night.jpeg',
  size: 768,
  steps: 50,
  priorSteps: 25,
  seed: 1,
  cache: 'starry-cat.json',
  output: 'starry-cat.png',
})

async function mix() {
  await using pipe = await KandinskyV22PriorPipeline.fromPretrained(prior)
  const items = [prompt, await loadImage(image1), await loadImage(image2)]
  return await pipe.interpolate(items, [0.3, 0.3, 0.4], {
    numInferenceSteps: priorSteps,
    generator: new Generator(seed),
  })
}

if (!existsSync(cache)) await writeFile(cache, JSON.stringify(await mix()))
const kept = JSON.parse(await readFile(cache, 'utf8'))

await using pipe = await KandinskyV22Pipeline.fromPretrained(model)
const { images } = await pipe.generate({
  imageEmbeds: Tensor.from(kept.imageEmbeds),
  negativeImageEmbeds: Tensor.from(kept.negativeImageEmbeds),
  height: size,
  width: size,
  numInferenceSteps: steps,
  generator: new Generator(seed),
})
await images[0]!.save(output)

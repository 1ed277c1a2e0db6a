// The pictures of the README and of docs/demo-model.md, drawn by the packaged demo model:
//   node scripts/demo-model/pictures.mjs docs
import path from 'node:path'
import {
  AutoPipelineForImage2Image,
  AutoPipelineForInpainting,
  AutoPipelineForText2Image,
  Generator,
  KandinskyV22Pipeline,
  KandinskyV22PriorPipeline,
  makeImageGrid,
  RawImage,
} from '../../dist/index.js'

const side = 128
const folder = process.argv[2]
if (!folder) throw new Error('Expected a folder for the pictures')
const options = { threads: 1 }

const textToImage = await AutoPipelineForText2Image.fromPretrained('demo', options)
const draw = async (prompt, seed) => (await textToImage.generate({ prompt, generator: new Generator(seed) })).images[0]

const shown = ['a red apple', 'a cute panda', 'a rocket', 'please paint me a robot', 'a unicorn', 'birthday cake']
shown.push('a photo of a castle', 'a guitar', 'rainbow', 'a smiling face with sunglasses')
const row = []
for (const prompt of shown) row.push(await draw(prompt, 0))
await makeImageGrid(row, 1, row.length, 96).save(path.join(folder, 'demo.png'))

const imageToImage = await AutoPipelineForImage2Image.fromPretrained('demo', options)
const disc = new RawImage(new Uint8Array(side * side * 3).fill(255), side, side)
for (let i = 0; i < side * side; i++)
  if (Math.hypot((i % side) - 63.5, Math.floor(i / side) - 68) < 48) disc.data.set([225, 40, 50], 3 * i)
const tasks = [disc]
for (const [prompt, strength] of [
  ['a red apple', 0.6],
  ['a tomato', 0.7],
  ['a ladybug', 0.7],
  ['angry face', 0.7],
  ['basketball', 0.8],
]) {
  const call = { prompt, strength, image: disc, generator: new Generator(4) }
  tasks.push((await imageToImage.generate(call)).images[0])
}

const prior = await KandinskyV22PriorPipeline.fromPretrained('demo', options)
const decoder = await KandinskyV22Pipeline.fromPretrained('demo', options)
for (const share of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
  const mix = [['a red apple', 'a green apple'], [1 - share, share], { generator: new Generator(2) }]
  const embeds = await prior.interpolate(...mix)
  tasks.push((await decoder.generate({ ...embeds, generator: new Generator(2) })).images[0])
}

const inpainting = await AutoPipelineForInpainting.fromPretrained('demo-inpaint', options)
const right = (x) => x >= 64
const lower = (_, y) => y >= 72
const upper = (_, y) => y < 64
for (const [before, prompt, isRepainted] of [
  ['a red heart', 'a blue heart', right],
  ['a red apple', 'a green apple', right],
  ['a dog', 'a cat', right],
  ['a panda', 'a panda', lower],
  ['a rocket', 'a rocket', upper],
  ['a smiley', 'face with sunglasses', upper],
]) {
  const image = await draw(before, 1)
  const white = (_, i) => (isRepainted(i % side, Math.floor(i / side)) ? 255 : 0)
  const maskImage = new RawImage(Uint8Array.from({ length: side * side }, white), side, side, 1)
  tasks.push(image, (await inpainting.generate({ prompt, image, maskImage, generator: new Generator(3) })).images[0])
}
await makeImageGrid(tasks, 4, 6, 112).save(path.join(folder, 'demo-tasks.png'))
for (const pipe of [textToImage, imageToImage, prior, decoder, inpainting]) await pipe.dispose()

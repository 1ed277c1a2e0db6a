// The packaged demo model draws what it is asked for, through the calls that a newcomer makes. How well it draws is
// measured by scripts/demo-model/evaluate.py (docs/demo-model.md); here colours and places stand for that.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { promisify } from 'node:util'
import {
  AutoPipelineForImage2Image,
  AutoPipelineForInpainting,
  AutoPipelineForText2Image,
  Generator,
  KandinskyV22Pipeline,
  KandinskyV22PriorPipeline,
  loadImage,
  RawImage,
  readRecipe,
} from '../../dist/index.js'
import { temporaryFolder } from '../helpers/files.mjs'

const models = path.resolve(import.meta.dirname, '../../models')
const main = path.resolve(import.meta.dirname, '../../dist/cli/main.js')
const threads = 1

async function load(t, Pipeline, source) {
  const pipe = await Pipeline.fromPretrained(source, { threads })
  t.after(() => pipe.dispose())
  return pipe
}

/** Mean red, green and blue of the pixels that are not background, and their share of the picture. */
function drawn({ data, width, height }, inside = () => true) {
  const sum = [0, 0, 0]
  let count = 0
  for (let i = 0; i < width * height; i++) {
    const pixel = data.subarray(3 * i, 3 * i + 3)
    if (!inside(i % width, Math.floor(i / width)) || Math.min(...pixel) > 225) continue
    for (let channel = 0; channel < 3; channel++) sum[channel] += pixel[channel]
    count++
  }
  const [red, green, blue] = sum.map((value) => value / Math.max(count, 1))
  return { red, green, blue, share: count / (width * height) }
}

test('prompts decide what is drawn, in the middle of a white picture', async (t) => {
  const pipe = await load(t, AutoPipelineForText2Image, 'demo')
  const generator = new Generator(3)
  const draw = async (prompt) => (await pipe.generate({ prompt, generator })).images[0]
  const expected = {
    'a red apple': ({ red, green, blue }) => red > green + 60 && red > blue + 40,
    'a green heart': ({ red, green, blue }) => green > red + 40 && green > blue,
    'could you draw me a blue square, please?': ({ red, blue }) => blue > red + 60,
    banana: ({ red, green, blue }) => red > blue + 60 && green > blue + 40,
  }
  for (const [prompt, isRight] of Object.entries(expected)) {
    const image = await draw(prompt)
    assert.deepEqual([image.width, image.height], [128, 128])
    const colours = drawn(image)
    assert.ok(isRight(colours), `${prompt}: ${JSON.stringify(colours)}`)
    assert.ok(colours.share > 0.2 && colours.share < 0.9, `${prompt} covers ${colours.share} of the picture`)
    assert.ok(drawn(image, (x, y) => Math.max(x, y) < 4).share < 0.002, `${prompt} leaves the corner white`)
  }
})

test('image-to-image goes from the picture to what the prompt says', async (t) => {
  const pipe = await load(t, AutoPipelineForImage2Image, 'demo')
  const red = new RawImage(new Uint8Array(128 * 128 * 3).fill(255), 128, 128)
  for (let i = 0; i < 128 * 128; i++) {
    const inside = Math.hypot((i % 128) - 63.5, Math.floor(i / 128) - 63.5) < 50
    if (inside) red.data.set([225, 40, 50], 3 * i)
  }
  const options = { image: red, prompt: 'a green circle' }
  const near = await pipe.generate({ ...options, strength: 0.2, generator: new Generator(1) })
  const far = await pipe.generate({ ...options, strength: 0.95, generator: new Generator(1) })
  const [kept, changed] = [drawn(near.images[0]), drawn(far.images[0])]
  assert.ok(kept.red - kept.green > changed.red - changed.green + 60, JSON.stringify({ kept, changed }))
  assert.ok(changed.green > changed.red + 30, JSON.stringify(changed))
})

test('inpainting repaints what is white in the mask and keeps the rest', async (t) => {
  const draw = await load(t, AutoPipelineForText2Image, 'demo')
  const { images } = await draw.generate({ prompt: 'a red square', generator: new Generator(5) })
  const pipe = await load(t, AutoPipelineForInpainting, 'demo-inpaint')
  const isRight = (x) => x >= 64
  const mask = new RawImage(
    Uint8Array.from({ length: 128 * 128 }, (_, i) => (isRight(i % 128) ? 255 : 0)),
    128,
    128,
    1,
  )
  const painted = await pipe.generate({
    prompt: 'a blue square',
    image: images[0],
    maskImage: mask,
    generator: new Generator(5),
  })
  const left = drawn(painted.images[0], (x) => x < 48)
  const right = drawn(painted.images[0], (x) => x > 80)
  assert.ok(left.red > left.blue + 60, `left: ${JSON.stringify(left)}`)
  assert.ok(right.blue > right.red + 30, `right: ${JSON.stringify(right)}`)
})

test('interpolation mixes', async (t) => {
  const prior = await load(t, KandinskyV22PriorPipeline, 'demo')
  const decoder = await load(t, KandinskyV22Pipeline, 'demo')
  const apple = await loadImage(await pictureOf(t, 'a red apple'))
  const hues = []
  for (const weights of [
    [1, 0],
    [0.5, 0.5],
    [0, 1],
  ]) {
    const embeds = await prior.interpolate(['a green apple', apple], weights, { generator: new Generator(2) })
    const { images } = await decoder.generate({ ...embeds, generator: new Generator(2) })
    const { red, green } = drawn(images[0])
    hues.push(red - green)
  }
  assert.ok(hues[0] < hues[1] && hues[1] < hues[2], `red minus green: ${hues}`)
})

test('the command line uses it when no model is named', async (t) => {
  const output = await pictureOf(t, 'a red apple')
  const { red, green } = drawn(await loadImage(output))
  assert.ok(red > green + 60)
  const { model, numInferenceSteps, guidanceScale } = await readRecipe(output)
  assert.deepEqual(
    { model, numInferenceSteps, guidanceScale },
    { model: 'demo', numInferenceSteps: 25, guidanceScale: 2 },
  )
})

test('all of it is small enough to travel with the package', () => {
  const bytes = readdirSync(models)
    .filter((name) => name.endsWith('.gguf'))
    .map((name) => statSync(path.join(models, name)).size)
  assert.ok(bytes.length > 0 && bytes.reduce((a, b) => a + b) < 25e6, `${bytes} bytes`)
})

/** What `kandinsky generate` writes without -m. */
async function pictureOf(t, prompt) {
  const output = path.join(temporaryFolder(t), 'out.png')
  const { KANDINSKY_MODEL: _, ...env } = process.env
  const args = [main, 'generate', prompt, '-o', output, '--seed', '1', '--threads', String(threads)]
  const { stderr } = await promisify(execFile)(process.execPath, args, { env })
  assert.match(stderr, /packaged demo/)
  return output
}

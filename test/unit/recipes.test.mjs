// A recipe is all that makes one picture again, alone, to the byte: of every task, scheduler and count.
import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import {
  AutoPipeline,
  Generator,
  KandinskyV22ControlnetImg2ImgPipeline,
  KandinskyV22ControlnetPipeline,
  KandinskyV22Pipeline,
  RawImage,
  readRecipe,
  recipeOptions,
  recipeScheduler,
} from '../../dist/index.js'
import { schedulerByName, schedulerShortNames } from '../../dist/schedulers/registry.js'
import { checkpoint, fixtures } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const picture = (name) => path.join(fixtures, 'images', name)
const image = picture('plasma_320x240.png')
const maskImage = picture('mask_circle_64x64.png')
const tiny = { height: 64, width: 64, numInferenceSteps: 3 }
const prior = { prior: checkpoint('kandinsky-2-2-prior') }
const prior21 = { prior: checkpoint('kandinsky-2-1-prior') }
const withPrior = { ...tiny, priorNumInferenceSteps: 2 }

async function load(t, task, name, options) {
  const pipe = await AutoPipeline.fromPretrained(checkpoint(name), { task, threads: 1, device: 'cpu', ...options })
  t.after(() => pipe.dispose())
  return pipe
}

/** Makes each picture again from its PNG file. */
async function replay(t, pipe, images, again = {}) {
  const folder = temporaryFolder(t)
  for (const [i, made] of images.entries()) {
    const file = path.join(folder, `${i}.png`)
    await made.save(file)
    const result = await pipe.generate(await recipeOptions(file, again))
    assert.deepEqual(Buffer.from(result.images[0].data), Buffer.from(made.data), `picture ${i}`)
    const { index: _, ...recipe } = made.recipe
    const { index: __, ...theirs } = result.images[0].recipe
    assert.deepEqual(JSON.parse(JSON.stringify(theirs)), JSON.parse(JSON.stringify(recipe)))
  }
}

const texts = { prompt: ['a cat', 'a red hat'], negativePrompt: ['blur', 'low'], numImagesPerPrompt: 2 }
/** of as many tokens */
const equal = { ...texts, prompt: ['a cat', 'a cat'] }
const tasks = {
  '2.2 text-to-image': ['text-to-image', 'kandinsky-2-2-decoder', prior, { ...withPrior, ...texts }],
  '2.2 text-to-image without negative prompts': [
    ...['text-to-image', 'kandinsky-2-2-decoder', prior],
    { ...withPrior, prompt: 'a cat', numImagesPerPrompt: 3 },
  ],
  '2.2 image-to-image': [
    ...['image-to-image', 'kandinsky-2-2-decoder', prior],
    { ...withPrior, ...texts, strength: 0.7 },
    { image },
  ],
  '2.2 inpainting': [
    ...['inpainting', 'kandinsky-2-2-decoder-inpaint', prior],
    { ...withPrior, ...texts },
    { image, maskImage },
  ],
  '2.1 text-to-image': ['text-to-image', 'kandinsky-2-1', prior21, { ...withPrior, ...texts }],
  '2.1 image-to-image': [
    ...['image-to-image', 'kandinsky-2-1', prior21],
    { ...withPrior, ...texts, strength: 0.7 },
    { image },
  ],
  '2.1 inpainting': [
    ...['inpainting', 'kandinsky-2-1-inpaint', prior21],
    { ...withPrior, ...texts },
    { image, maskImage },
  ],
  '3 text-to-image': ['text-to-image', 'kandinsky-3', {}, { ...tiny, ...equal }],
  '3 image-to-image': ['image-to-image', 'kandinsky-3', {}, { ...tiny, ...equal, strength: 0.7 }, { image }],
}
for (const [name, [task, model, options, call, inputs = {}]] of Object.entries(tasks))
  test(`${name}: each picture of a call is made again alone`, async (t) => {
    const pipe = await load(t, task, model, options)
    const { images } = await pipe.generate({ ...call, ...inputs, seed: 5 })
    assert.deepEqual(
      images.map(({ recipe }) => recipe.seed),
      images.map((_, i) => 5 + i),
    )
    assert.ok(images.slice(1).every((other) => !Buffer.from(other.data).equals(Buffer.from(images[0].data))))
    await replay(t, pipe, images, inputs)
  })

test('5 text-to-image: each picture of a call is made again alone', async (t) => {
  const pipe = await load(t, 'text-to-image', 'kandinsky-5-t2i', {})
  pipe.resolutions = [[64, 64]]
  const { images } = await pipe.generate({ ...tiny, ...texts, numInferenceSteps: 2, seed: 5 })
  await replay(t, pipe, images)
  const padded = (await pipe.generate({ ...tiny, ...texts, numInferenceSteps: 2, seed: 5, padPrompts: true })).images
  await assert.rejects(recipeOptions(padded[0].recipe), { code: 'INVALID_ARGUMENT', message: /longer prompt/ })
})

test('5 image-to-image: the same, with its picture', async (t) => {
  const pipe = await load(t, 'image-to-image', 'kandinsky-5-i2i', {})
  pipe.resolutions = [[64, 64]]
  const { images } = await pipe.generate({ ...tiny, ...texts, image, numInferenceSteps: 2, seed: 5 })
  assert.match(images[0].recipe.image, /^[0-9a-f]{16}$/)
  await replay(t, pipe, images, { image })
})

test('2.2 ControlNet: each picture of a call is made again alone, from the same embeddings and hint', async (t) => {
  const pipe = await KandinskyV22ControlnetPipeline.fromPretrained(checkpoint('kandinsky-2-2-controlnet-depth'))
  t.after(() => pipe.dispose())
  const random = new Generator(1)
  const embeds = { imageEmbeds: random.randn([1, 128]), negativeImageEmbeds: random.randn([1, 128]) }
  const { images } = await pipe.generate({ ...tiny, ...embeds, hint: image, numImagesPerPrompt: 2, seed: 9 })
  assert.match(images[0].recipe.hint, /^[0-9a-f]{16}$/)
  assert.match(images[0].recipe.imageEmbeds, /^[0-9a-f]{16}$/)
  await replay(t, pipe, images, { ...embeds, hint: image })
})

test('2.2 ControlNet image-to-image: the same', async (t) => {
  const pipe = await KandinskyV22ControlnetImg2ImgPipeline.fromPretrained(checkpoint('kandinsky-2-2-controlnet-depth'))
  t.after(() => pipe.dispose())
  const random = new Generator(1)
  const embeds = { imageEmbeds: random.randn([1, 128]), negativeImageEmbeds: random.randn([1, 128]) }
  const inputs = { ...embeds, hint: image, image }
  const { images } = await pipe.generate({ ...tiny, ...inputs, strength: 0.7, numImagesPerPrompt: 2, seed: 9 })
  await replay(t, pipe, images, inputs)
})

for (const name of schedulerShortNames.filter((name) => name !== 'unclip'))
  test(`with the scheduler ${name}, whose config the recipe has`, async (t) => {
    const pipe = await load(t, 'text-to-image', 'kandinsky-2-2-decoder', prior)
    pipe.scheduler = schedulerByName(name, pipe.scheduler.config)
    const { images } = await pipe.generate({
      ...withPrior,
      numInferenceSteps: 4,
      prompt: 'a cat',
      numImagesPerPrompt: 2,
      seed: 3,
    })
    const other = await load(t, 'text-to-image', 'kandinsky-2-2-decoder', prior)
    other.scheduler = await recipeScheduler(images[1].recipe)
    await replay(t, other, images)
  })

test('a mix of texts, each picture with an embedding of its own', async (t) => {
  const pipe = await load(t, 'text-to-image', 'kandinsky-2-2-decoder', prior)
  const mix = { items: ['a cat', 'a hat'], weights: [0.3, 0.7] }
  const { images } = await pipe.generate({ ...withPrior, mix, numImagesPerPrompt: 3, seed: 1 })
  await replay(t, pipe, images)
})

test('a mix with a picture names it by its hash and must get it again', async (t) => {
  const pipe = await load(t, 'text-to-image', 'kandinsky-2-2-decoder', prior)
  const mix = { items: ['a cat', new RawImage(new Uint8Array(192), 8, 8)], weights: [0.5, 0.5] }
  const { images } = await pipe.generate({ ...withPrior, mix, seed: 1 })
  assert.match(images[0].recipe.mix.items[1].image, /^[0-9a-f]{16}$/)
  await assert.rejects(recipeOptions(images[0].recipe), {
    code: 'INVALID_ARGUMENT',
    message: /must be given again: mix/,
  })
  const again = await pipe.generate(await recipeOptions(images[0].recipe, { mix }))
  assert.deepEqual(again.images[0].data, images[0].data)
})

test('without a seed each picture has a random one of its own, beyond 2^53 as a string', async (t) => {
  const pipe = await load(t, 'text-to-image', 'kandinsky-2-2-decoder', prior)
  await replay(t, pipe, (await pipe.generate({ ...withPrior, prompt: 'a', numImagesPerPrompt: 2 })).images)
  const large = (await pipe.generate({ ...withPrior, prompt: 'a', numImagesPerPrompt: 2, seed: 2n ** 64n - 1n })).images
  assert.deepEqual(
    large.map(({ recipe }) => recipe.seed),
    ['18446744073709551615', 0],
  )
  await replay(t, pipe, large)
})

test('a generator that was used before, or of another kind, is recorded with its position', async (t) => {
  const pipe = await load(t, 'text-to-image', 'kandinsky-2-2-decoder', prior)
  const generator = new Generator(4)
  for (let i = 0; i < 2; i++) {
    const { images } = await pipe.generate({ ...withPrior, prompt: 'a cat', generator })
    assert.equal(images[0].recipe.seed, i === 0 ? 4 : undefined)
    await replay(t, pipe, images)
  }
  const cuda = await pipe.generate({ ...withPrior, prompt: 'a cat', generator: new Generator(4, 'torch-cuda') })
  await replay(t, pipe, cuda.images)
})

test('pictures that shared one stream say so instead of being made wrongly', async (t) => {
  const pipe = await load(t, 'text-to-image', 'kandinsky-2-2-decoder', prior)
  const call = { ...withPrior, prompt: 'a cat', numImagesPerPrompt: 2 }
  const { images } = await pipe.generate({ ...call, generator: new Generator(4) })
  const alone = { code: 'INVALID_ARGUMENT', message: /shared one stream of noise with others \(2 in all\)/ }
  await assert.rejects(recipeOptions(images[1].recipe), alone)
  const source = { randn: (shape) => new Generator(1).randn(shape) }
  const unknown = (await pipe.generate({ ...call, generator: source })).images
  await assert.rejects(recipeOptions(unknown[0].recipe), { code: 'INVALID_ARGUMENT', message: /no seed/ })
})

test('3: a picture made beside a longer prompt says so', async (t) => {
  const pipe = await load(t, 'text-to-image', 'kandinsky-3', {})
  const { images } = await pipe.generate({ ...tiny, prompt: ['a', 'a red hat on a table'], seed: 1 })
  await assert.rejects(recipeOptions(images[0].recipe), { code: 'INVALID_ARGUMENT', message: /longer prompt/ })
  await replay(t, pipe, images.slice(1))
})

test('a seed beside a generator, a seed that is none, and a picture without a recipe are refused', async (t) => {
  const pipe = await KandinskyV22Pipeline.fromPretrained(checkpoint('kandinsky-2-2-decoder'))
  t.after(() => pipe.dispose())
  const embeds = new Generator(1).randn([1, 128])
  const call = { ...tiny, imageEmbeds: embeds, negativeImageEmbeds: embeds }
  await assert.rejects(pipe.generate({ ...call, seed: 1, generator: new Generator(1) }), /nothing beside a generator/)
  for (const seed of [1.5, '1', 2n ** 64n, NaN])
    await assert.rejects(pipe.generate({ ...call, seed }), { code: 'INVALID_ARGUMENT', message: /seed/ })
  await assert.rejects(recipeOptions(image), { code: 'INVALID_ARGUMENT', message: /carries a recipe/ })
  assert.equal(await readRecipe(image), undefined)
})

// Room around a picture: the canvas, the mask, and what inpainting makes of them.
import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import { AutoPipelineForInpainting, outpaint, RawImage, readRecipe, Tensor } from '../../dist/index.js'
import { checkpoint, fixtures } from '../helpers/cases.mjs'
import { kandinskyIn } from '../helpers/cli.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

/** Every pixel another colour: [x, y, 7]. */
function gradient(width, height) {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const pixel = Math.floor(i / 3)
    return [pixel % width, Math.floor(pixel / width), 7][i % 3]
  })
  return new RawImage(data, width, height)
}

const pixel = ({ data, width, channels }, x, y) => [...data.subarray((y * width + x) * channels).subarray(0, channels)]

/** The box of black pixels, and whether it is all black and the rest white. */
function keptBox({ data, width, height, channels }) {
  assert.equal(channels, 1)
  const kept = [...data.keys()].filter((i) => data[i] === 0)
  const [xs, ys] = [kept.map((i) => i % width), kept.map((i) => Math.floor(i / width))]
  const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs) + 1, Math.max(...ys) + 1]
  assert.equal(kept.length, (box[2] - box[0]) * (box[3] - box[1]))
  assert.ok(data.every((value) => value === 0 || value === 255))
  assert.equal(data.length, width * height)
  return box
}

test('the picture lies on its canvas as it was, the room has the colours of its border', async () => {
  const picture = gradient(128, 64)
  const { image, maskImage, width, height } = await outpaint({ image: picture, left: 64, right: 64, bottom: 64 })
  assert.deepEqual([width, height, image.width, image.height], [256, 128, 256, 128])
  assert.deepEqual([maskImage.width, maskImage.height], [256, 128])
  for (const [x, y] of [
    [0, 0],
    [127, 0],
    [50, 63],
  ])
    assert.deepEqual(pixel(image, 64 + x, y), [x, y, 7])
  assert.deepEqual(pixel(image, 3, 20), [0, 20, 7])
  assert.deepEqual(pixel(image, 255, 20), [127, 20, 7])
  assert.deepEqual(pixel(image, 74, 100), [10, 63, 7])
  assert.deepEqual(pixel(image, 0, 127), [0, 63, 7])
  assert.deepEqual(keptBox(maskImage), [64, 0, 192, 64])
})

test('sides become multiples of 64 at the cost of the room, or right and below where there is none', async () => {
  const canvas = async (size, room) => {
    const { maskImage, width, height } = await outpaint({ image: gradient(...size), ...room })
    return [width, height, ...keptBox(maskImage)]
  }
  assert.deepEqual(await canvas([100, 100], { left: 20 }), [128, 128, 28, 0, 128, 100])
  assert.deepEqual(await canvas([100, 128], { right: 1 }), [128, 128, 0, 0, 100, 128])
  assert.deepEqual(await canvas([100, 100], { left: 1, right: 1, top: 1 }), [128, 128, 14, 28, 114, 128])
  assert.deepEqual(await canvas([64, 64], { top: 64 }), [64, 128, 0, 64, 64, 128])
})

test('an overlap is repainted where the picture touches the room, and only there', async () => {
  const box = async (options) =>
    keptBox((await outpaint({ image: gradient(128, 64), overlap: 8, ...options })).maskImage)
  assert.deepEqual(await box({ left: 64 }), [72, 0, 192, 64])
  assert.deepEqual(await box({ top: 64, right: 64 }), [0, 72, 120, 128])
})

test('gray and transparent pictures become RGB; pictures can be files', async () => {
  const gray = new RawImage(new Uint8Array(64 * 64).fill(90), 64, 64, 1)
  assert.deepEqual(pixel((await outpaint({ image: gray, left: 64 })).image, 0, 0), [90, 90, 90])
  const file = path.join(fixtures, 'images', 'gradient_64x64.png')
  assert.equal((await outpaint({ image: file, left: 64 })).image.width, 128)
})

test('what makes no canvas is refused by name', async () => {
  const image = gradient(64, 64)
  const refuses = (options, message) =>
    assert.rejects(outpaint(options), (error) => error.name === 'KandinskyError' && message.test(error.message))
  await refuses({ image }, /room on at least one side/)
  await refuses({ image, left: 0, overlap: 4 }, /room on at least one side/)
  await refuses({ image, left: -1 }, /integer from 0 to 16384 for left but received -1/)
  await refuses({ image, top: 1.5 }, /for top/)
  await refuses({ image, left: 16384 }, /canvas of at most 16384 pixels for width/)
  await refuses({ image, left: 64, overlap: 64 }, /overlap/)
  await refuses({ image, links: 64 }, /Unknown option links/)
  await refuses({ left: 64 }, /./)
  await refuses(undefined, /an object/)
})

test('inpainting takes the result as it is', async () => {
  const pipe = await AutoPipelineForInpainting.fromPretrained(checkpoint('kandinsky-2-2-decoder-inpaint'), {
    threads: 1,
  })
  const room = await outpaint({ image: gradient(64, 64), right: 64 })
  const options = { prompt: 'a wall', ...room, numInferenceSteps: 1, priorNumInferenceSteps: 1, seed: 1 }
  const { images } = await pipe.generate({ ...options, outputType: 'float' })
  assert.ok(images instanceof Tensor)
  assert.deepEqual(images.shape, [1, 64, 128, 3])
  await pipe.dispose()
})

test('--outpaint: the packaged model paints around a picture, and --from does it again', async (t) => {
  const folder = temporaryFolder(t)
  const picture = path.join(fixtures, 'images', 'gradient_64x64.png')
  const run = (...args) => kandinskyIn(folder, ['generate', ...args])
  const short = ['--steps=1', '--prior-steps=1', '--seed=3', '--threads=1', '-q']
  const args = ['a red apple', '--image', picture, '--outpaint', 'left=64,top=10', '-o', 'a.png', ...short]
  assert.equal(run(...args).status, 0)
  const { width, height, outpaint: room } = await readRecipe(path.join(folder, 'a.png'))
  assert.deepEqual([width, height, room], [128, 128, 'left=64,top=10'])

  const again = run('--from', 'a.png', '--image', picture, '-o', 'b.png', '--threads=1')
  assert.equal(again.status, 0, again.stderr)
  const [first, second] = await Promise.all(['a.png', 'b.png'].map((name) => readRecipe(path.join(folder, name))))
  assert.deepEqual(second, first)
  assert.match(run('--from', 'a.png').stderr, /made with --image; name that picture again/)

  const refuses = (args, message) => {
    const { status, stderr } = run('x', ...args)
    assert.equal(status, 2)
    assert.match(stderr, message)
  }
  refuses(['--outpaint', '64'], /--outpaint needs --image/)
  refuses(['--image', picture, '--outpaint', '64', '--mask', picture], /--outpaint and --mask exclude each other/)
  for (const wrong of ['much', 'left', 'left=', 'left=64,left=64', 'links=64', 'left=-1', '99999'])
    refuses(['--image', picture, '--outpaint', wrong], /for --outpaint but received/)
})

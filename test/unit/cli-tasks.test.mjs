// `kandinsky generate` beyond a prompt: which inputs make which task, and what it writes.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import path from 'node:path'
import test from 'node:test'
import { promisify } from 'node:util'
import { DepthEstimator, loadImage, RawImage, readRecipe } from '../../dist/index.js'
import { checkpoint, fixtures } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const main = path.resolve(import.meta.dirname, '../../dist/cli/main.js')
const picture = path.join(fixtures, 'images', 'gradient_64x64.png')
const mask = path.join(fixtures, 'images', 'mask_circle_64x64.png')
const decoder = checkpoint('kandinsky-2-2-decoder')
const short = ['--steps=2', '--prior-steps=2', '--width=64', '--height=64', '--seed=4', '--threads=1']

const generate = (...args) => promisify(execFile)(process.execPath, [main, 'generate', ...args])

test('inputs that make no task are wrong usage', async () => {
  const refuses = async (args, message) =>
    assert.rejects(generate('-m', decoder, ...args), ({ code, stderr }) => code === 2 && message.test(stderr))
  await refuses(['a cat', '--mask', mask], /--mask needs --image/)
  await refuses(['a cat', '--strength', '0.5'], /--strength needs --image/)
  await refuses(['a cat', '--image', picture, '--mask', mask, '--strength', '0.5'], /no --mask/)
  await refuses(['a cat', '--image', picture, '--mask', mask, '--hint', picture], /exclude each other/)
  await refuses(['a cat', '--depth-model', 'Intel/dpt-large'], /--depth-model needs --hint/)
  await refuses(['a cat', '--mix', 'a dog=1'], /expected one prompt \(quote it\), or --mix instead/)
  await refuses([], /expected one prompt/)
  for (const mix of ['a dog', '=1', 'a dog=', 'a dog=much']) await refuses(['--mix', mix], /'text or image'=weight/)
})

test('a picture and a prompt make a picture, with a preview beside it', async (t) => {
  const folder = temporaryFolder(t)
  const [output, preview] = [path.join(folder, 'out.png'), path.join(folder, 'preview.png')]
  const args = ['a cat', '-m', decoder, '--image', picture, '--strength', '0.5', '-o', output, '--preview', preview]
  const { stdout } = await generate(...args, ...short, '--json')
  const events = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const steps = events.filter(({ type }) => type === 'step').map(({ stage, step }) => `${stage} ${step}`)
  assert.deepEqual(steps, ['prior 1', 'prior 2', 'decoder 1'])
  assert.deepEqual(events.at(-1).files, [output])
  const { prompt, strength, seed } = await readRecipe(output)
  assert.deepEqual({ prompt, strength, seed }, { prompt: 'a cat', strength: 0.5, seed: 4 })
  const { width, height } = await loadImage(preview)
  assert.deepEqual([width, height], [64, 64])
})

test('a mask makes it inpainting, a hint ControlNet', async (t) => {
  const folder = temporaryFolder(t)
  const output = path.join(folder, 'out.png')
  for (const [model, args] of [
    ['kandinsky-2-2-decoder-inpaint', ['--image', picture, '--mask', mask]],
    ['kandinsky-2-2-controlnet-depth', ['--hint', picture]],
    ['kandinsky-2-2-controlnet-depth', ['--hint', picture, '--image', picture, '--strength', '0.5']],
  ]) {
    await generate('a cat', '-m', checkpoint(model), ...args, '-o', output, ...short)
    assert.equal((await readRecipe(output)).model, model)
  }
})

test('a depth model makes the hint of a picture', async (t) => {
  const folder = temporaryFolder(t)
  const [depth, output, expected] = ['depth.png', 'out.png', 'expected.png'].map((name) => path.join(folder, name))
  const depthModel = path.join(fixtures, 'depth', 'dpt')
  const estimator = await DepthEstimator.fromPretrained(depthModel, { device: 'cpu', threads: 1 })
  await (await estimator.estimate(picture)).depth.save(depth)
  await estimator.dispose()
  const controlnet = ['a cat', '-m', checkpoint('kandinsky-2-2-controlnet-depth'), '--device=cpu', ...short]
  await generate(...controlnet, '--hint', picture, '--depth-model', depthModel, '-o', output)
  await generate(...controlnet, '--hint', depth, '-o', expected)
  assert.deepEqual((await loadImage(output)).data, (await loadImage(expected)).data)
})

test('a picture keeps its proportions, unless a size is given', async (t) => {
  const folder = temporaryFolder(t)
  const output = path.join(folder, 'out.png')
  const [wide, tall] = ['wide.png', 'tall.png'].map((name) => path.join(folder, name))
  await new RawImage(new Uint8Array(160 * 120 * 3).fill(90), 160, 120).save(wide)
  await new RawImage(new Uint8Array(30 * 120 * 3).fill(90), 30, 120).save(tall)
  const make = async (...args) => {
    await generate('a cat', '--strength', '0.5', '--steps=2', '--prior-steps=1', '-o', output, ...args)
    const { width, height } = await loadImage(output)
    return [width, height]
  }
  // the demo's own size is 128 x 128
  assert.deepEqual(await make('--image', wide), [128, 128], '148 x 111, in multiples of 64')
  assert.deepEqual(await make('--image', tall), [64, 256])
  assert.deepEqual(await make('--image', tall, '--width', '128', '--height', '128'), [128, 128])
  assert.deepEqual(await make('--image', tall, '--height', '128'), [64, 128])
})

test('--from makes a picture again, with changes where they are given', async (t) => {
  const folder = temporaryFolder(t)
  const file = (name) => path.join(folder, name)
  const refuses = (args, message) => assert.rejects(generate(...args), ({ stderr }) => message.test(stderr))
  const bytes = async (name) => Buffer.from((await loadImage(file(name))).data)
  await generate(
    '-m',
    decoder,
    'a cat',
    '--negative',
    'blur',
    '--count',
    '2',
    '--scheduler',
    'ddim',
    '-o',
    file('a.png'),
    ...short,
  )
  await generate('-m', decoder, '--from', file('a-2.png'), '-o', file('b.png'))
  assert.deepEqual(await bytes('b.png'), await bytes('a-2.png'))
  await generate('-m', decoder, '--from', file('a-2.png'), 'a dog', '--steps', '3', '-o', file('c.png'))
  const [a, c] = [await readRecipe(file('a-2.png')), await readRecipe(file('c.png'))]
  assert.deepEqual(
    [c.prompt, c.numInferenceSteps, c.seed, c.scheduler, c.negativePrompt],
    ['a dog', 3, a.seed, 'DDIMScheduler', 'blur'],
  )
  await generate('-m', decoder, '--mix', 'a cat=0.25', '--mix', `${picture}=0.75`, '-o', file('d.png'), ...short)
  await generate('-m', decoder, '--from', file('d.png'), '-o', file('e.png'))
  assert.deepEqual(await bytes('e.png'), await bytes('d.png'))
  await generate('-m', decoder, 'a cat', '--image', picture, '--strength', '0.5', '-o', file('f.png'), ...short)
  await refuses(['-m', decoder, '--from', file('f.png')], /made with --image; name that picture again/)
  await generate('-m', decoder, '--from', file('f.png'), '--image', picture, '-o', file('g.png'))
  assert.deepEqual(await bytes('g.png'), await bytes('f.png'))
  await refuses(['-m', decoder, '--from', picture], /carries a recipe/)
  await refuses(['-m', decoder, '--from', file('none.png')], /--from .* does not exist/)
})

test('texts and pictures mix', async (t) => {
  const output = path.join(temporaryFolder(t), 'out.png')
  await generate('-m', decoder, '--mix', 'a cat, E=mc2=0.25', '--mix', `${picture}=0.75`, '-o', output, ...short)
  const { mix } = await readRecipe(output)
  assert.deepEqual(mix, { items: ['a cat, E=mc2', picture], weights: [0.25, 0.75] })
})

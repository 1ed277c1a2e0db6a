// `kandinsky estimate`: what a model takes, without its weights.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'node:test'
import { promisify } from 'node:util'
import { combineCheckpoints, openCheckpoint } from '../../dist/checkpoint/open.js'
import { AutoPipelineForText2Image, convert } from '../../dist/index.js'
import { estimate } from '../../dist/pipelines/estimate.js'
import { checkpoint } from '../helpers/cases.mjs'
import { kandinskyIn, main } from '../helpers/cli.mjs'
import { temporaryFolder } from '../helpers/files.mjs'
import { startHub } from '../helpers/hub-server.mjs'

const [decoder, prior] = [checkpoint('kandinsky-2-2-decoder'), checkpoint('kandinsky-2-2-prior')]

test('the memory of each network is what it takes in a run, to the byte', async (t) => {
  const file = path.join(temporaryFolder(t), 'model.gguf')
  await convert(decoder, file, { prior, weights: 'q8_0', skip: ['image_encoder'] })
  for (const [width, height, count] of [
    [128, 64, 1],
    [192, 128, 2],
  ]) {
    const { memory } = await estimate(await openCheckpoint(file), { width, height, count })
    const pipe = await AutoPipelineForText2Image.fromPretrained(file, { device: 'cpu' })
    const { priorPipe, decoderPipe } = pipe
    const options = { prompt: 'a', numImagesPerPrompt: count, priorNumInferenceSteps: 1, numInferenceSteps: 1 }
    await pipe.generate({ ...options, width, height })
    const networks = [priorPipe.components.textEncoder, priorPipe.components.prior, decoderPipe.components.unet]
    for (const network of [...networks, decoderPipe.components.movq]) {
      const { weights, compute } = network.memory()
      const stage = memory.stages.find(({ name }) => name === network.name)
      assert.deepEqual(stage, { name: network.name, weights, compute })
    }
    await pipe.dispose()
  }
})

test('the disk that it takes is that of the converted file, whatever the type', async (t) => {
  const file = path.join(temporaryFolder(t), 'model.gguf')
  const whole = combineCheckpoints(await openCheckpoint(decoder), await openCheckpoint(prior))
  for (const options of [{ weights: 'q8_0' }, { weights: 'q4_0', skip: ['image_encoder'] }, {}]) {
    const { disk } = await estimate(whole, { width: 64, height: 64, ...options })
    await convert(decoder, file, { ...options, prior })
    const { size } = statSync(file)
    assert.ok(Math.abs(disk.total - size) < size * 0.03, `${disk.total} of ${size}`)
    assert.equal(
      disk.networks.some(({ name }) => name === 'image_encoder'),
      !options.skip,
    )
  }
})

test('tiles and smaller types take less, larger pictures more', async () => {
  const whole = combineCheckpoints(await openCheckpoint(decoder), await openCheckpoint(prior))
  const peakOf = async (options) => (await estimate(whole, { height: 256, ...options })).memory
  const { peak, tiledPeak } = await peakOf({ width: 256 })
  assert.ok(tiledPeak < peak)
  assert.ok((await peakOf({ width: 512 })).peak > peak)
  assert.ok((await peakOf({ width: 256, weights: 'q8_0' })).peak < (await peakOf({ width: 256, weights: 'f32' })).peak)
})

test('every kind of model: 2.1, 3, inpainting, ControlNet', async () => {
  for (const [name, task, networks] of [
    ['kandinsky-2-1', 'text-to-image', ['text_encoder', 'prior', 'text_encoder', 'unet', 'movq']],
    ['kandinsky-3', 'text-to-image', ['text_encoder', 'unet', 'movq']],
    ['kandinsky-2-2-decoder-inpaint', 'inpainting', ['text_encoder', 'prior', 'unet', 'movq']],
    ['kandinsky-2-2-controlnet-depth', 'controlnet', ['text_encoder', 'prior', 'unet', 'movq']],
  ]) {
    const args = ['estimate', checkpoint(name), '--width', '64', '--height', '64', '--json']
    const { status, stderr, lines } = kandinskyIn(tmpdir(), args)
    assert.equal(status, 0, stderr)
    const [result] = lines()
    assert.equal(result.task, task)
    assert.deepEqual(new Set(result.memory.stages.map((stage) => stage.name)), new Set(networks), name)
    assert.equal(result.memory.stages.length, networks.length, name)
  }
})

test('a repository is estimated from its headers alone', async (t) => {
  const files = (folder) =>
    Object.fromEntries(
      readdirSync(folder, { recursive: true })
        .filter((file) => statSync(path.join(folder, file)).isFile())
        .map((file) => [file, readFileSync(path.join(folder, file))]),
    )
  const hub = await startHub({
    'kandinsky-community/kandinsky-2-2-decoder': files(decoder),
    'kandinsky-community/kandinsky-2-2-prior': files(prior),
  })
  t.after(() => hub.close())
  const home = temporaryFolder(t)
  const env = { ...process.env, HF_ENDPOINT: hub.endpoint, HF_HOME: home, TMPDIR: home }
  const args = [
    'estimate',
    'kandinsky-community/kandinsky-2-2-decoder',
    '--type',
    'Q4_0',
    '--width',
    '64',
    '--height',
    '64',
  ]
  const { stdout } = await promisify(execFile)(process.execPath, [main, ...args], { env, cwd: home })
  assert.match(stdout, /^disk +[\d.]+ MB as one \.gguf file of q4_0$/m)
  assert.match(stdout, /^memory +about [\d.]+ MB for a picture of 64 x 64, text-to-image/m)
  assert.match(stdout, /^ {2}unet +[\d.]+ [kM]B of weights, [\d.]+ [kM]B of activations$/m)
  const inspected = await promisify(execFile)(process.execPath, [main, 'inspect', args[1]], { env, cwd: home })
  assert.match(inspected.stdout, /^unet +UNet2DConditionModel, [\d.]+ M parameters/m)
  assert.ok(!hub.requests.some(({ headers }) => headers.range), 'nothing is downloaded to be kept')
  assert.deepEqual(readdirSync(home), [], 'and nothing is left')
})

test('what cannot be estimated is said', () => {
  const refuses = (args, status, message) => {
    const result = kandinskyIn(tmpdir(), ['estimate', ...args])
    assert.equal(result.status, status, result.stderr)
    assert.match(result.stderr, message)
  }
  refuses([], 2, /expected one model/)
  refuses(['demo', '-m', 'demo'], 2, /expected one model/)
  refuses(['nothing'], 1, /nothing does not exist/)
  refuses(['demo', '--type', 'q9'], 2, /--type/)
  refuses(['demo', '--width', '0'], 2, /--width/)
  refuses([prior], 1, /Expected a decoder/)
  refuses(['demo', '--skip', 'nose'], 2, /--skip/)
})

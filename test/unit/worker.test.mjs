// createWorker: pipelines in a process of their own do what they do in this one, and their end is not the program's.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import sharp from 'sharp'
import * as library from '../../dist/index.js'
import { checkpoint, fixtures } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const { createWorker, Generator, KandinskyError, RawImage, Tensor } = library
const root = path.resolve(import.meta.dirname, '../..')
const index = JSON.stringify(path.join(root, 'dist', 'index.js'))
const source = checkpoint('kandinsky-2-2-decoder')
const lora = path.join(fixtures, 'extra/lora/decoder/pytorch_lora_weights.safetensors')
const loading = { prior: checkpoint('kandinsky-2-2-prior'), threads: 1 }
const size = { height: 64, width: 64, numInferenceSteps: 4 }
const small = { prompt: 'a cat', ...size, priorNumInferenceSteps: 2 }

let worker
let crashes
let here
let there

before(async () => {
  crashes = []
  worker = createWorker({ onCrash: (error) => crashes.push(error) })
  here = await library.AutoPipelineForText2Image.fromPretrained(source, loading)
  there = await worker.AutoPipelineForText2Image.fromPretrained(source, loading)
})
after(async () => {
  await Promise.all([here.dispose(), worker.dispose()])
})

/** Runs a call in both processes. */
async function both(run) {
  const [ours, theirs] = [await run(here), await run(there)]
  return { ours, theirs }
}

test('the picture, its recipe and the generator afterwards are those of the same call here', async () => {
  const generators = [new Generator(5), new Generator(5)]
  const [ours, theirs] = [
    await here.generate({ ...small, generator: generators[0] }),
    await there.generate({ ...small, generator: generators[1] }),
  ]
  assert.ok(theirs.images[0] instanceof RawImage)
  assert.deepEqual(theirs.images[0].data, ours.images[0].data)
  assert.deepEqual(theirs.images[0].recipe, ours.images[0].recipe)
  assert.deepEqual(generators[1].randn([20]).data, generators[0].randn([20]).data)
})

test('the stream has the same steps, latents and previews', async () => {
  const { ours, theirs } = await both(async (pipe) => {
    const events = []
    const options = { ...small, preview: true, generator: new Generator(1) }
    for await (const event of pipe.stream(options)) events.push({ ...event, etaMs: 0 })
    return events
  })
  assert.deepEqual(theirs, ours)
  assert.equal(theirs.at(-1).type, 'result')
  assert.ok(theirs[0].latents instanceof Tensor)
})

test('tensors and pictures go in, results of other methods come out', async () => {
  const prior = await worker.KandinskyV22PriorPipeline.fromPretrained(loading.prior, { threads: 1 })
  const decoder = await worker.KandinskyV22Pipeline.fromPretrained(source, { threads: 1, scheduler: 'euler' })
  const picture = new RawImage(new Uint8Array(64 * 64 * 3).fill(99), 64, 64)
  const mixed = await prior.interpolate(['a cat', picture], [0.5, 0.5], { numInferenceSteps: 2 })
  assert.ok(mixed.imageEmbeds instanceof Tensor)
  const { images } = await decoder.generate({ ...mixed, ...size, outputType: 'float' })
  assert.deepEqual(images.shape, [1, 64, 64, 3])
  const again = await worker.AutoPipelineForImage2Image.fromPretrained(source, loading)
  const changed = await again.generate({ ...small, image: await picture.toBuffer('png'), strength: 0.5 })
  assert.equal(changed.images[0].width, 64)
  await Promise.all([prior, decoder, again].map((pipe) => pipe.dispose()))
  await assert.rejects(prior.interpolate(['a cat'], [1]), { code: 'DISPOSED' })
})

test('a LoRA changes the pictures there as it does here, until it is unloaded', async () => {
  const draw = (pipe) => pipe.generate({ ...small, seed: 4 }).then(({ images }) => images[0].data)
  const plain = await both(draw)
  await both((pipe) => pipe.loadLoraWeights(lora, { adapterName: 'style' }))
  await both((pipe) => pipe.setAdapters('style', 0.7))
  const styled = await both(draw)
  assert.notDeepEqual(styled.theirs, plain.theirs)
  assert.deepEqual(styled.theirs, styled.ours)
  await assert.rejects(there.setAdapters('other'), { code: 'INVALID_ARGUMENT', message: /names among style/ })
  await both((pipe) => pipe.unloadLoraWeights())
  assert.deepEqual((await both(draw)).theirs, plain.ours)
})

test('every pipeline is there, Kandinsky 5 too', async () => {
  const editing = await worker.Kandinsky5I2IPipeline.fromPretrained(checkpoint('kandinsky-5-i2i'), { threads: 1 })
  const image = new RawImage(new Uint8Array(64 * 64 * 3).fill(99), 64, 64)
  const encoded = await editing.encodePrompt({ prompt: 'make it red', image })
  assert.deepEqual(encoded.promptEmbedsClip.shape, [1, 32])
  await editing.dispose()
  const names = Object.keys(library).filter((name) => /^Kandinsky.*Pipeline$/.test(name))
  assert.deepEqual(
    names.filter((name) => typeof worker[name]?.fromPretrained !== 'function'),
    [],
  )
})

test('a scheduler object is taken along', async () => {
  const scheduler = library.DDIMScheduler.fromConfig({ num_train_timesteps: 500 })
  const pipe = await worker.AutoPipelineForText2Image.fromPretrained(source, { ...loading, scheduler })
  const { images } = await pipe.generate(small)
  assert.equal(images[0].recipe.scheduler, 'DDIMScheduler')
  await pipe.dispose()
})

test('callbackOnStepEnd replaces latents', async () => {
  const { ours, theirs } = await both((pipe) =>
    pipe.generate({
      ...small,
      generator: new Generator(2),
      outputType: 'latent',
      callbackOnStepEnd: async ({ latents, step }) => {
        if (step === 2)
          return {
            latents: new Tensor(
              latents.data.map((value) => value / 2),
              latents.shape,
            ),
          }
      },
    }),
  )
  assert.deepEqual(theirs.images, ours.images)
})

test('errors are KandinskyErrors with their code', async () => {
  await assert.rejects(there.generate({ ...small, numInferenceSteps: -1 }), (error) => {
    assert.ok(error instanceof KandinskyError)
    assert.equal(error.code, 'INVALID_ARGUMENT')
    assert.match(error.message, /numInferenceSteps/)
    return true
  })
  const missing = worker.AutoPipelineForText2Image.fromPretrained('no/such/file.gguf')
  await assert.rejects(missing, { name: 'KandinskyError', code: 'FILE_NOT_FOUND' })
})

test('aborting rejects with the reason of the signal, and the pipeline stays usable', async () => {
  const reason = new Error('enough')
  const abort = new AbortController()
  const onStep = () => abort.abort(reason)
  await assert.rejects(there.generate({ ...small, numInferenceSteps: 500, onStep, signal: abort.signal }), reason)
  await assert.rejects(there.generate({ ...small, signal: AbortSignal.abort('early') }), (error) => error === 'early')
  for await (const _ of there.stream({ ...small, numInferenceSteps: 500 })) break
  assert.equal((await there.generate(small)).images.length, 1)
})

test('what a callback throws is what the call rejects with', async () => {
  const mine = new TypeError('mine')
  const fail = () => {
    throw mine
  }
  await assert.rejects(there.generate({ ...small, onStep: fail }), mine)
  await assert.rejects(there.generate({ ...small, callbackOnStepEnd: fail }), mine)
  assert.equal((await there.generate(small)).images.length, 1)
})

test('inputs are copied before the call returns', async () => {
  const prior = await worker.KandinskyV22PriorPipeline.fromPretrained(loading.prior, { threads: 1 })
  const options = { prompt: 'a cat', numInferenceSteps: 2, generator: new Generator(1) }
  const latents = new Generator(3).randn([1, 128])
  const kept = await prior.generate({ ...options, latents })
  const call = prior.generate({ ...options, generator: new Generator(1), latents })
  latents.data.fill(0)
  assert.deepEqual((await call).imageEmbeds, kept.imageEmbeds)
  await prior.dispose()
})

test('what cannot be sent is refused by name', async () => {
  const generator = { randn: (shape) => new Generator(1).randn(shape) }
  await assert.rejects(there.generate({ ...small, generator }), /for generator .*other than a Generator/)
  await assert.rejects(there.generate({ ...small, image: sharp('x.png') }), /for image .*sharp object/)
  assert.throws(() => createWorker({ path: 'x' }), { code: 'INVALID_ARGUMENT' })
})

test('a dead process is a rejection, and the next call loads the pipeline into another one', async () => {
  const first = worker.pid
  const call = there.generate({ ...small, numInferenceSteps: 500, onStep: () => process.kill(first, 'SIGKILL') })
  await assert.rejects(call, { name: 'KandinskyError', code: 'WORKER_DIED', message: /ended with signal SIGKILL/ })
  assert.equal(crashes.length, 1)
  assert.equal(crashes[0].code, 'WORKER_DIED')
  assert.equal(worker.pid, undefined)
  const [one, two] = await Promise.all([there.generate(small), there.generate(small)])
  assert.equal(one.images.length + two.images.length, 2)
  assert.notEqual(worker.pid, first)
})

test('LoRAs are there again with the pipeline', async () => {
  const draw = () => there.generate({ ...small, seed: 4 }).then(({ images }) => images[0].data)
  const plain = await draw()
  await there.loadLoraWeights(lora, { adapterName: 'style', signal: new AbortController().signal })
  for (const weight of [0.2, 0.7]) await there.setAdapters(['style'], [weight])
  const styled = await draw()
  process.kill(worker.pid, 'SIGKILL')
  while (worker.pid !== undefined) await new Promise((resolve) => setTimeout(resolve, 5))
  assert.deepEqual(await draw(), styled)
  await there.unloadLoraWeights()
  process.kill(worker.pid, 'SIGKILL')
  while (worker.pid !== undefined) await new Promise((resolve) => setTimeout(resolve, 5))
  assert.deepEqual(await draw(), plain)
})

test('dispose ends the process and rejects what is under way', async () => {
  const other = createWorker()
  const pipe = await other.AutoPipelineForText2Image.fromPretrained(source, loading)
  const { pid } = other
  const call = pipe.generate({ ...small, numInferenceSteps: 500, onStep: () => other.dispose() })
  await assert.rejects(call, { code: 'DISPOSED' })
  await assert.rejects(pipe.generate(small), { code: 'DISPOSED' })
  await pipe.dispose()
  await gone(pid)
})

/** Waits until a process is no longer there. */
async function gone(pid) {
  for (;;) {
    try {
      process.kill(pid, 0)
    } catch {
      return
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const script = `
  import { createWorker } from ${index}
  const worker = createWorker()
  const pipe = await worker.AutoPipelineForText2Image.fromPretrained(${JSON.stringify(source)}, ${JSON.stringify(loading)})
  console.log(worker.pid)`

test('an idle worker does not keep the program alive', () => {
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
})

test('the process ends with the program, however that ends', { skip: process.platform === 'win32' }, async () => {
  const program = spawn(process.execPath, ['--input-type=module', '-e', `${script}; setInterval(() => {}, 1000)`])
  const [printed] = await once(program.stdout, 'data')
  program.kill('SIGKILL')
  await gone(Number(printed))
})

test("in Electron's main process it is a utility process", (t) => {
  // A stand-in: a child whose parent port speaks as Electron's does.
  const folder = temporaryFolder(t)
  const modules = path.join(folder, 'modules')
  mkdirSync(path.join(modules, 'electron'), { recursive: true })
  writeFileSync(
    path.join(folder, 'parent-port.cjs'),
    `const { EventEmitter } = require('node:events')
     process.parentPort = new EventEmitter()
     process.parentPort.postMessage = (message) => process.send(message)
     process.on('message', (data) => process.parentPort.emit('message', { data }))
     process.on('disconnect', () => process.exit())`,
  )
  writeFileSync(
    path.join(modules, 'electron', 'index.js'),
    `const { fork } = require('node:child_process')
     exports.utilityProcess = {
       fork(path, args, { serviceName, env, execArgv }) {
         console.log('utility process', serviceName)
         const shim = ['--require', ${JSON.stringify(path.join(folder, 'parent-port.cjs'))}]
         const child = fork(path, args, { env, execArgv: [...execArgv, ...shim], serialization: 'advanced' })
         child.postMessage = (message) => child.send(message)
         return child
       },
     }`,
  )
  const main = `
    Object.defineProperty(process.versions, 'electron', { value: '40.0.0' })
    process.type = 'browser'
    ${script}
    const { images } = await pipe.generate(${JSON.stringify(small)})
    console.log(images[0].width)
    await worker.dispose()`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', main], {
    encoding: 'utf8',
    env: { ...process.env, NODE_PATH: modules },
  })
  assert.match(stdout, /^utility process node-kandinsky\n\d+\n64\n/, stderr)
})

test('execPath names the Node to run, and a single executable application needs one', async (t) => {
  const other = createWorker({ execPath: process.execPath })
  await other.DepthEstimator.fromPretrained('nowhere.gguf').catch(() => {})
  assert.ok(other.pid)
  await other.dispose()
  t.mock.method(process, 'getBuiltinModule', () => ({ isSea: () => true }))
  assert.throws(() => createWorker(), { code: 'INVALID_ARGUMENT', message: /execPath/ })
  createWorker({ execPath: process.execPath })
})

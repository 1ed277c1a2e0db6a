// Long use, many times over: `npm run soak -- [--rounds 1000] [part ...]`. docs/building.md says what each part does.
//
// Too long for `npm test`, whose tests do a few rounds of the same.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import { AutoPipelineForText2Image, convert, Generator } from '../dist/index.js'
import { digestOf, startHub } from '../test/helpers/hub-server.mjs'
import { stop } from './cmake.mjs'

const root = path.resolve(import.meta.dirname, '..')
const library = pathToFileURL(path.join(root, 'dist/index.js')).href
const { values, positionals } = parseArgs({
  options: { rounds: { type: 'string', default: '1000' } },
  allowPositionals: true,
})
const rounds = Number(values.rounds)
if (!Number.isInteger(rounds) || rounds < 10) stop(`Expected 10 or more rounds but received ${values.rounds}`)

const call = (seed = 1) => ({
  ...{ prompt: 'a red apple', numInferenceSteps: 2, priorNumInferenceSteps: 2, outputType: 'latent' },
  generator: new Generator(seed),
})
const load = () => AutoPipelineForText2Image.fromPretrained('demo', { threads: 1 })
const bytes = ({ images }) => Buffer.from(images.data.buffer, images.data.byteOffset, images.data.byteLength)
const megabytes = () => {
  globalThis.gc?.()
  return process.memoryUsage.rss() / 2 ** 20
}

/** Runs `round` for every number and asserts that the second half of them took no memory. */
async function flat(round) {
  for (let i = 0; i < rounds / 2; i++) await round(i)
  const before = megabytes()
  for (let i = 0; i < rounds / 2; i++) await round(i)
  const grown = megabytes() - before
  assert.ok(grown < 10, `the second half of the rounds took ${grown.toFixed(1)} MB`)
  return `memory grew by ${grown.toFixed(1)} MB in the second half`
}

const parts = {
  async pipelines() {
    const pipes = await Promise.all(Array.from({ length: 8 }, load))
    const alone = []
    for (const [seed, pipe] of pipes.entries()) alone.push(bytes(await pipe.generate(call(seed))))
    for (let done = 0; done < rounds; done += pipes.length) {
      const together = await Promise.all(pipes.map((pipe, seed) => pipe.generate(call(seed))))
      for (const [seed, result] of together.entries()) assert.deepEqual(bytes(result), alone[seed], `pipeline ${seed}`)
    }
    await Promise.all(pipes.map((pipe) => pipe.dispose()))
    return 'eight pipelines at once give what each gives alone'
  },

  async cancels() {
    const pipe = await load()
    const expected = bytes(await pipe.generate(call()))
    const started = performance.now()
    await pipe.generate(call())
    const duration = performance.now() - started
    let aborted = 0
    for (let i = 0; i < rounds; i++) {
      const controller = new AbortController()
      const outcome = pipe.generate({ ...call(), signal: controller.signal }).catch((reason) => {
        assert.equal(reason, controller.signal.reason)
        aborted++
      })
      await sleep(Math.random() * duration)
      controller.abort()
      await outcome
      assert.deepEqual(bytes(await pipe.generate(call())), expected, `after cancel ${i}`)
    }
    await pipe.dispose()
    return `${aborted} calls were stopped; after each the next one gave the same bytes`
  },

  async disposals() {
    for (let i = 0; i < rounds; i++) {
      const pipe = await load()
      const outcome = pipe.generate(call()).catch(({ code }) => assert.equal(code, 'DISPOSED'))
      await sleep(Math.random() * 50)
      await pipe.dispose()
      await outcome
    }
    return 'disposed in the middle of a call'
  },

  async workers() {
    const code = `
      const { workerData, parentPort } = require('node:worker_threads')
      import(workerData).then(async ({ AutoPipelineForText2Image }) => {
        const pipe = await AutoPipelineForText2Image.fromPretrained('demo', { threads: 1 })
        parentPort.postMessage('loaded')
        for (;;) await pipe.generate({ prompt: 'a cat', numInferenceSteps: 5 })
      })`
    for (let i = 0; i < rounds / 10; i++) {
      const worker = new Worker(code, { eval: true, workerData: library })
      await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject))
      await sleep(Math.random() * 100)
      await worker.terminate()
    }
    return 'threads terminated in the middle of a step'
  },

  async generations() {
    const pipe = await load()
    const result = await flat((i) => pipe.generate(call(i)))
    await pipe.dispose()
    return result
  },

  loads: () => flat(async () => (await load()).dispose()),

  async kills() {
    const folder = mkdtempSync(path.join(tmpdir(), 'kandinsky-soak-'))
    const source = path.join(root, 'models/demo.gguf')
    const [target, whole] = ['killed.gguf', 'whole.gguf'].map((name) => path.join(folder, name))
    await convert(source, whole, { weights: 'q8_0' })
    const expected = readFileSync(whole)
    const code = `import(${JSON.stringify(library)}).then(async ({ convert }) => {
      for (;;) { process.stdout.write('.'); await convert(${JSON.stringify(source)}, ${JSON.stringify(target)}, { weights: 'q8_0' }) }
    })`
    try {
      for (let i = 0; i < rounds; i++) {
        const child = spawn(process.execPath, ['--eval', code], { stdio: ['ignore', 'pipe', 'inherit'] })
        const ended = new Promise((resolve) => child.on('exit', resolve))
        await new Promise((resolve) => child.stdout.once('data', resolve))
        child.stdout.resume()
        await sleep(Math.random() * 150)
        child.kill('SIGKILL')
        await ended
        if (existsSync(target)) assert.ok(readFileSync(target).equals(expected), `half a file after kill ${i}`)
        if (i % 10 === 0) rmSync(target, { force: true })
      }
      await convert(source, target, { weights: 'q8_0' })
      assert.ok(readFileSync(target).equals(expected))
      assert.deepEqual(readdirSync(folder).sort(), ['killed.gguf', 'whole.gguf'])
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
    return 'after each kill -9 of convert the target was absent or whole; the next convert left nothing else behind'
  },

  async downloads() {
    const folder = mkdtempSync(path.join(tmpdir(), 'kandinsky-soak-'))
    const files = Object.fromEntries(
      ['unet', 'movq'].map((part) => [`${part}/diffusion_pytorch_model.bin`, randomBytes(8 << 20)]),
    )
    const index = {
      _class_name: 'KandinskyV22Pipeline',
      unet: ['diffusers', 'UNet2DConditionModel'],
      movq: ['diffusers', 'VQModel'],
    }
    const config = '{"_class_name": "a network"}'
    const texts = { 'model_index.json': JSON.stringify(index), 'unet/config.json': config, 'movq/config.json': config }
    const hub = await startHub({ 'owner/name': { ...texts, ...files } })
    const env = { ...process.env, HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: folder }
    const repository = path.join(folder, 'models--owner--name')
    const code = `import(${JSON.stringify(pathToFileURL(path.join(root, 'dist/hub/resolve.js')).href)}).then(async ({ resolveSource }) => {
      process.stdout.write('.')
      await resolveSource('owner/name')
      process.stdout.write('done')
      setInterval(() => {}, 1000)
    })`
    const start = () => spawn(process.execPath, ['--eval', code], { stdio: ['ignore', 'pipe', 'inherit'], env })
    const expected = new Set(
      [...Object.values(texts), ...Object.values(files)].map((content) => digestOf(Buffer.from(content))),
    )
    try {
      let whole = 0
      for (let i = 0; i < rounds; i++) {
        const child = start()
        const ended = new Promise((resolve) => child.on('exit', resolve))
        await new Promise((resolve) => child.stdout.once('data', resolve))
        child.stdout.resume()
        await sleep(Math.random() * 120)
        child.kill('SIGKILL')
        await ended
        const blobs = path.join(repository, 'blobs')
        for (const blob of existsSync(blobs) ? readdirSync(blobs) : []) {
          if (!expected.has(blob)) continue // a lock, or what is to be continued
          assert.equal(digestOf(readFileSync(path.join(blobs, blob))), blob, `half a file after kill ${i}`)
          whole++
        }
        // Most kills meet what the one before has left, some nothing.
        if (i % 5 === 0) rmSync(repository, { recursive: true, force: true })
      }
      const last = start()
      const ended = new Promise((resolve) => last.on('exit', resolve))
      let said = ''
      for await (const part of last.stdout) {
        said += part
        if (said.endsWith('done')) break
      }
      last.kill('SIGKILL')
      await ended
      const left = readdirSync(folder, { recursive: true }).filter((name) => /\.(incomplete|lock)$/.test(name))
      assert.deepEqual(left, [])
      assert.equal(readdirSync(path.join(repository, 'blobs')).length, expected.size)
      return `${whole} files were there after kill -9, all of them whole; the next download left nothing else behind`
    } finally {
      hub.close()
      rmSync(folder, { recursive: true, force: true })
    }
  },
}

const wanted = positionals.length > 0 ? positionals : Object.keys(parts)
for (const name of wanted)
  if (!parts[name]) stop(`Expected one of ${Object.keys(parts).join(', ')} but received ${name}`)
for (const name of wanted) {
  const started = performance.now()
  const result = await parts[name]()
  console.log(`${name}, ${rounds} rounds, ${Math.round((performance.now() - started) / 1000)} s: ${result}`)
}

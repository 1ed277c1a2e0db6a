// Out of memory is an error like any other, and nothing that was given up stays allocated.
import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import test from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { convert, Generator, KandinskyV22Pipeline, listDevices, Tensor } from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'
import { root } from '../helpers/native.mjs'

const decoder = checkpoint('kandinsky-2-2-decoder')
const run = async (args) => JSON.parse((await promisify(execFile)(process.execPath, args)).stdout)
const lacksPrlimit = spawnSync('prlimit', ['--version']).status === 0 ? false : 'prlimit (util-linux) is not there'

test('the CPU has less memory free than there is', () => {
  const { freeBytes, totalBytes } = listDevices().find(({ name }) => name === 'cpu')
  assert.ok(freeBytes > 0 && freeBytes < totalBytes, `${freeBytes} of ${totalBytes} bytes`)
})

// Even the tiny MoVQ needs 104 GB for it, in tiles 54.
const isHuge = os.totalmem() > 50e9 ? 'this machine might really try' : false
test('a picture of 16384 pixels a side is refused before memory is taken', { skip: isHuge }, async (t) => {
  const { components } = await KandinskyV22Pipeline.fromPretrained(decoder, { device: 'cpu' })
  const { movq, unet } = components
  t.after(() => Promise.all([movq.dispose(), unet.dispose()]))
  const decode = (side) =>
    movq.run('decode', { latents: new Tensor(new Float32Array(4 * side * side), [1, 4, side, side]) })
  await assert.rejects(decode(2048), {
    code: 'OUT_OF_MEMORY',
    message: /Expected \d+ MB of free memory on cpu for activations but \d+ MB of \d+ MB are free/,
  })
  assert.deepEqual((await decode(8)).sample.shape, [1, 3, 64, 64])
})

test('where memory runs out, the call ends with an error and the next one is right', {
  skip: lacksPrlimit,
}, async () => {
  const outcomes = await run([path.join(root, 'test/helpers/short-of-memory.mjs')])
  for (const { spare, outcome, isUsable } of outcomes) {
    assert.ok(['done', 'OUT_OF_MEMORY'].includes(outcome), `with ${spare} MB: ${outcome}`)
    assert.ok(isUsable, `after ${spare} MB`)
  }
  assert.equal(outcomes.at(-1).outcome, 'OUT_OF_MEMORY')
})

test('loading and disposing again and again takes no more memory than once', async () => {
  const script = `
    import { KandinskyV22Pipeline } from '${pathToFileURL(path.join(root, 'dist/index.js'))}'
    const round = async () => {
      const pipe = await KandinskyV22Pipeline.fromPretrained('${decoder}', { threads: 1 })
      const { weights } = pipe.components.unet.memory()
      await pipe.dispose()
      return weights
    }
    const resident = async (rounds) => {
      for (let i = 0; i < rounds; i++) await round()
      gc()
      return process.memoryUsage.rss()
    }
    const before = await resident(10)
    const after = await resident(20)
    console.log((after - before) / await round())`
  const networks = await run(['--expose-gc', '--input-type=module', '--eval', script])
  assert.ok(networks < 5, `after 20 more rounds the memory of ${networks} more networks is held`)
})

const lacksSmaps = process.platform === 'linux' ? false : 'only Linux tells what is resident of a mapping'
test('networks give back the pages of mapped weights: in a loop when asked, else after each run', {
  skip: lacksSmaps,
}, async (t) => {
  const file = path.join(temporaryFolder(t), 'decoder.gguf')
  await convert(decoder, file, { weights: 'f16' })
  const residentBytes = () => {
    const mappings = readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)
    const sizes = mappings.filter((text) => text.includes(file)).map((text) => Number(/^Rss:\s+(\d+)/m.exec(text)[1]))
    return sizes.reduce((sum, kilobytes) => sum + kilobytes, 0) * 1024
  }
  const pipe = await KandinskyV22Pipeline.fromPretrained(file, { threads: 1 })
  t.after(() => pipe.dispose())
  const { unet, movq } = pipe.components
  const latents = new Generator(1).randn([1, 4, 8, 8])
  const few = 200_000 // the last page of each mapping may stay, and pages have up to 64 KB
  const denoise = () =>
    unet.run('forward', {
      ...{ sample: latents, image_embeds: new Generator(2).randn([1, 128]) },
      timestep: new Tensor(new Float32Array([500]), [1]),
    })

  const first = await denoise()
  assert.ok(residentBytes() > 1e6, `${residentBytes()} bytes of a UNet that ran`)
  await unet.releaseWeights()
  assert.ok(residentBytes() < few, `${residentBytes()} bytes of a UNet that released its pages`)
  assert.deepEqual(await denoise(), first)
  await unet.releaseWeights()

  await movq.run('decode', { latents })
  assert.ok(residentBytes() < few, `${residentBytes()} bytes of a MoVQ that ran`)
  await pipe.generate({
    ...{ imageEmbeds: new Generator(3).randn([1, 128]), negativeImageEmbeds: new Generator(4).randn([1, 128]) },
    ...{ height: 64, width: 64, numInferenceSteps: 1, generator: new Generator(5) },
  })
  assert.ok(residentBytes() < few, `${residentBytes()} bytes after a picture`)
})

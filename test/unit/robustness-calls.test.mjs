// Aborts, disposal, throwing callbacks and calls at once: whatever happens to one call, every other one gives, bit by
// bit, what it gives alone.
import assert from 'node:assert/strict'
import os from 'node:os'
import path from 'node:path'
import test from 'node:test'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import {
  convert,
  Generator,
  KandinskyV22CombinedPipeline,
  KandinskyV22ControlnetPipeline,
  KandinskyV22Img2ImgPipeline,
  KandinskyV22InpaintPipeline,
  KandinskyV22Pipeline,
  RawImage,
  Tensor,
} from '../../dist/index.js'
import { checkpoint } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const decoder = checkpoint('kandinsky-2-2-decoder')
const prior = checkpoint('kandinsky-2-2-prior')
const short = { height: 64, width: 64, numInferenceSteps: 2 }

const textCall = (seed = 3) => ({
  ...{ prompt: 'a red apple', priorNumInferenceSteps: 2, ...short },
  generator: new Generator(seed),
})
/** Fresh tensors and generator, equal in every call. */
const embedsCall = (seed = 3) => {
  const random = new Generator(1)
  const [imageEmbeds, negativeImageEmbeds] = [random.randn([1, 128]), random.randn([1, 128])]
  return { imageEmbeds, negativeImageEmbeds, ...short, generator: new Generator(seed) }
}

const pixels = ({ images }) => images.map(({ data }) => Buffer.from(data).toString('base64'))

async function load(t, Pipeline, source, options = {}) {
  const pipe = await Pipeline.fromPretrained(source, { threads: 1, ...options })
  t.after(() => pipe.dispose())
  return pipe
}

test('aborts at any moment reject with their reason and change no later result', async (t) => {
  const pipe = await load(t, KandinskyV22CombinedPipeline, decoder, { prior })
  const expected = pixels(await pipe.generate(textCall()))
  const started = performance.now()
  await pipe.generate(textCall())
  const duration = performance.now() - started
  const folder = temporaryFolder(t)
  const jobs = {
    load: async (signal) => {
      const other = await KandinskyV22CombinedPipeline.fromPretrained(decoder, { prior, threads: 1, signal })
      await other.dispose()
    },
    convert: (signal) => convert(decoder, path.join(folder, 'model.gguf'), { weights: 'q8_0', signal }),
    generate: async (signal) => assert.deepEqual(pixels(await pipe.generate({ ...textCall(), signal })), expected),
    stream: async (signal) => {
      for await (const event of pipe.stream({ ...textCall(), signal })) assert.ok(event.type)
    },
  }
  let aborted = 0
  for (let round = 0; round < 10; round++)
    for (const [name, job] of Object.entries(jobs)) {
      const controller = new AbortController()
      const reason = new Error(`${name} ${round}`)
      const outcome = job(controller.signal).then(
        () => 'done',
        (error) => {
          assert.equal(error, reason)
          aborted++
        },
      )
      // Evenly over the call: 0 aborts within the first turn of the event loop.
      await (round === 0 ? nextTurn() : sleep((duration * round) / 10))
      controller.abort(reason)
      await outcome
    }
  assert.ok(aborted >= 4, `${aborted} of 40 calls were stopped; those of the first round are for sure`)
  assert.deepEqual(pixels(await pipe.generate(textCall())), expected)
})

test('dispose during a call lets it end or rejects it, and refuses what comes after', async () => {
  const reference = await KandinskyV22Pipeline.fromPretrained(decoder, { threads: 1 })
  const expected = pixels(await reference.generate(embedsCall()))
  await reference.dispose()
  for (const delay of [0, 1, 5, 20, 60, 150]) {
    const pipe = await KandinskyV22Pipeline.fromPretrained(decoder, { threads: 1 })
    const calls = [pipe.generate(embedsCall()), pipe.generate(embedsCall())].map((call) =>
      call.then(
        (result) => assert.deepEqual(pixels(result), expected),
        ({ code }) => assert.equal(code, 'DISPOSED'),
      ),
    )
    await sleep(delay)
    await pipe.dispose()
    await Promise.all(calls)
    await assert.rejects(pipe.generate(embedsCall()), { code: 'DISPOSED' })
    await pipe.dispose()
  }
})

test('calls and pipelines at once give what they give one after the other', async (t) => {
  const file = path.join(temporaryFolder(t), 'model.gguf')
  await convert(decoder, file, { prior, skipZeroImage: true })
  const pipes = [
    await load(t, KandinskyV22Pipeline, decoder),
    await load(t, KandinskyV22Pipeline, file),
    await load(t, KandinskyV22Pipeline, decoder, { offload: 'model' }),
  ]
  const seeds = [1, 2, 3]
  const alone = []
  for (const seed of seeds) alone.push(pixels(await pipes[0].generate(embedsCall(seed))))
  assert.equal(new Set(alone.flat()).size, seeds.length)
  const together = await Promise.all(
    pipes.flatMap((pipe) => seeds.map(async (seed) => pixels(await pipe.generate(embedsCall(seed))))),
  )
  for (const [i, result] of together.entries()) assert.deepEqual(result, alone[i % seeds.length], `call ${i}`)
})

test('the result does not depend on the number of threads or on the run', async (t) => {
  const results = []
  // More threads than cores spend their time waiting for each other.
  for (const threads of [1, 1, 2, 3, 5].filter((count) => count <= os.availableParallelism())) {
    const pipe = await load(t, KandinskyV22CombinedPipeline, decoder, { prior, threads })
    results.push(pixels(await pipe.generate({ ...textCall(), numInferenceSteps: 1, priorNumInferenceSteps: 1 })))
  }
  for (const result of results) assert.deepEqual(result, results[0])
})

test('inputs may be changed as soon as the call has returned its promise', async (t) => {
  const picture = () =>
    new RawImage(
      Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7) % 251),
      64,
      64,
    )
  const mask = () =>
    new RawImage(
      Uint8Array.from({ length: 64 * 64 }, (_, i) => (i % 64 < 32 ? 0 : 255)),
      64,
      64,
      1,
    )
  const latents = () => new Generator(8).randn([1, 4, 8, 8])
  const hint = () =>
    new Tensor(
      Float32Array.from({ length: 3 * 64 * 64 }, (_, i) => (i % 97) / 97),
      [3, 64, 64],
    )
  const cases = [
    [KandinskyV22Pipeline, decoder, () => ({ latents: latents() })],
    [KandinskyV22Img2ImgPipeline, decoder, () => ({ image: picture(), strength: 0.5 })],
    [KandinskyV22Img2ImgPipeline, decoder, () => ({ image: latents(), strength: 0.5 })],
    [
      KandinskyV22InpaintPipeline,
      checkpoint('kandinsky-2-2-decoder-inpaint'),
      () => ({ image: picture(), maskImage: mask() }),
    ],
    [KandinskyV22ControlnetPipeline, checkpoint('kandinsky-2-2-controlnet-depth'), () => ({ hint: hint() })],
  ]
  for (const [Pipeline, source, inputs] of cases) {
    const pipe = await load(t, Pipeline, source)
    const expected = pixels(await pipe.generate({ ...embedsCall(), ...inputs() }))
    const options = { ...embedsCall(), ...inputs() }
    const call = pipe.generate(options)
    for (const [name, value] of Object.entries(options)) {
      value.data?.fill(0.25)
      if (name !== 'generator') options[name] = undefined
    }
    assert.deepEqual(pixels(await call), expected, `${Pipeline.name} with ${Object.keys(inputs())}`)
  }
})

test('what a callback or a generator throws rejects the call, and the next one is right', async (t) => {
  const pipe = await load(t, KandinskyV22Pipeline, decoder)
  const expected = pixels(await pipe.generate(embedsCall()))
  const thrown = new RangeError('from the caller')
  const fail = () => {
    throw thrown
  }
  const isThrown = (error) => error === thrown
  const bad = [{ onStep: fail }, { callbackOnStepEnd: fail }, { callbackOnStepEnd: async () => fail() }]
  for (const change of [...bad, { generator: { randn: fail } }]) {
    await assert.rejects(pipe.generate({ ...embedsCall(), ...change }), isThrown)
    await assert.rejects(async () => {
      for await (const _ of pipe.stream({ ...embedsCall(), ...change }));
    }, isThrown)
  }
  await assert.rejects(KandinskyV22Pipeline.fromPretrained(decoder, { onProgress: fail }), isThrown)
  for (const draw of [undefined, 5, new Float32Array(256), new Generator(1).randn([1, 4, 8, 4])])
    await assert.rejects(pipe.generate({ ...embedsCall(), generator: { randn: () => draw } }), {
      name: 'KandinskyError',
      message: /randn|generator|noise/,
    })
  const replaced = { latents: new Tensor(new Float32Array(4), [4]) }
  await assert.rejects(pipe.generate({ ...embedsCall(), callbackOnStepEnd: () => replaced }), {
    code: 'SHAPE_MISMATCH',
  })
  assert.deepEqual(pixels(await pipe.generate(embedsCall())), expected)
})

test('a stream that is left early stops its call', async (t) => {
  const pipe = await load(t, KandinskyV22Pipeline, decoder)
  const expected = pixels(await pipe.generate(embedsCall()))
  let steps = 0
  const options = { ...embedsCall(), numInferenceSteps: 50, onStep: () => steps++ }
  for await (const event of pipe.stream(options)) if (event.step === 2) break
  assert.ok(steps < 50, `${steps} steps ran`)
  const unread = pipe.stream(options)
  await unread.return() // before its first step, nothing has begun
  assert.deepEqual(pixels(await pipe.generate(embedsCall())), expected)
})

test('a prompt of more than 77 tokens is cut, with a warning that quotes what is lost', async (t) => {
  const pipe = await load(t, KandinskyV22CombinedPipeline, decoder, { prior })
  const prompt = 'apple '.repeat(100)
  const warnings = []
  const listen = (warning) => warnings.push(String(warning))
  process.on('warning', listen)
  t.after(() => process.off('warning', listen))
  await pipe.generate({ ...textCall(), prompt })
  await nextTurn()
  assert.match(warnings.join('\n'), /77 tokens.*apple/s)
})

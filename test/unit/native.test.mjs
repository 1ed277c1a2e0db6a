import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { copyFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import test from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import { KandinskyError } from '../../dist/errors.js'
import { binding } from '../../dist/native.js'
import { temporaryFolder } from '../helpers/files.mjs'
import { addonPath, root, textEncoderJob, textInputs } from '../helpers/native.mjs'

const native = binding()
const job = textEncoderJob(native)
const load = (changes, onProgress) => native.loadNetwork({ ...job, ...changes }, onProgress)

const dist = (file) => pathToFileURL(path.join(root, 'dist', file)).href
const helper = pathToFileURL(path.join(root, 'test/helpers/native.mjs')).href

/** Runs a script in a process of its own and returns what it prints. */
async function script(source, { args = [], env = {} } = {}) {
  const options = { env: { ...process.env, ...env } }
  const node = [...args, '--input-type=module', '--eval', source]
  return (await promisify(execFile)(process.execPath, node, options)).stdout.trim()
}

test('importing the package does not load the addon', async () => {
  const loaded = await script(`
    await import('${dist('index.js')}')
    console.log(process.report.getReport().sharedObjects.filter((name) => name.endsWith('kandinsky.node')).length)`)
  assert.equal(loaded, '0')
})

test('an addon that is missing or not allowed is explained', async (t) => {
  const failing = `
    const { binding } = await import('${dist('native.js')}')
    try { binding() } catch (error) { console.log(error.name, error.code, error.message) }`
  const missing = await script(failing, { env: { NODE_KANDINSKY_PREBUILD: temporaryFolder(t) } })
  assert.match(missing, /^KandinskyError NATIVE_LOAD_FAILED No native addon was found/)
  assert.match(missing, new RegExp(`${process.platform}-${process.arch}`))
  assert.match(missing, /install it again on this one.*doctor/s)
  assert.match(missing, /docs\/building\.md/)
  const forbidden = await script(failing, { args: ['--no-addons'] })
  assert.match(forbidden, /NATIVE_LOAD_FAILED.*--no-addons/)
})

test('the addon says what it is', () => {
  const { ggml, cuda, cpuVariant } = native.info()
  assert.match(ggml, /^\d+\.\d+\.\d+/)
  assert.equal(typeof cuda, 'boolean')
  assert.equal(typeof cpuVariant, 'string')
  assert.ok(native.networkClasses().includes(job.className))
  const cpu = native.devices().find(({ name }) => name === 'cpu')
  assert.equal(cpu.kind, 'cpu')
  assert.ok(cpu.totalBytes > 0)
})

test('KANDINSKY_CPU forces an instruction set, and a name that this machine does not have is an error', async () => {
  const embed = async (KANDINSKY_CPU) => {
    const printed = await script(
      `
        import { binding } from '${dist('native.js')}'
        import { textEncoderJob, textInputs } from '${helper}'
        const native = binding()
        try {
          const network = await native.loadNetwork(textEncoderJob(native))
          const { text_embeds } = await network.run('forward', textInputs(), {})
          console.log(JSON.stringify({ values: [...text_embeds.data] }))
        } catch ({ name, code, message }) {
          console.log(JSON.stringify({ name, code, message }))
        }`,
      { env: { KANDINSKY_CPU } },
    )
    return JSON.parse(printed)
  }
  const { name, code, message } = await embed('z80')
  assert.deepEqual([name, code], ['KandinskyError', 'INVALID_ARGUMENT'])
  const known = /^Expected one of (.+) for KANDINSKY_CPU but received z80$/.exec(message)?.[1].split(', ')
  assert.ok(known?.includes('portable'), message)
  const elsewhere = process.arch === 'arm64' ? 'avx2' : 'neon'
  assert.equal((await embed(elsewhere)).code, 'INVALID_ARGUMENT')

  const { values: expected } = await embed('portable')
  const largest = Math.max(...expected.map(Math.abs))
  for (const variant of known) {
    const { values } = await embed(variant)
    const difference = Math.max(...values.map((value, i) => Math.abs(value - expected[i])))
    // NaN fails, too. Variants that round to bfloat16 differ most in networks as small as this one.
    assert.ok(difference <= 0.06 * largest, `${variant} differs by ${difference}, the largest value is ${largest}`)
  }
})

test('errors are KandinskyErrors with the stack of the caller', async () => {
  async function callerOfReadGguf() {
    await native.readGguf('/nowhere/model.gguf')
  }
  await assert.rejects(callerOfReadGguf, (error) => {
    assert.ok(error instanceof KandinskyError)
    assert.equal(error.code, 'FILE_NOT_FOUND')
    assert.match(error.message, /\/nowhere\/model\.gguf/)
    assert.match(error.stack, /callerOfReadGguf/)
    return true
  })
  assert.throws(() => native.describeNetwork('Nothing', 'unet', {}), KandinskyError)
})

test('wrong arguments are refused with their name', async () => {
  const tensor = job.tensors[0]
  const refused = [
    [/for job but/, () => native.loadNetwork()],
    [/for job.className/, () => load({ className: 7 })],
    [/for job.threads but received -1/, () => load({ threads: -1 })],
    [/for job.threads/, () => load({ threads: 1.5 })],
    [/for job.cancel/, () => load({ cancel: {} })],
    [/for job.cancel/, () => load({ cancel: Object.create(native.CancelFlag.prototype) })],
    [/for job.config.a but received null/, () => load({ config: { a: null } })],
    [/for job.config.a\[1\] but received "x"/, () => load({ config: { a: [1, 'x'] } })],
    [/for job.config.a but received NaN/, () => load({ config: { a: NaN } })],
    [/for job.tensors but/, () => load({ tensors: 5 })],
    [/for job.tensors\[0\] but/, () => load({ tensors: [null] })],
    [/for job.tensors\[0\].offset/, () => load({ tensors: [{ ...tensor, offset: -1 }] })],
    [/for job.tensors\[0\].bytes/, () => load({ tensors: [{ ...tensor, bytes: 2 ** 53 }] })],
    [/for job.tensors\[0\].shape\[0\]/, () => load({ tensors: [{ ...tensor, shape: [1.5] }] })],
    [/"q9_9"/, () => load({ tensors: [{ ...tensor, target: 'q9_9' }] })],
    [/NUL/, () => native.readGguf('model\0.gguf')],
    [/for path but received undefined/, () => native.readGguf()],
    [/for onProgress/, () => load({}, 'progress')],
  ]
  for (const [message, call] of refused)
    await assert.rejects(async () => call(), { name: 'KandinskyError', code: 'INVALID_ARGUMENT', message })
})

test('wrong inputs of a network are refused with their name', async () => {
  const network = await load()
  const run = (input) => network.run('forward', { input_ids: input }, {})
  const detached = new Int32Array(77)
  structuredClone(detached, { transfer: [detached.buffer] })
  const refused = [
    ['INVALID_ARGUMENT', /inputs.input_ids but received 5/, 5],
    ['INVALID_ARGUMENT', /inputs.input_ids.data/, { data: new Float64Array(77), shape: [1, 77] }],
    ['INVALID_ARGUMENT', /inputs.input_ids.data/, { data: Array(77).fill(0), shape: [1, 77] }],
    ['INVALID_ARGUMENT', /inputs.input_ids.shape/, { data: new Int32Array(77), shape: 77 }],
    ['INVALID_ARGUMENT', /inputs.input_ids.shape/, { data: new Int32Array(1), shape: [] }],
    ['INVALID_ARGUMENT', /inputs.input_ids.shape\[0\]/, { data: new Int32Array(77), shape: [-1, -77] }],
    ['SHAPE_MISMATCH', /Expected 77 values.*received 76/, { data: new Int32Array(76), shape: [1, 77] }],
    ['SHAPE_MISMATCH', /received 0/, { data: detached, shape: [1, 77] }],
    ['BAD_FILE', /too large/, { data: new Int32Array(1), shape: [2 ** 40, 2 ** 40] }],
  ]
  for (const [code, message, input] of refused) await assert.rejects(run(input), { code, message })
  await assert.rejects(network.run('forward', {}, {}), KandinskyError)
  await assert.rejects(network.run('backward', textInputs(), {}), KandinskyError)
  const { text_embeds } = await network.run('forward', textInputs(), {})
  assert.equal(text_embeds.data.length, text_embeds.shape[0] * text_embeds.shape[1])
  await network.dispose()
})

test('inputs are copied before the call returns, and calls run in order', async () => {
  const network = await load()
  const expected = await network.run('forward', textInputs(3), {})
  const inputs = textInputs(3)
  const order = []
  const calls = [1, 2, 3].map((call) =>
    network.run('forward', inputs, {}).then((result) => {
      order.push(call)
      return result
    }),
  )
  inputs.input_ids.data.fill(1)
  for (const result of await Promise.all(calls)) assert.deepEqual(result, expected)
  assert.deepEqual(order, [1, 2, 3])
  await network.dispose()
})

test('dispose waits for the running call and refuses the rest', async () => {
  const network = await load()
  const { weights } = network.memory()
  assert.ok(weights > 0)
  const order = []
  const running = network.run('forward', textInputs(1000), {}).then(
    () => order.push('running'),
    ({ code }) => order.push(code),
  )
  const waiting = network.run('forward', textInputs(), {})
  await new Promise((resolve) => setTimeout(resolve, 20))
  const disposed = network.dispose().then(() => order.push('disposed'))
  await assert.rejects(waiting, { code: 'DISPOSED' })
  await assert.rejects(network.run('forward', textInputs(), {}), { code: 'DISPOSED' })
  await disposed
  await running
  // On a machine so busy that the first call was not on its thread within those 20 ms, that is refused, too.
  assert.ok(['running,disposed', 'DISPOSED,disposed'].includes(order.join()), order.join())
  await network.dispose()
  assert.deepEqual(network.memory(), { weights: 0, compute: 0 })
})

test('a cancelled call rejects and leaves the network usable', async () => {
  const network = await load()
  const expected = await network.run('forward', textInputs(), {})
  const cancel = new native.CancelFlag()
  const call = network.run('forward', textInputs(500), { cancel })
  const next = network.run('forward', textInputs(), {})
  cancel.cancel()
  await assert.rejects(call, { name: 'AbortError' })
  assert.deepEqual(await next, expected)
  await assert.rejects(network.run('forward', textInputs(), { cancel }), { name: 'AbortError' })
  await network.dispose()
  await assert.rejects(load({ cancel }), { name: 'AbortError' })
})

test('progress comes in order, ends with everything and never after the promise', async () => {
  const events = []
  const network = await load({}, (done, total) => events.push([done, total]))
  const count = events.length
  assert.ok(count > 0)
  const [done, total] = events.at(-1)
  assert.equal(done, total)
  assert.deepEqual(events, events.toSorted?.((a, b) => a[0] - b[0]) ?? events)
  await network.dispose()
  assert.equal(events.length, count)
})

test('what a progress callback throws rejects the call', async () => {
  const thrown = new RangeError('from the callback')
  const throwing = () => {
    throw thrown
  }
  await assert.rejects(load({}, throwing), (error) => error === thrown)
  await (await load()).dispose()
})

test('methods on foreign objects throw', async () => {
  const { cancel } = native.CancelFlag.prototype
  for (const foreign of [{}, null, undefined, 5, new Map(), Object.create(native.CancelFlag.prototype)])
    assert.throws(() => cancel.call(foreign), TypeError)
  assert.throws(() => native.CancelFlag(), TypeError)
  const { run, dispose } = await load()
  await run.call({}, 'forward', textInputs(), {})
  await dispose.call(null)
})

const isSanitized = process.env.KANDINSKY_SANITIZED ? 'sanitizers keep freed memory for a while' : false
test('a network that nobody disposed is freed by the garbage collector, but not while it runs', {
  skip: isSanitized,
}, async () => {
  const memory = await script(
    `
    import { setTimeout } from 'node:timers/promises'
    import { binding } from '${dist('native.js')}'
    import { textEncoderJob, textInputs } from '${helper}'
    const job = textEncoderJob(binding(), { vocab_size: 200_000 })
    const collect = async () => { for (let i = 0; i < 5; ++i) { gc(); await setTimeout(1) } }
    const resident = [process.memoryUsage.rss()]
    let networks = []
    for (let i = 0; i < 4; ++i) networks.push(await binding().loadNetwork(job))
    resident.push(process.memoryUsage.rss())
    const runs = networks.map((network) => network.run('forward', textInputs(20), {}))
    networks = undefined
    await collect()
    await Promise.all(runs)
    await collect()
    resident.push(process.memoryUsage.rss())
    const { weights } = (await binding().loadNetwork(job)).memory()
    console.log(JSON.stringify(resident.map((bytes) => bytes / weights)))`,
    { args: ['--expose-gc'] },
  )
  const [before, during, after] = JSON.parse(memory)
  assert.ok(during - before > 3, `four networks take the memory of ${during - before}`)
  assert.ok(after - before < 2, `afterwards the memory of ${after - before} networks is still held`)
})

test('a worker can be terminated while it loads and while it runs', async () => {
  for (let round = 0; round < 8; ++round) {
    const worker = new Worker(
      `(async () => {
        const { parentPort } = require('node:worker_threads')
        const { binding } = await import('${dist('native.js')}')
        const { textEncoderJob, textInputs } = await import('${helper}')
        const job = textEncoderJob(binding())
        const loading = binding().loadNetwork(job, () => {})
        if (${round} % 2 === 0) parentPort.postMessage('loading')
        const network = await loading
        network.run('forward', textInputs(500), {})
        network.run('forward', textInputs(500), {})
        parentPort.postMessage('running')
      })()`,
      { eval: true },
    )
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
    await worker.terminate()
  }
  await (await load()).dispose()
})

test('workers and the main thread compute at the same time', async () => {
  const source = `(async () => {
    const { parentPort } = require('node:worker_threads')
    const { binding } = await import('${dist('native.js')}')
    const { textEncoderJob, textInputs } = await import('${helper}')
    const network = await binding().loadNetwork(textEncoderJob(binding()))
    const { text_embeds } = await network.run('forward', textInputs(2), {})
    await network.dispose()
    parentPort.postMessage(text_embeds.data)
  })()`
  const network = await load()
  const { text_embeds } = await network.run('forward', textInputs(2), {})
  const results = await Promise.all(
    [1, 2].map(async () => {
      const worker = new Worker(source, { eval: true })
      const result = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
      await worker.terminate()
      return result
    }),
  )
  for (const result of results) assert.deepEqual(result, text_embeds.data)
  await network.dispose()
})

test('two copies of the addon live in one process', async (t) => {
  const copyPath = path.join(temporaryFolder(t), 'copy.node')
  copyFileSync(addonPath, copyPath)
  const copy = createRequire(import.meta.url)(copyPath)
  assert.notEqual(copy.loadNetwork, createRequire(import.meta.url)(addonPath).loadNetwork)
  const networks = await Promise.all([copy.loadNetwork(job), load()])
  const [a, b] = await Promise.all(networks.map((network) => network.run('forward', textInputs(2), {})))
  assert.deepEqual(a, b)
  await assert.rejects(async () => copy.loadNetwork({ ...job, tensors: [] }), { code: 'BAD_FILE' })
  await Promise.all(networks.map((network) => network.dispose()))
})

test('process.exit() during a call ends the process with its code', async () => {
  const exiting = script(`
    import { binding } from '${dist('native.js')}'
    import { textEncoderJob, textInputs } from '${helper}'
    const network = await binding().loadNetwork(textEncoderJob(binding()))
    network.run('forward', textInputs(500), {})
    setTimeout(() => process.exit(7), 20)`)
  await assert.rejects(exiting, { code: 7 })
})

test('an uncaught exception during a call ends the process as one without a call does', async () => {
  const failing = script(`
    import { binding } from '${dist('native.js')}'
    import { textEncoderJob, textInputs } from '${helper}'
    const network = await binding().loadNetwork(textEncoderJob(binding()))
    network.run('forward', textInputs(500), {})
    setTimeout(() => { throw new Error('mine') }, 20)`)
  await assert.rejects(failing, { code: 1, stderr: /Error: mine/ })
})

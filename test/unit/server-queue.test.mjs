// Several servers and workers on one queue: a real Redis, and processes as on machines of their own.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test, { after, before } from 'node:test'
import { AutoPipelineForText2Image, loadImage, RawImage, readRecipe } from '../../dist/index.js'
import { createQueueWorker, createServer } from '../../dist/server/index.js'
import { openResults } from '../../dist/server/results.js'
import { kandinskyIn, main } from '../helpers/cli.mjs'

const folder = mkdtempSync(path.join(tmpdir(), 'kandinsky-queue-'))
const results = path.join(folder, 'results')
const models = { demo: { source: 'demo', inpainting: 'demo-inpaint', threads: 1, device: 'cpu' } }
let queue
let redis

async function freePort() {
  const probe = net.createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address()
  probe.close()
  return port
}

async function startRedis(port) {
  const options = ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder]
  const child = spawn('redis-server', options.map(String), { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  for await (const text of child.stdout.setEncoding('utf8')) {
    output += text
    if (output.includes('Ready to accept')) break
  }
  return child
}

async function stop(child) {
  child.kill()
  if (child.exitCode === null) await once(child, 'exit')
}

before(async () => {
  const port = await freePort()
  redis = await startRedis(port)
  queue = `redis://127.0.0.1:${port}`
})
after(async () => {
  await stop(redis)
  rmSync(folder, { recursive: true, force: true })
})

async function serverOf(t, options = {}) {
  const server = await createServer({ port: 0, models, queue, results, ...options })
  t.after(() => server.close())
  return server.url
}

async function workerOf(t, options = {}) {
  const worker = await createQueueWorker({ queue, results, models, ...options })
  t.after(() => worker.close())
  return worker
}

/** `kandinsky worker` as a process, once it waits for jobs; `events` are what it logs. */
async function workerProcess(t, ...more) {
  const args = [
    'worker',
    '--queue',
    queue,
    '--results',
    results,
    '--threads',
    '1',
    '--device',
    'cpu',
    '--json',
    ...more,
  ]
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  const events = []
  const working = new Promise((resolve) => {
    let rest = ''
    child.stdout.setEncoding('utf8').on('data', (text) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()
      for (const line of lines) events.push(JSON.parse(line))
      resolve()
    })
  })
  await working
  return { child, events }
}

const post = async (url, body) => {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  return response.json()
}
const get = async (url) => (await fetch(url)).json()
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

async function until(url, isSo) {
  while (true) {
    const job = await get(url)
    if (isSo(job)) return job
    await sleep(20)
  }
}
const isOver = ({ ended }) => ended !== undefined

test('one server takes a job, another one shows it: previews, the pictures that the library makes, recipes', async (t) => {
  const [one, other] = [await serverOf(t), await serverOf(t)]
  const { id, position } = await post(`${one}/jobs`, { prompt: 'a red apple', steps: 60, seed: 5, n: 2 })
  const next = await post(`${other}/jobs`, { prompt: 'a pear', steps: 2 })
  assert.deepEqual([position, next.position], [0, 1])
  await workerOf(t)
  const running = await until(`${other}/jobs/${id}`, ({ preview }) => preview !== undefined)
  assert.equal(running.state, 'running')
  assert.ok(running.progress.step > 0 && running.progress.steps === 60)
  const preview = await fetch(`${other}${running.preview}`)
  assert.equal((await loadImage(Buffer.from(await preview.arrayBuffer()))).width, 128)
  const done = await until(`${other}/jobs/${id}`, isOver)
  assert.equal(done.state, 'done', JSON.stringify(done))
  assert.deepEqual(
    done.pictures.map(({ recipe }) => recipe.seed),
    [5, 6],
  )
  const png = new Uint8Array(await (await fetch(`${one}${done.pictures[0].url}`)).arrayBuffer())
  assert.equal((await readRecipe(png)).numInferenceSteps, 60)
  const pipe = await AutoPipelineForText2Image.fromPretrained('demo')
  t.after(() => pipe.dispose())
  const { images } = await pipe.generate({ prompt: 'a red apple', numInferenceSteps: 60, seed: 5 })
  assert.deepEqual((await loadImage(png)).data, images[0].data)
  assert.equal((await until(`${one}/jobs/${next.id}`, isOver)).state, 'done')
})

test('pictures that come with a request reach the worker; what it refuses is said by the field', async (t) => {
  const url = await serverOf(t)
  await workerOf(t)
  const white = await new RawImage(new Uint8Array(128 * 128 * 3).fill(255), 128, 128, 3).toBuffer()
  const image = white.toString('base64')
  const { id } = await post(`${url}/jobs`, { prompt: 'a cat', steps: 2, seed: 1, image, mask: image })
  assert.equal((await until(`${url}/jobs/${id}`, isOver)).state, 'done')
  const mix = [
    { text: 'a cat', weight: 0.5 },
    { image, weight: 0.5 },
  ]
  assert.equal((await until(`${url}/jobs/${(await post(`${url}/jobs`, { mix, steps: 2 })).id}`, isOver)).state, 'done')
  const bad = await post(`${url}/jobs`, { prompt: 'a cat', image: Buffer.from('no picture!!').toString('base64') })
  assert.equal((await until(`${url}/jobs/${bad.id}`, isOver)).error.field, 'image')
})

test('a worker that is killed loses no job: the other one makes the same picture', async (t) => {
  const url = await serverOf(t)
  const [one, two] = [await workerProcess(t), await workerProcess(t)]
  const request = { prompt: 'a red apple', steps: 200, seed: 7 }
  const jobs = await Promise.all([post(`${url}/jobs`, request), post(`${url}/jobs`, { ...request, seed: 8 })])
  const urls = jobs.map(({ id }) => `${url}/jobs/${id}`)
  for (const each of urls) await until(each, ({ progress }) => progress.step > 5) // both compute
  one.child.kill('SIGKILL')
  const ended = await Promise.all(urls.map((each) => until(each, isOver)))
  assert.deepEqual(
    ended.map(({ state, pictures }) => [state, pictures[0].recipe.seed]),
    [
      ['done', 7],
      ['done', 8],
    ],
  )
  const made = two.events.filter(({ type, state }) => type === 'job' && state === 'done')
  assert.deepEqual(made.map(({ id }) => id).sort(), jobs.map(({ id }) => id).sort())
})

test('cancelling crosses machines, waiting or running, and is remembered', async (t) => {
  const [one, other] = [await serverOf(t), await serverOf(t)]
  const waiting = await post(`${one}/jobs`, { prompt: 'a cat', steps: 2 })
  await fetch(`${other}/jobs/${waiting.id}`, { method: 'DELETE' })
  for (const url of [one, other]) assert.equal((await until(`${url}/jobs/${waiting.id}`, isOver)).state, 'cancelled')
  const events = []
  await workerOf(t, { onEvent: (event) => event.event === 'job' && events.push(event) })
  const running = await post(`${one}/jobs`, { prompt: 'a cat', steps: 1000, n: 4 })
  await until(`${other}/jobs/${running.id}`, ({ state }) => state === 'running')
  await fetch(`${other}/jobs/${running.id}`, { method: 'DELETE' })
  for (const url of [one, other]) assert.equal((await until(`${url}/jobs/${running.id}`, isOver)).state, 'cancelled')
  const leaving = new AbortController()
  const blocked = fetch(`${one}/v1/images/generations`, {
    ...{ method: 'POST', headers: { 'content-type': 'application/json' }, signal: leaving.signal },
    body: JSON.stringify({ prompt: 'a cat', steps: 1000, n: 4 }),
  })
  while ((await get(`${other}/healthz`)).jobs === 0) await sleep(20)
  leaving.abort()
  await assert.rejects(blocked)
  while (events.length < 2) await sleep(20)
  assert.deepEqual(
    events.map(({ state }) => state),
    ['cancelled', 'cancelled'],
  )
})

test('a worker that is stopped gives its job back after the grace time', async (t) => {
  const url = await serverOf(t)
  const { child } = await workerProcess(t, '--grace', '0.2')
  const { id } = await post(`${url}/jobs`, { prompt: 'a cat', steps: 200, seed: 3 })
  await until(`${url}/jobs/${id}`, ({ progress }) => progress.step > 5)
  child.kill('SIGTERM')
  assert.deepEqual(await once(child, 'exit'), [0, null])
  assert.equal((await until(`${url}/jobs/${id}`, ({ state }) => state !== 'running')).state, 'queued')
  await workerOf(t)
  assert.equal((await until(`${url}/jobs/${id}`, isOver)).state, 'done')
})

test('a server that stops leaves jobs in the queue, and ends what a connection waits for after the grace time', async (t) => {
  const stopping = await createServer({ port: 0, models, queue, results, graceMs: 200 })
  const blocked = post(`${stopping.url}/v1/images/generations`, { prompt: 'a cat' })
  const { id } = await post(`${stopping.url}/jobs`, { prompt: 'a cat', steps: 2 })
  const stream = await fetch(`${stopping.url}/jobs/${id}/events`)
  while ((await get(`${stopping.url}/healthz`)).jobs < 2) await sleep(20)
  await stopping.close()
  assert.equal((await blocked).error.code, 'shutting_down')
  assert.match(await stream.text(), /event: queued/)
  const url = await serverOf(t)
  assert.equal((await get(`${url}/jobs/${id}`)).state, 'queued')
  await workerOf(t)
  assert.equal((await until(`${url}/jobs/${id}`, isOver)).state, 'done')
})

test('workers take jobs of the models that they have, one at a time', async (t) => {
  const both = { ...models, other: models.demo }
  const url = await serverOf(t, { models: both })
  const jobs = []
  for (const model of ['other', 'demo', 'other', 'demo'])
    jobs.push(await post(`${url}/jobs`, { model, prompt: 'a cat', steps: 20 }))
  const only = await workerOf(t)
  for (const i of [1, 3]) assert.equal((await until(`${url}/jobs/${jobs[i].id}`, isOver)).state, 'done')
  assert.equal((await get(`${url}/jobs/${jobs[0].id}`)).state, 'queued')
  await only.close()
  await workerOf(t, { models: both })
  jobs.push(await post(`${url}/jobs`, { prompt: 'a cat', steps: 20 }))
  const ended = await Promise.all([0, 2, 4].map((i) => until(`${url}/jobs/${jobs[i].id}`, isOver)))
  const spans = ended.map(({ state, started, ended: end }) => ({ state, started, end })).sort((a, b) => a.end - b.end)
  for (const [i, { state, started }] of spans.entries()) {
    assert.equal(state, 'done')
    assert.ok(i === 0 || started >= spans[i - 1].end - 50, 'after the one before it') // clocks of events
  }
})

test('limits hold for the whole queue; what was kept long enough is deleted, its files too', async (t) => {
  const url = await serverOf(t, { maxJobs: 1, keepMs: 500 })
  const files = () => readdirSync(results).length
  const before = files()
  const { id } = await post(`${url}/jobs`, { prompt: 'a cat', steps: 2 })
  assert.equal(
    (await post(`${await serverOf(t, { maxJobs: 1 })}/jobs`, { prompt: 'a cat' })).error.code,
    'rate_limit_exceeded',
  )
  await workerOf(t)
  assert.equal((await until(`${url}/jobs/${id}`, isOver)).state, 'done')
  assert.equal(files(), before + 1)
  await until(`${url}/jobs/${id}`, ({ error }) => error?.code === 'not_found')
  while (files() > before) await sleep(20)
})

test('a Redis that went away is 503, and all goes on when it is back', async (t) => {
  const port = await freePort()
  const away = { queue: `redis://127.0.0.1:${port}` }
  const first = await startRedis(port)
  const url = await serverOf(t, away)
  await workerOf(t, away)
  await stop(first)
  assert.equal((await fetch(`${url}/healthz`)).status, 503)
  const draw = () => post(`${url}/v1/images/generations`, { prompt: 'a cat', steps: 2 })
  assert.equal((await draw()).error.code, 'queue_unreachable')
  const second = await startRedis(port)
  t.after(() => stop(second))
  while ((await fetch(`${url}/healthz`)).status !== 200) await sleep(20)
  assert.equal((await draw()).data.length, 1)
})

test('what a queue needs is said: results, a Redis that is there, flags of a worker', async () => {
  for (const option of ['memory', 'maxLoaded', 'keepBytes'])
    await assert.rejects(createServer({ port: 0, queue, results, [option]: 1e9 }), {
      code: 'INVALID_ARGUMENT',
      message: new RegExp(`whose workers.* for ${option}`),
    })
  await assert.rejects(createQueueWorker({ queue, results, graceMs: '3' }), {
    code: 'INVALID_ARGUMENT',
    message: /graceMs/,
  })
  await assert.rejects(createServer({ port: 0, queue }), /Expected results beside a queue/)
  await assert.rejects(createServer({ port: 0, queue: 'redis://127.0.0.1:1', results }), /Could not reach Redis/)
  const cli = (...args) => kandinskyIn(folder, args).stderr
  assert.match(cli('serve', '--queue', queue, '--results', results, '--threads', '1'), /--threads is for the workers/)
  assert.match(cli('worker', '--queue', queue), /--queue and --results together/)
})

test('results in a folder: whole files, and nothing outside it whatever the key', async () => {
  const where = path.join(folder, 'store')
  const store = await openResults(where)
  await store.put('job/0.png', Buffer.from('one'), 'image/png')
  assert.deepEqual(readdirSync(path.join(where, 'job')), ['0.png'])
  assert.equal(String(await store.get('job/0.png')), 'one')
  for (const key of ['../redis', 'job/../../redis', '..', ''])
    for (const use of [() => store.get(key), () => store.put(key, Buffer.from('x')), () => store.delete(key)])
      await assert.rejects(use(), { code: 'INVALID_ARGUMENT' })
  await store.delete('job/0.png')
  assert.equal(await store.get('job/0.png'), undefined)
  assert.deepEqual(readdirSync(where), [])
})

test('results in S3-compatible storage', async (t) => {
  const objects = new Map()
  const storage = createHttpServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray())
    assert.match(request.headers.authorization, /^AWS4-HMAC-SHA256 Credential=key\//)
    const { pathname } = new URL(request.url, 'http://x')
    if (request.method === 'PUT') objects.set(pathname, body)
    const found = objects.get(pathname)
    if (request.method === 'DELETE') objects.delete(pathname)
    if (request.method === 'GET' && !found) {
      response.writeHead(404, { 'content-type': 'application/xml' })
      return response.end('<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>no</Message></Error>')
    }
    response.writeHead(200).end(request.method === 'GET' ? found : '')
  }).listen(0, '127.0.0.1')
  await once(storage, 'listening')
  const environment = {
    AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${storage.address().port}`,
    ...{ AWS_ACCESS_KEY_ID: 'key', AWS_SECRET_ACCESS_KEY: 'secret', AWS_REGION: 'eu-west-1' },
  }
  Object.assign(process.env, environment)
  t.after(() => {
    for (const name of Object.keys(environment)) delete process.env[name]
    storage.close()
  })
  const where = 's3://pictures/some/where/'
  const url = await serverOf(t, { results: where })
  await workerOf(t, { results: where })
  const { data } = await post(`${url}/v1/images/generations`, { prompt: 'a cat', steps: 2, n: 2 })
  assert.equal((await loadImage(Buffer.from(data[1].b64_json, 'base64'))).width, 128)
  const names = [...objects.keys()]
  assert.equal(names.length, 2)
  assert.match(names[0], /^\/pictures\/some\/where\/[\da-f-]{36}\/0\.png$/)
  const store = await openResults(where)
  await store.delete(names[0].slice('/pictures/some/where/'.length))
  assert.deepEqual([...objects.keys()], [names[1]])
  assert.equal(await store.get('nothing'), undefined)
  storage.closeAllConnections()
})

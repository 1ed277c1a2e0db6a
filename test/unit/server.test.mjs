// kandinsky serve as its clients meet it: the official client of OpenAI's API, the calls of AUTOMATIC1111's users, jobs.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import test from 'node:test'
import OpenAI, { toFile } from 'openai'
import { AutoPipelineForText2Image, Generator, loadImage, RawImage, readRecipe } from '../../dist/index.js'
import { createHandler, createServer } from '../../dist/server/index.js'
import { main } from '../helpers/cli.mjs'

const quick = { prompt: 'a red apple', steps: 2 }

async function server(t, options = {}) {
  const started = await createServer({ port: 0, ...options })
  t.after(() => started.close())
  return started.url
}

const post = (url, body, headers = {}) =>
  fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
const get = async (url) => (await fetch(url)).json()

async function jobEnds(url, id) {
  while (true) {
    const job = await get(`${url}/jobs/${id}`)
    if (job.ended !== undefined) return job
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const picture = (colour, channels = 3) =>
  new RawImage(new Uint8Array(128 * 128 * channels).fill(colour), 128, 128, channels)

test("OpenAI's client gets the pictures that the library makes, each with a seed of its own", async (t) => {
  const client = new OpenAI({ baseURL: `${await server(t)}/v1`, apiKey: 'none' })
  const { data } = await client.images.generate({ ...quick, n: 2, seed: 5, response_format: 'b64_json' })
  assert.deepEqual(
    data.map(({ seed }) => seed),
    [5, 6],
  )
  const pipe = await AutoPipelineForText2Image.fromPretrained('demo')
  t.after(() => pipe.dispose())
  for (const [i, { b64_json }] of data.entries()) {
    const { images } = await pipe.generate({
      prompt: quick.prompt,
      numInferenceSteps: 2,
      generator: new Generator(5 + i),
    })
    const served = await loadImage(Buffer.from(b64_json, 'base64'))
    assert.deepEqual(served.data, images[0].data)
  }
  assert.deepEqual(
    (await client.models.list()).data.map(({ id }) => id),
    ['demo'],
  )
})

test('every extra field reaches the pipeline: the recipe of the picture says so', async (t) => {
  const client = new OpenAI({ baseURL: `${await server(t)}/v1`, apiKey: 'none' })
  const { data } = await client.images.generate({
    ...{ ...quick, model: 'gpt-image-1', size: '192x128', response_format: 'url' },
    ...{ seed: '6687881544318117707', negative_prompt: 'a pear', guidance_scale: 3, scheduler: 'euler' },
  })
  const recipe = await readRecipe(new Uint8Array(await (await fetch(data[0].url)).arrayBuffer()))
  assert.equal(recipe.seed, '6687881544318117707')
  assert.equal(recipe.negativePrompt, 'a pear')
  assert.equal(recipe.scheduler, 'EulerDiscreteScheduler')
  assert.deepEqual([recipe.numInferenceSteps, recipe.guidanceScale, recipe.width, recipe.height], [2, 3, 192, 128])
  // The scheduler of one request is not that of the next.
  const next = await client.images.generate({ ...quick, response_format: 'b64_json' })
  assert.equal((await readRecipe(Buffer.from(next.data[0].b64_json, 'base64'))).scheduler, 'DDIMScheduler')
})

test('edits start from a picture, and repaint it where the mask, or the picture itself, is transparent', async (t) => {
  const client = new OpenAI({ baseURL: `${await server(t)}/v1`, apiKey: 'none' })
  const file = async (image) => toFile(await image.toBuffer(), 'picture.png', { type: 'image/png' })
  const result = async (options) => {
    const { data } = await client.images.edit({ ...quick, seed: 1, ...options })
    return loadImage(Buffer.from(data[0].b64_json, 'base64'))
  }
  const white = picture(255)
  const kept = picture(255, 4)
  for (let y = 0; y < 128; y++) kept.data.fill(255, y * 512, y * 512 + 512)
  for (let i = 0; i < 64 * 128; i++) kept.data[i * 4 + 3] = 0
  const half = async (options) => {
    const { data } = await result(options)
    const mean = (part) => part.reduce((sum, value) => sum + value, 0) / part.length
    return [mean(data.subarray(0, data.length / 2)), mean(data.subarray(data.length / 2))]
  }
  const byMask = await half({ image: await file(white), mask: await file(kept) })
  assert.ok(byMask[1] > 235 && byMask[0] < 220, `the upper half only: ${byMask}`)
  assert.deepEqual(await half({ image: await file(kept) }), byMask)
  const start = await result({ image: await file(white), strength: 0.5 })
  assert.notDeepEqual(start.data, (await result({ image: await file(picture(0)), strength: 0.5 })).data)
})

test('partial pictures are streamed, then the whole one', async (t) => {
  const client = new OpenAI({ baseURL: `${await server(t)}/v1`, apiKey: 'none' })
  const events = []
  const stream = await client.images.generate({ ...quick, steps: 6, seed: 3, stream: true, partial_images: 2 })
  for await (const event of stream) events.push(event)
  assert.equal(events.at(-1).type, 'image_generation.completed')
  const partial = events.slice(0, -1)
  assert.ok(partial.length >= 1 && partial.length <= 2, `${partial.length}`)
  for (const [i, event] of partial.entries()) {
    assert.equal(event.type, 'image_generation.partial_image')
    assert.equal(event.partial_image_index, i)
  }
  for (const { b64_json } of events) assert.equal((await loadImage(Buffer.from(b64_json, 'base64'))).width, 128)
  const { data } = await client.images.generate({ ...quick, steps: 6, seed: 3 })
  assert.equal(data[0].b64_json, events.at(-1).b64_json)
})

test('edits are streamed as well, under names of their own', async (t) => {
  const client = new OpenAI({ baseURL: `${await server(t)}/v1`, apiKey: 'none' })
  const image = await toFile(await picture(255).toBuffer(), 'picture.png', { type: 'image/png' })
  const events = []
  const stream = await client.images.edit({ ...quick, image, strength: 1, steps: 6, stream: true, partial_images: 1 })
  for await (const event of stream) events.push(event)
  assert.deepEqual(
    events.map(({ type }) => type),
    ['image_edit.partial_image', 'image_edit.completed'],
  )
  const { usage, size, output_format } = events[1]
  assert.deepEqual([usage.total_tokens, size, output_format], [0, '128x128', 'png'])
})

test('what is wrong is said by the name of the field, before anything is made, and without paths', async (t) => {
  const url = `${await server(t, { models: { broken: '/no/such/model.gguf' } })}/v1/images/generations`
  for (const [body, status, param, message] of [
    ['{', 400, null, /Expected JSON/],
    ['[]', 400, null, /Expected a JSON object/],
    [Object.fromEntries(Array.from({ length: 1001 }, (_, i) => [i, 1])), 400, null, /at most 1000 fields/],
    ['{"__proto__": {"prompt": "a cat"}}', 400, '__proto__', /Unknown field "__proto__"/],
    [{}, 400, 'prompt', /a text for prompt but received undefined/],
    [{ ...quick, stepps: 3 }, 400, 'stepps', /did you mean steps\?/],
    [{ ...quick, steps: 'ten' }, 400, 'steps', /from 1 to 1000 for steps but received "ten"/],
    [{ ...quick, n: 11 }, 400, 'n', /from 1 to 10 for n/],
    [{ ...quick, size: '4096x64' }, 400, 'size', /of at most 2048 each/],
    [{ ...quick, seed: 2 ** 60 }, 400, 'seed', /beyond 2\^53 as a text/],
    [{ ...quick, scheduler: 'dpmpp' }, 400, null, /for scheduler but received "dpmpp"/],
    [{ ...quick, model: 'k99' }, 404, 'model', /expected one of broken/],
    [{ ...quick, image: '/etc/passwd' }, 400, 'image', /Unknown field "image"/],
    [quick, 500, null, /^The picture could not be made \(FILE_NOT_FOUND\)$/],
  ]) {
    const response = await post(url, body)
    const { error } = await response.json()
    assert.equal(response.status, status, JSON.stringify(body))
    assert.match(error.message, message)
    assert.equal(error.param, param, error.message)
  }
})

test('pictures come as bytes only: no file of the server, no URL, no bomb', async (t) => {
  const url = await server(t)
  for (const image of ['/etc/passwd', 'file:///etc/passwd', 'http://127.0.0.1/', '../x.png']) {
    const response = await post(`${url}/jobs`, { ...quick, image })
    assert.equal(response.status, 400)
    assert.match((await response.json()).error.message, /a picture as base64 or as a data URL for image/)
  }
  const { id } = await (
    await post(`${url}/jobs`, { ...quick, image: Buffer.from('no picture').toString('base64') })
  ).json()
  const { state, error } = await jobEnds(url, id)
  assert.equal(state, 'failed')
  assert.match(error.message, /^image: /)
  const limited = await server(t, { maxBody: 1000 })
  assert.equal((await post(`${limited}/jobs`, { prompt: 'a'.repeat(2000) })).status, 413)
})

test('AUTOMATIC1111: text to picture with a true info, picture to picture, masks in white or inverted', async (t) => {
  const url = `${await server(t)}/sdapi/v1`
  const request = { ...quick, cfg_scale: 3, seed: 7, sampler_name: 'Euler a', batch_size: 2, width: 128, height: 128 }
  const { images, parameters, info } = await (await post(`${url}/txt2img`, { ...request, restore_faces: true })).json()
  assert.equal(images.length, 2)
  assert.equal(parameters.seed, 7)
  const told = JSON.parse(info)
  assert.deepEqual(told.all_seeds, [7, 8])
  assert.deepEqual([told.sampler_name, told.steps, told.cfg_scale], ['EulerAncestralDiscreteScheduler', 2, 3])
  assert.deepEqual(told.extra_generation_params, { Ignored: 'restore_faces' })
  assert.match(told.infotexts[1], /^a red apple\nSteps: 2, .*Seed: 8/)
  const one = await (await post(`${url}/txt2img`, { ...request, seed: 8, batch_size: 1 })).json()
  const pixels = async (base64) => (await loadImage(Buffer.from(base64, 'base64'))).data
  assert.deepEqual(await pixels(one.images[0]), await pixels(images[1]))

  const start = (await picture(255).toBuffer()).toString('base64')
  const mask = picture(0)
  mask.data.fill(255, 0, mask.data.length / 2)
  const repaint = async (options) => {
    const body = { ...quick, seed: 1, init_images: [`data:image/png;base64,${start}`], ...options }
    const answer = await (await post(`${url}/img2img`, body)).json()
    const data = await pixels(answer.images[0])
    const mean = (part) => part.reduce((sum, value) => sum + value, 0) / part.length
    return [mean(data.subarray(0, data.length / 2)), mean(data.subarray(data.length / 2))]
  }
  const encoded = (await mask.toBuffer()).toString('base64')
  const [upper, keptLower] = await repaint({ mask: encoded })
  assert.ok(upper < 220 && keptLower > 235, `${upper}, ${keptLower}`)
  const [keptUpper, lower] = await repaint({ mask: encoded, inpainting_mask_invert: 1 })
  assert.ok(lower < 220 && keptUpper > 235, `${keptUpper}, ${lower}`)
  // Beyond the mask it is the start picture itself, up to a soft edge.
  const [, untouched] = await repaint({ mask: encoded, mask_blur: 0 })
  assert.equal(untouched, 255)
  const [, softened] = await repaint({ mask: encoded, mask_blur: 4 })
  assert.ok(softened < 255 && softened > 250, `${softened}`)
  assert.equal((await post(`${url}/img2img`, { ...quick, mask_blur: 65, init_images: [start] })).status, 400)
  assert.equal((await repaint({ denoising_strength: 0.5 })).length, 2)
  assert.equal((await post(`${url}/txt2img`, { ...request, sampler_name: 'DPM fast' })).status, 404)
  const deep = `{"prompt": "", "x": ${'['.repeat(1e5)}${']'.repeat(1e5)}}`
  assert.equal((await post(`${url}/txt2img`, deep)).status, 400)
})

test('AUTOMATIC1111: enable_hr gives a picture hr_scale times as large, composed small', async (t) => {
  const url = `${await server(t)}/sdapi/v1`
  const request = { ...quick, seed: 7, width: 64, height: 128, enable_hr: true, denoising_strength: 0.5 }
  const { images, info } = await (await post(`${url}/txt2img`, request)).json()
  const { width, height } = await loadImage(Buffer.from(images[0], 'base64'))
  assert.deepEqual([width, height], [128, 256])
  assert.match(JSON.parse(info).infotexts[0], /Denoising strength: 0.5, Hires upscale: 2/)
  assert.deepEqual(JSON.parse(info).extra_generation_params, {})
  for (const [wrong, message] of [
    [{ hr_scale: 99 }, /from 1 to 8 for hr_scale/],
    [{ width: 1024, hr_scale: 4 }, /at most 2048 pixels for hr_scale/],
    [{ width: undefined }, /for width/],
  ]) {
    const answer = await post(`${url}/txt2img`, { ...request, ...wrong })
    assert.equal(answer.status, 400)
    assert.match((await answer.json()).detail, message)
  }
})

test('AUTOMATIC1111: the lists that clients ask for, progress while a picture is made, and interrupt', async (t) => {
  const url = `${await server(t)}/sdapi/v1`
  assert.deepEqual((await get(`${url}/sd-models`))[0].model_name, 'demo')
  assert.ok((await get(`${url}/samplers`)).some(({ name }) => name === 'Euler a'))
  assert.equal((await get(`${url}/schedulers`))[0].name, 'automatic')
  assert.equal((await get(`${url}/upscalers`))[0].name, 'None')
  for (const name of ['latent-upscale-modes', 'sd-vae', 'sd-modules', 'loras'])
    assert.deepEqual(await get(`${url}/${name}`), [], name)
  assert.equal((await post(`${url}/options`, { sd_model_checkpoint: 'demo [0123456789]' })).status, 200)
  assert.equal((await get(`${url}/options`)).sd_model_checkpoint, 'demo')
  assert.equal((await post(`${url}/options`, { sd_model_checkpoint: 'other' })).status, 404)
  const idle = await get(`${url}/progress`)
  assert.deepEqual([idle.progress, idle.state.job_count], [0, 0])

  const drawing = post(`${url}/txt2img`, { ...quick, steps: 500 })
  let seen = idle
  while (!(seen.progress > 0.1 && seen.current_image)) seen = await get(`${url}/progress`)
  assert.equal(seen.state.job_count, 1)
  assert.equal((await loadImage(Buffer.from(seen.current_image, 'base64'))).width, 128)
  await post(`${url}/interrupt`, {})
  const { images, info } = await (await drawing).json()
  assert.equal(JSON.parse(info).interrupted, true)
  assert.equal(images.length, 1)
})

test('AUTOMATIC1111: a request that names itself is asked for by that name, waiting, running and done', async (t) => {
  const url = await server(t)
  const progress = async (body) => (await post(`${url}/internal/progress`, body)).json()
  const [running, waiting] = ['one', 'two'].map((name, i) =>
    post(`${url}/sdapi/v1/txt2img`, { ...quick, steps: i === 0 ? 300 : 2, force_task_id: name }),
  )
  let one
  do one = await progress({ id_task: 'one' })
  while (!one.live_preview)
  assert.deepEqual([one.active, one.queued, one.completed], [true, false, false])
  assert.ok(one.progress > 0 && one.progress < 1 && one.eta > 0)
  assert.match(one.live_preview, /^data:image\/png;base64,/)
  const two = await progress({ id_task: 'two' })
  assert.deepEqual([two.active, two.queued, two.completed, two.textinfo], [false, true, false, 'In queue: 1'])
  assert.deepEqual(await get(`${url}/internal/pending-tasks`), { size: 1, tasks: ['two'] })
  assert.equal((await progress({ id_task: 'one', live_preview: false })).live_preview, null)
  assert.equal((await post(`${url}/sdapi/v1/txt2img`, { ...quick, force_task_id: 'two' })).status, 409)
  await post(`${url}/sdapi/v1/interrupt`, {})
  assert.equal((await running).status, 200)
  assert.equal((await waiting).status, 200)
  assert.equal((await progress({ id_task: 'two' })).completed, true)
  const unknown = await progress({ id_task: 'three' })
  assert.deepEqual([unknown.active, unknown.queued, unknown.completed], [false, false, false])
})

test('jobs: an id at once, a place in the queue, events, pictures, and an end for each by its own', async (t) => {
  const url = await server(t)
  const submit = async (body) => {
    const response = await post(`${url}/jobs`, body)
    assert.equal(response.status, 202)
    return response.json()
  }
  const long = await submit({ ...quick, steps: 500 })
  const [second, third] = [await submit({ ...quick, seed: 1 }), await submit({ ...quick, seed: 2 })]
  assert.deepEqual([long.position, second.position, third.position], [0, 1, 2])
  assert.equal((await fetch(`${url}/jobs/${second.id}`, { method: 'DELETE' })).status, 200)
  assert.equal((await get(`${url}/jobs/${second.id}`)).state, 'cancelled')
  assert.equal((await get(`${url}/jobs/${third.id}`)).position, 1)

  const events = (await fetch(`${url}/jobs/${third.id}/events`)).text()
  await fetch(`${url}/jobs/${long.id}`, { method: 'DELETE' })
  assert.equal((await jobEnds(url, long.id)).state, 'cancelled')
  const states = [...(await events).matchAll(/^event: (\w+)$/gm)].map(([, state]) => state)
  assert.equal(states[0], 'queued')
  assert.equal(states.at(-1), 'done')
  const { pictures } = await jobEnds(url, third.id)
  assert.equal(pictures[0].recipe.seed, 2)
  for (const [query, type] of [
    ['', 'image/png'],
    ['?format=webp', 'image/webp'],
  ])
    assert.equal((await fetch(url + pictures[0].url + query)).headers.get('content-type'), type)
  assert.equal((await fetch(`${url}/jobs/${third.id}/pictures/1`)).status, 404)
  assert.equal((await fetch(`${url}/jobs/no-such-job`)).status, 404)
})

test('jobs mix texts and pictures by weight, as the library does', async (t) => {
  const url = await server(t)
  const image = await picture(200).toBuffer()
  const mix = [
    { text: 'a cat', weight: 0.7 },
    { image: image.toString('base64'), weight: 0.3 },
  ]
  const { id } = await (await post(`${url}/jobs`, { mix, steps: 2, seed: 4 })).json()
  const job = await jobEnds(url, id)
  assert.equal(job.state, 'done')
  assert.deepEqual(job.pictures[0].recipe.mix.weights, [0.7, 0.3])
  const served = await loadImage(`${url}/jobs/${id}/pictures/0`)
  const pipe = await AutoPipelineForText2Image.fromPretrained('demo')
  t.after(() => pipe.dispose())
  const { images } = await pipe.generate({
    mix: { items: ['a cat', picture(200)], weights: [0.7, 0.3] },
    numInferenceSteps: 2,
    generator: new Generator(4),
  })
  assert.deepEqual(served.data, images[0].data)
  for (const [body, message] of [
    [{ mix, prompt: 'a cat' }, /a text, or a mix instead/],
    [{ mix: [] }, /a list of 1 to 16 texts and images/],
    [{ mix: [{ text: 'a cat' }] }, /a number for weight/],
    [{ mix: [{ text: 'a', image: 'AAAA', weight: 1 }] }, /a text, or an image instead/],
    [{ mix: [{ text: 'a', wieght: 1 }] }, /did you mean weight\?/],
  ]) {
    const response = await post(`${url}/jobs`, body)
    assert.equal(response.status, 400, JSON.stringify(body))
    assert.match((await response.json()).error.message, message)
  }
})

test("the server's own fault is told to whoever runs it, with its cause, and to the client without", async (t) => {
  const events = []
  const onEvent = (event) => event.event === 'failure' && events.push(event)
  const url = await server(t, { models: { lost: '/nowhere/at-all' }, onEvent })
  const response = await post(`${url}/v1/images/generations`, quick)
  assert.equal(response.status, 500)
  assert.doesNotMatch(await response.text(), /nowhere/)
  const [{ error, ...event }] = events
  assert.deepEqual(event, { event: 'failure', method: 'POST', path: '/v1/images/generations', status: 500 })
  assert.match(error, /nowhere/)
  assert.equal((await post(`${url}/v1/images/generations`, { prompt: 3 })).status, 400)
  assert.equal(events.length, 1)
})

test('a client that disconnects ends its own job and no other', async (t) => {
  const events = []
  const url = await server(t, { onEvent: (event) => event.event === 'job' && events.push(event) })
  const leaving = new AbortController()
  const left = fetch(`${url}/v1/images/generations`, {
    method: 'POST',
    body: JSON.stringify({ ...quick, steps: 900 }),
    signal: leaving.signal,
  })
  while ((await get(`${url}/healthz`)).jobs === 0);
  const staying = post(`${url}/v1/images/generations`, quick)
  while ((await get(`${url}/healthz`)).jobs < 2);
  leaving.abort()
  await assert.rejects(left)
  assert.equal((await staying).status, 200)
  assert.deepEqual(
    events.map(({ state }) => state),
    ['cancelled', 'done'],
  )
})

test('beyond the limits, of one client or in all, is 429 with a time to come back', async (t) => {
  for (const limit of [{ maxJobs: 1 }, { maxJobsPerClient: 1 }]) {
    const url = await server(t, limit)
    const { id } = await (await post(`${url}/jobs`, { ...quick, steps: 500 })).json()
    const refused = await post(`${url}/v1/images/generations`, quick)
    assert.equal(refused.status, 429)
    assert.ok(Number(refused.headers.get('retry-after')) >= 1)
    await fetch(`${url}/jobs/${id}`, { method: 'DELETE' })
    await jobEnds(url, id)
    assert.equal((await post(`${url}/v1/images/generations`, quick)).status, 200)
  }
})

test('limits that are none are refused by name', async () => {
  for (const name of [
    'maxJobs',
    'maxJobsPerClient',
    'maxSide',
    'maxBody',
    'maxInputBytes',
    'keepBytes',
    'keepMs',
    'graceMs',
  ])
    for (const value of [-1, 0.5, Number.NaN, '10', null, 2 ** 60])
      assert.throws(() => createHandler({ [name]: value }), { code: 'INVALID_ARGUMENT', message: new RegExp(name) })
  // A timer of more than 24 days rings at once.
  assert.throws(() => createHandler({ graceMs: 2 ** 31 }), { code: 'INVALID_ARGUMENT', message: /graceMs/ })
})

test('pictures that jobs bring have a limit in all; one job is always taken', async (t) => {
  const url = await server(t, { maxInputBytes: 100 })
  const image = (await picture(255).toBuffer()).toString('base64')
  const { id } = await (await post(`${url}/jobs`, { ...quick, image, steps: 900, strength: 1 })).json()
  const refused = await post(`${url}/jobs`, { mix: [{ image, weight: 1 }] })
  assert.equal(refused.status, 429)
  assert.ok(Number(refused.headers.get('retry-after')) >= 1)
  assert.equal((await post(`${url}/jobs`, quick)).status, 202)
  await fetch(`${url}/jobs/${id}`, { method: 'DELETE' })
  await jobEnds(url, id)
  assert.equal((await post(`${url}/jobs`, { ...quick, image })).status, 202)
})

test('finished jobs leave when they were kept long enough or take too much', async (t) => {
  const bytes = 128 * 128 * 3
  const url = await server(t, { keepBytes: bytes })
  const ids = []
  for (const seed of [1, 2]) {
    const { id } = await (await post(`${url}/jobs`, { ...quick, seed })).json()
    assert.equal((await jobEnds(url, id)).state, 'done')
    ids.push(id)
  }
  assert.deepEqual(await Promise.all(ids.map(async (id) => (await fetch(`${url}/jobs/${id}`)).status)), [404, 200])
})

test('models stay loaded within the memory that they may take; those used last stay', async (t) => {
  const demo = { source: 'demo', threads: 1, device: 'cpu' }
  const serverWith = async (memory) => {
    const events = []
    const url = await server(t, { models: { one: demo, two: demo }, memory, onEvent: (event) => events.push(event) })
    const ask = (model) => post(`${url}/v1/images/generations`, { ...quick, model })
    return { ask, events, told: () => events.filter(({ event }) => event === 'model') }
  }
  const room = await serverWith(100e9)
  for (const model of ['one', 'two', 'one']) assert.equal((await room.ask(model)).status, 200)
  const [{ bytes }] = room.told()
  assert.deepEqual(
    room.told().map(({ model, state }) => `${model} ${state}`),
    ['one loaded', 'two loaded'],
  )
  const narrow = await serverWith(1.5 * bytes)
  for (const model of ['one', 'two', 'two', 'one']) assert.equal((await narrow.ask(model)).status, 200)
  assert.deepEqual(
    narrow.told().map(({ model, state }) => `${model} ${state}`),
    ['one loaded', 'one unloaded', 'two loaded', 'two unloaded', 'one loaded'],
  )
  const none = await serverWith(0.5 * bytes)
  assert.equal((await (await none.ask('one')).json()).error.code, 'OUT_OF_MEMORY')
  assert.match(none.events[0].error, /^one takes about 0\.\d GB, where models may take 0\.\d GB$/)
  await assert.rejects(createServer({ port: 0, memory: 0 }), { code: 'INVALID_ARGUMENT' })
})

test('a server that is closed finishes what fits into the grace time, and ends the rest with 503', async () => {
  const { url, close } = await createServer({ port: 0, graceMs: 300 })
  const long = post(`${url}/v1/images/generations`, { ...quick, steps: 1000, n: 4 })
  const waiting = post(`${url}/v1/images/generations`, quick)
  while ((await get(`${url}/healthz`)).jobs < 2);
  await close()
  for (const answer of await Promise.all([long, waiting])) {
    assert.equal(answer.status, 503)
    assert.equal((await answer.json()).error.code, 'shutting_down')
  }
})

test('pages of other sites and names of theirs are refused; a token is asked for', async () => {
  const handler = createHandler({ allowedOrigins: ['https://app.example.org'], allowedHosts: ['studio.example.org'] })
  const status = async (url, headers = {}, from = handler) =>
    (await from.fetch(new Request(url, { headers: { host: new URL(url).host, ...headers } }))).status
  for (const host of ['127.0.0.1:7860', 'localhost', '[::1]:7860', '192.168.0.7', 'studio.example.org'])
    assert.equal(await status(`http://${host}/v1/models`), 200, host)
  assert.equal(await status('http://rebound.example.net/v1/models'), 403)
  const local = 'http://localhost:7860/v1/models'
  assert.equal(await status(local, { origin: 'http://localhost:7860' }), 200)
  assert.equal(await status(local, { origin: 'https://app.example.org' }), 200)
  for (const headers of [
    ...[{ origin: 'https://evil.example' }, { origin: 'null' }, { origin: 'http://localhost:3000' }],
    ...[{ 'sec-fetch-site': 'cross-site' }, { 'sec-fetch-site': 'same-site' }],
  ])
    assert.equal(await status(local, headers), 403, JSON.stringify(headers))
  // A link to the page from elsewhere is no request of that page's.
  const link = { 'sec-fetch-site': 'cross-site', 'sec-fetch-dest': 'document' }
  assert.equal(await status('http://localhost:7860/', link), 200)
  assert.equal(
    await status('http://localhost:7860/', { 'sec-fetch-site': 'cross-site', 'sec-fetch-dest': 'iframe' }),
    403,
  )

  const preflight = await handler.fetch(
    new Request('http://localhost:7860/v1/images/generations', {
      method: 'OPTIONS',
      headers: {
        origin: 'https://app.example.org',
        'access-control-request-headers': 'authorization,x-stainless-lang',
      },
    }),
  )
  assert.equal(preflight.status, 204)
  assert.equal(preflight.headers.get('access-control-allow-origin'), 'https://app.example.org')
  assert.equal(preflight.headers.get('access-control-allow-headers'), 'authorization,x-stainless-lang')

  const secret = createHandler({ token: 'open sesame' })
  const basic = `Basic ${Buffer.from('user:open sesame').toString('base64')}`
  for (const [authorization, expected] of [
    ['', 401],
    ['Bearer other', 401],
    ['Bearer open sesame', 200],
    [basic, 200],
  ])
    assert.equal(await status(local, { authorization }, secret), expected, authorization)
  for (const open of ['/healthz', '/', '/page/main.js'])
    assert.equal(await status(`http://localhost${open}`, {}, secret), 200, open)
  for (const path of [
    '/about',
    '/jobs/x',
    '/metrics',
    '/page/',
    '/page/../package.json',
    '/page/%2e%2e%2fpackage.json',
  ])
    assert.equal(await status(`http://localhost${path}`, {}, secret), 401, path)
  assert.throws(() => createHandler({ tokens: 'x' }), /did you mean token\?/)
})

test('what no client sends is refused as well: other names in the request line, paths out of the page, two lengths', async (t) => {
  const { port } = new URL(await server(t, { token: 'secret' }))
  const status = async (request) => {
    const socket = connect(port, '127.0.0.1')
    socket.write(request.replaceAll('\n', '\r\n'))
    const [answer] = await once(socket, 'data')
    socket.destroy()
    return Number(/^HTTP\/1.1 (\d+)/.exec(answer)?.[1])
  }
  const own = 'Host: 127.0.0.1\nConnection: close\n'
  for (const [request, expected] of [
    [`GET / HTTP/1.1\n${own}\n`, 200],
    ['GET /about HTTP/1.0\n\n', 401],
    ['GET http://127.0.0.1/ HTTP/1.1\nHost: evil.example\nConnection: close\n\n', 403],
    ['GET / HTTP/1.1\nHost: 127.0.0.1:80@evil.example\nConnection: close\n\n', 400],
    [`GET /page/../../package.json HTTP/1.1\n${own}\n`, 401],
    [`GET /page/..%2f..%2fpackage.json HTTP/1.1\n${own}\n`, 401],
    [`GET /healthz/../about HTTP/1.1\n${own}\n`, 401],
    [`POST /healthz HTTP/1.1\n${own}Content-Length: 0\n\n`, 401],
    [`POST /jobs HTTP/1.1\n${own}Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n`, 400],
    [`POST /jobs HTTP/1.1\n${own}Authorization: Bearer secret\nContent-Length: 99999999999\n\n{`, 413],
    [`POST /jobs HTTP/1.1\n${own}Origin: https://evil.example\nContent-Type: text/plain\nContent-Length: 2\n\n{}`, 403],
  ])
    assert.equal(await status(request), expected, request)
})

test('the command listens, tells of jobs, finishes them when it is stopped', async () => {
  const child = spawn(process.execPath, [main, 'serve', '--port', '0', '--json'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    output += text
  })
  while (!output.includes('\n')) await once(child.stdout, 'data')
  const { type, url } = JSON.parse(output)
  assert.equal(type, 'listening')
  const drawing = post(`${url}/v1/images/generations`, { ...quick, steps: 20 })
  while ((await get(`${url}/healthz`)).jobs === 0);
  child.kill('SIGTERM')
  assert.equal((await drawing).status, 200)
  const [code] = await once(child, 'exit')
  assert.equal(code, 0)
  const lines = output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.deepEqual(
    lines.map(({ type, state }) => state ?? type),
    ['listening', 'loaded', 'done'],
  )
  for (const { time } of lines) assert.ok(Date.now() - Date.parse(time) < 60_000)
})

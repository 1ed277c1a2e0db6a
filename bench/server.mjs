// What the picture server costs beside the library, with the packaged demo model: milliseconds that one client's request
// takes longer than the same call of the library, in turns in one process, how many clients at once get their picture, and
// what requests would gain by being drawn as one batch.
//
//   node bench/server.mjs [--rounds 40] [--clients 500]
//
// Prints one JSON line. The picture comes back as base64 of a PNG file, as clients of OpenAI's API get it; the library's call
// makes the same bytes.
import { parseArgs } from 'node:util'
import { AutoPipeline } from '../dist/index.js'
import { createServer } from '../dist/server/index.js'

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '40' }, clients: { type: 'string', default: '500' } },
})
const [rounds, clients] = [Number(values.rounds), Number(values.clients)]
const model = { source: 'demo', threads: 1, device: 'cpu' }
const server = await createServer({ port: 0, models: { demo: model } })
const { source, ...options } = model
const pipe = await AutoPipeline.fromPretrained(source, options)

const request = { prompt: 'a red apple', steps: 2, seed: 1, response_format: 'b64_json' }
const ask = async () => {
  const response = await fetch(`${server.url}/v1/images/generations`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(request),
  })
  const { data } = await response.json()
  return response.ok && Buffer.from(data[0].b64_json, 'base64').length > 0
}
const call = async () => {
  const { images } = await pipe.generate({ prompt: 'a red apple', numInferenceSteps: 2, seed: 1, preview: true })
  return (await images[0].toBuffer('png')).toString('base64')
}
const time = async (work) => {
  const started = performance.now()
  await work()
  return performance.now() - started
}
const median = (times) => times.sort((a, b) => a - b)[Math.floor(times.length / 2)]

const times = { library: [], server: [] }
for (let round = 0; round <= rounds; round++) {
  const [library, served] = [await time(call), await time(ask)]
  if (round === 0) continue // both load and warm up
  times.library.push(library)
  times.server.push(served)
}
const [library, served] = [median(times.library), median(times.server)]
// In turns; processor time, which other programs hardly change.
const batches = new Map([1, 4, 8].map((size) => [size, []]))
for (let round = 0; round < 5; round++)
  for (const [size, cpu] of batches) {
    const before = process.cpuUsage()
    await pipe.generate({ prompt: 'a red apple', numInferenceSteps: 20, seed: 1, numImagesPerPrompt: size })
    const { user, system } = process.cpuUsage(before)
    cpu.push((user + system) / 1000 / size)
  }
const started = performance.now()
const answers = await Promise.all(Array.from({ length: clients }, ask))
const seconds = (performance.now() - started) / 1000
console.log(
  JSON.stringify({
    library_ms: Math.round(library * 10) / 10,
    server_ms: Math.round(served * 10) / 10,
    added_ms: Math.round((served - library) * 10) / 10,
    clients,
    answered: answers.filter(Boolean).length,
    requests_per_minute: Math.round((60 * clients) / seconds),
    alone_per_minute: Math.round(60000 / library),
    cpu_ms_per_picture_in_batches: Object.fromEntries(
      [...batches].map(([size, cpu]) => [size, Math.round(median(cpu))]),
    ),
  }),
)
await pipe.dispose()
await server.close()

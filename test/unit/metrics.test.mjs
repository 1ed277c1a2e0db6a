// Numbers for Prometheus.
import assert from 'node:assert/strict'
import test from 'node:test'
import { createHandler } from '../../dist/server/index.js'

test('/metrics counts jobs by how they ended, and needs the token', async (t) => {
  const events = []
  const handler = createHandler({
    token: 'secret',
    models: { demo: { source: 'demo', threads: 1, device: 'cpu' } },
    onEvent: ({ event, state }) => event === 'job' && events.push(state),
  })
  t.after(() => handler.close())
  const ask = (path, body, headers = { Authorization: 'Bearer secret' }) =>
    handler.fetch(
      new Request(`http://127.0.0.1${path}`, {
        headers: { ...headers, 'Content-Type': 'application/json' },
        ...(body && { method: 'POST', body: JSON.stringify(body) }),
      }),
    )
  assert.equal((await ask('/metrics', undefined, {})).status, 401)
  for (const prompt of ['a cat', 'a dog'])
    assert.equal((await ask('/v1/images/generations', { prompt, n: 2, steps: 2 })).status, 200)
  const { id } = await (await ask('/jobs', { prompt: 'a cat', steps: 900 })).json()
  await handler.fetch(
    new Request(`http://127.0.0.1/jobs/${id}`, { method: 'DELETE', headers: { Authorization: 'Bearer secret' } }),
  )
  while (events.length < 3) await new Promise((resolve) => setTimeout(resolve, 20))
  const answer = await ask('/metrics')
  assert.match(answer.headers.get('content-type'), /^text\/plain/)
  const text = await answer.text()
  assert.match(text, /kandinsky_jobs_total\{api="image_generation",state="done"\} 2/)
  assert.match(text, /kandinsky_jobs_total\{api="jobs",state="cancelled"\} 1/)
  assert.match(text, /kandinsky_pictures_total 4/)
  assert.match(text, /kandinsky_jobs 0/)
  assert.match(text, /kandinsky_job_run_seconds_count\{api="image_generation",state="done"\} 2/)
  assert.match(text, /process_resident_memory_bytes/)
})

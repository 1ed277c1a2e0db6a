// The handler inside other servers, by the recipes of docs/server.md. Express and Fastify are run by scripts/test-embeds.mjs.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import test from 'node:test'
import { getRequestListener, serve } from '@hono/node-server'
import { Hono } from 'hono'
import { createHandler } from '../../dist/server/index.js'

const quick = JSON.stringify({ prompt: 'a red apple', steps: 2 })

/** The page, a picture, and one job with its events, at an address. */
async function expectPictures(url) {
  const page = await fetch(`${url}/`)
  assert.match(await page.text(), /<title>Kandinsky<\/title>/)
  for (const file of ['page/main.js', 'page/style.css']) assert.equal((await fetch(`${url}/${file}`)).status, 200, file)
  const post = (path) =>
    fetch(`${url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: quick })
  const { data } = await (await post('/v1/images/generations')).json()
  assert.ok(data[0].b64_json.length > 100)
  const { id } = await (await post('/jobs')).json()
  assert.match(await (await fetch(`${url}/jobs/${id}/events`)).text(), /event: done/)
  assert.equal((await fetch(`${url}/jobs/${id}/pictures/0`)).headers.get('content-type'), 'image/png')
}

async function listening(t, server) {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  return `http://127.0.0.1:${server.address().port}`
}

test('in node:http, beside routes of its own', async (t) => {
  const handler = createHandler()
  t.after(() => handler.close())
  const pictures = getRequestListener(handler.fetch)
  const server = createServer((request, response) => {
    if (request.url === '/own') response.end('own')
    else pictures(request, response)
  })
  const url = await listening(t, server)
  assert.equal(await (await fetch(`${url}/own`)).text(), 'own')
  await expectPictures(url)
})

test('in Hono, under a path', async (t) => {
  const handler = createHandler()
  t.after(() => handler.close())
  const app = new Hono().mount('/pictures', handler.fetch)
  const server = serve({ fetch: app.fetch, hostname: '127.0.0.1', port: 0 })
  await new Promise((resolve) => server.once('listening', resolve))
  t.after(() => server.close())
  await expectPictures(`http://127.0.0.1:${server.address().port}/pictures`)
})

test('as route handlers of a folder, as Next has them', async (t) => {
  const handler = createHandler()
  t.after(() => handler.close())
  // app/pictures/[[...path]]/route.js
  const base = '/pictures'
  const route = (request) => {
    const url = new URL(request.url)
    url.pathname = url.pathname.slice(base.length) || '/'
    return handler.fetch(new Request(url, request))
  }
  const routes = { GET: route, POST: route, DELETE: route }
  const ask = (method, path, body) =>
    routes[method](
      new Request(`http://localhost:3000${base}${path}`, { method, body, headers: { host: 'localhost:3000' } }),
    )
  assert.match(await (await ask('GET', '/')).text(), /<title>Kandinsky/)
  const { id } = await (await ask('POST', '/jobs', quick)).json()
  assert.match(await (await ask('GET', `/jobs/${id}/events`)).text(), /event: done/)
  assert.equal((await ask('DELETE', `/jobs/${id}`)).status, 200)
})

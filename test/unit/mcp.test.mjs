// The tool for assistants, asked by the protocol's own client over both of its transports.
import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { loadImage } from '../../dist/index.js'
import { createServer } from '../../dist/server/index.js'
import { mcpOverHttp } from '../../dist/server/mcp.js'

const main = path.resolve(import.meta.dirname, '../../dist/cli/main.js')
const token = 'a secret'

const transports = {
  async stdio() {
    return new StdioClientTransport({
      command: process.execPath,
      args: [main, 'mcp', '--threads', '1', '--device', 'cpu'],
    })
  },
  async http(t) {
    const server = await createServer({
      port: 0,
      token,
      models: { demo: { source: 'demo', threads: 1, device: 'cpu' } },
    })
    t.after(() => server.close())
    const requestInit = { headers: { Authorization: `Bearer ${token}` } }
    return new StreamableHTTPClientTransport(new URL(`${server.url}/mcp`), { requestInit })
  },
}

for (const [name, connect] of Object.entries(transports)) {
  async function clientOf(t) {
    const client = new Client({ name: 'test', version: '1' })
    const transport = await connect(t)
    await client.connect(transport)
    t.after(() => client.close())
    return client
  }

  test(`${name}: the tool draws, tells how far it is, and what made the picture`, async (t) => {
    const client = await clientOf(t)
    const { tools } = await client.listTools()
    assert.deepEqual(
      tools.map(({ name }) => name),
      ['generate_image'],
    )
    assert.deepEqual(tools[0].inputSchema.properties.model.enum, ['demo'])
    const reports = []
    const { content, isError } = await client.callTool(
      { name: 'generate_image', arguments: { prompt: 'a red apple', steps: 20, seed: 3, n: 2 } },
      undefined,
      { onprogress: (report) => reports.push(report) },
    )
    assert.ok(!isError, JSON.stringify(content))
    assert.deepEqual(
      content.map(({ type }) => type),
      ['image', 'text', 'image', 'text'],
    )
    const picture = await loadImage(Buffer.from(content[0].data, 'base64'))
    assert.deepEqual([picture.width, picture.height], [128, 128])
    assert.equal(JSON.parse(content[1].text).seed, 3)
    assert.equal(JSON.parse(content[3].text).seed, 4)
    assert.ok(reports.length > 0)
    for (const { progress, total } of reports) assert.ok(progress >= 0 && progress <= total)
  })

  test(`${name}: what is asked wrongly is said to the assistant`, async (t) => {
    const client = await clientOf(t)
    for (const [call, message] of [
      [{ name: 'generate_image', arguments: { prompt: 'a cat', steps: 'many' } }, /steps/],
      [{ name: 'generate_image', arguments: {} }, /prompt/],
      [{ name: 'generate_image', arguments: { prompt: 'a cat', model: 'none' } }, /demo/],
      [{ name: 'paint', arguments: {} }, /generate_image/],
    ]) {
      const { isError, content } = await client.callTool(call)
      assert.ok(isError)
      assert.match(content[0].text, message)
    }
  })

  test(`${name}: a call that is cancelled ends its job, and the next one works`, async (t) => {
    const client = await clientOf(t)
    const abort = new AbortController()
    const call = { name: 'generate_image', arguments: { prompt: 'a cat', steps: 1000, n: 4 } }
    const long = client.callTool(call, undefined, { signal: abort.signal })
    setTimeout(() => abort.abort(new Error('enough')), 500)
    await assert.rejects(long)
    const { isError } = await client.callTool({ name: 'generate_image', arguments: { prompt: 'a cat', steps: 2 } })
    assert.ok(!isError)
  })
}

test('http: nobody speaks to it without the token', async (t) => {
  const server = await createServer({ port: 0, token })
  t.after(() => server.close())
  const answer = await fetch(`${server.url}/mcp`, { method: 'POST', body: '{}' })
  assert.equal(answer.status, 401)
})

test('a picture that left before it was fetched is an error, not a file of another kind', async (t) => {
  const job = { id: '1', state: 'done', progress: { fraction: 1 }, pictures: [{ url: '/jobs/1/pictures/0' }] }
  const gone = { error: { message: 'There is no such picture, or not yet' } }
  const ask = async (url) => (url === '/jobs' ? Response.json(job) : Response.json(gone, { status: 404 }))
  const mcp = mcpOverHttp(() => ask, ['demo'])
  const client = new Client({ name: 'test', version: '1' })
  const transport = new StreamableHTTPClientTransport(new URL('http://127.0.0.1/mcp'), {
    fetch: (url, init) => mcp.fetch(new Request(url, init)),
  })
  await client.connect(transport)
  t.after(() => client.close())
  const { isError, content } = await client.callTool({ name: 'generate_image', arguments: { prompt: 'a cat' } })
  assert.deepEqual([isError, content], [true, [{ type: 'text', text: gone.error.message }]])
})

// The Model Context Protocol (https://modelcontextprotocol.io): a tool that draws, for assistants. Over HTTP it is a route of
// the picture server, over stdio `kandinsky mcp`. It asks for jobs like any other client, so that queue, limits and
// cancelling are theirs.
//
// The protocol's SDK brings ninety packages, most of them a web server that is not used here: whoever wants the tool installs
// it beside this package.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Server } from '@modelcontextprotocol/sdk/server/index.js'
import type { WebStandardStreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js'
import { KandinskyError } from '../errors.js'
import { version } from '../version.js'

/** Asks the picture server, e.g. for `/jobs`. */
export type Ask = (
  path: string,
  init?: { method?: string; headers?: Record<string, string>; body?: string },
) => Promise<Response>

const SDK = '@modelcontextprotocol/sdk'
/** Between two looks at a job, in ms. */
const INTERVAL = 100
/** Clients that are connected over HTTP; whoever was quiet for longest makes room. */
const MAX_SESSIONS = 64

interface Job {
  id: string
  state: 'queued' | 'running' | 'done' | 'failed' | 'cancelled'
  position?: number
  progress: { fraction: number; stage?: string; step?: number; steps?: number }
  error?: { message: string }
  pictures: { url: string; recipe?: object }[]
}

async function sdk() {
  try {
    const [server, stdio, http, types] = await Promise.all([
      import('@modelcontextprotocol/sdk/server/index.js'),
      import('@modelcontextprotocol/sdk/server/stdio.js'),
      import('@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js'),
      import('@modelcontextprotocol/sdk/types.js'),
    ])
    return { ...server, ...stdio, ...http, ...types }
  } catch (cause) {
    throw new KandinskyError('FILE_NOT_FOUND', `The MCP tool needs another package: npm install ${SDK}`, { cause })
  }
}

/** The tool as assistants see it. */
function describeTool(models: readonly string[]) {
  const number = (description: string) => ({ type: 'number', description })
  const text = (description: string) => ({ type: 'string', description })
  return {
    name: 'generate_image',
    description:
      'Draws pictures from a text with Kandinsky; changes a given picture; repaints the white part of a mask in it.',
    inputSchema: {
      type: 'object' as const,
      properties: {
        prompt: text('what the picture shows'),
        negative_prompt: text('what it should not show'),
        model: { type: 'string', enum: [...models], description: `default: ${models[0]}` },
        n: number('how many pictures; default 1'),
        width: number("in pixels; default: the model's own"),
        height: number("in pixels; default: the model's own"),
        steps: number("denoising steps; default: the model's own"),
        guidance_scale: number('how closely the prompt is followed'),
        seed: number('the same seed gives the same picture; default: random'),
        scheduler: text('e.g. dpm++, ddim, euler_a'),
        image: text('a picture to start from, as base64'),
        mask: text('a picture, as base64; its white part is repainted'),
        strength: number('0 to 1: how much of the given picture changes'),
      },
      required: ['prompt'],
    },
  }
}

/**
 * A server of the protocol, to be connected to a transport.
 * @throws KandinskyError `FILE_NOT_FOUND` where the SDK is not installed
 */
async function makeServer(ask: Ask, models: readonly string[]): Promise<Server> {
  const { Server, ListToolsRequestSchema, CallToolRequestSchema } = await sdk()
  const server = new Server({ name: 'node-kandinsky', version }, { capabilities: { tools: {} } })
  const tool = describeTool(models)
  server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: [tool] }))
  server.setRequestHandler(CallToolRequestSchema, async ({ params }, { signal, _meta, sendNotification }) => {
    const fail = (message: string) => ({ isError: true, content: [{ type: 'text' as const, text: message }] })
    if (params.name !== tool.name) return fail(`There is no tool ${params.name}; there is ${tool.name}`)
    const token = _meta?.progressToken
    const report = async (progress: number, message: string) => {
      if (token === undefined) return
      await sendNotification({
        method: 'notifications/progress',
        params: { progressToken: token, progress, total: 1, message },
      })
    }
    const job = await finish(ask, params.arguments ?? {}, signal, report)
    if (job.state !== 'done') return fail(job.error?.message ?? `The job was ${job.state}`)
    const content = []
    for (const { url, recipe } of job.pictures) {
      const answer = await ask(url)
      // It may have left since, for a limit of the server's.
      if (!answer.ok) return fail(((await answer.json()) as Pick<Job, 'error'>).error?.message ?? 'The picture is gone')
      const png = Buffer.from(await answer.arrayBuffer())
      content.push({ type: 'image' as const, data: png.toString('base64'), mimeType: 'image/png' })
      content.push({ type: 'text' as const, text: JSON.stringify(recipe ?? {}) })
    }
    return { content }
  })
  return server
}

/** Makes a job, reports how far it is, and cancels it with the call. */
async function finish(
  ask: Ask,
  body: object,
  signal: AbortSignal,
  report: (progress: number, message: string) => Promise<void>,
): Promise<Pick<Job, 'state' | 'error' | 'pictures'>> {
  const headers = { 'Content-Type': 'application/json' }
  const made = await ask('/jobs', { method: 'POST', headers, body: JSON.stringify(body) })
  let job = (await made.json()) as Job
  if (!made.ok) return { state: 'failed', pictures: [], ...(job.error && { error: job.error }) }
  let told = ''
  while (job.state === 'queued' || job.state === 'running') {
    const { fraction, stage, step, steps } = job.progress
    const message =
      job.state === 'queued' ? `waiting at place ${job.position}` : `${stage} ${step ?? 0} of ${steps ?? '?'}`
    if (message !== told) await report(fraction, message)
    told = message
    await sleep(INTERVAL)
    job = (await (await ask(`/jobs/${job.id}`, signal.aborted ? { method: 'DELETE' } : {})).json()) as Job
  }
  return job
}

/** Speaks the protocol over standard input and output, until either ends. */
export async function serveStdio(ask: Ask, models: readonly string[], signal: AbortSignal): Promise<void> {
  const { StdioServerTransport } = await sdk()
  const server = await makeServer(ask, models)
  await server.connect(new StdioServerTransport())
  const ended = new Promise<void>((resolve) => {
    server.onclose = resolve
    process.stdin.once('end', resolve)
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
  await ended
  await server.close()
}

/**
 * Speaks the protocol's streamable HTTP.
 * @param askFor makes requests in the name of whoever is behind a connection
 */
export function mcpOverHttp(askFor: (env: unknown) => Ask, models: readonly string[]) {
  const sessions = new Map<string, WebStandardStreamableHTTPServerTransport>()
  return {
    async fetch(request: Request, env: unknown): Promise<Response> {
      const { WebStandardStreamableHTTPServerTransport } = await sdk()
      const id = request.headers.get('mcp-session-id')
      const known = id === null ? undefined : sessions.get(id)
      if (id !== null && !known)
        return Response.json({ error: { message: 'There is no such session' } }, { status: 404 })
      if (known) {
        sessions.delete(id!)
        sessions.set(id!, known)
        return known.handleRequest(request)
      }
      const transport = new WebStandardStreamableHTTPServerTransport({
        sessionIdGenerator: () => crypto.randomUUID(),
        onsessioninitialized: (session) => {
          sessions.set(session, transport)
          if (sessions.size > MAX_SESSIONS) sessions.values().next().value?.close()
        },
      })
      const server = await makeServer(askFor(env), models)
      server.onclose = () => {
        if (transport.sessionId !== undefined) sessions.delete(transport.sessionId)
      }
      await server.connect(transport)
      return transport.handleRequest(request)
    },
    async close(): Promise<void> {
      await Promise.all([...sessions.values()].map((transport) => transport.close()))
    },
  }
}

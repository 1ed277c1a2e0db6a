// Pictures over HTTP, for clients that speak OpenAI's API or AUTOMATIC1111's, and as jobs.
import type { AddressInfo } from 'node:net'
import { serve } from '@hono/node-server'
import { type Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { KandinskyError } from '../errors.js'
import { expectOptions } from '../pipelines/call/options.js'
import { automatic1111 } from './automatic1111.js'
import { type GuardOptions, guard, requireToken } from './guard.js'
import { checkLimits } from './jobs.js'
import { jobsApi } from './jobs-api.js'
import { type Ask, mcpOverHttp, serveStdio } from './mcp.js'
import { countJobs } from './metrics.js'
import { openAi } from './openai.js'
import { about, page } from './page.js'
import { Service, type ServiceOptions } from './service.js'

export type { JobLimits } from './jobs.js'
export type { ModelEvent, ModelLimits, ServerModel } from './models.js'
export { createQueueWorker, type QueueWorker, type QueueWorkerOptions } from './queue-worker.js'
export type { ResultStore } from './results.js'
export type { FailureEvent, JobEvent, ServerEvent } from './service.js'

/** Models, limits and guards of a picture server. */
export interface HandlerOptions extends ServiceOptions, GuardOptions {
  /** largest body of a request in bytes (default 32 MiB) */
  maxBody?: number | undefined
}

/** Answers requests as `fetch` would; mounts in Hono, Next, Bun, Deno and anything else that speaks it. */
export interface Handler {
  /**
   * Answers one request; what goes wrong is an answer, too.
   * @param env what the host tells of the connection, e.g. Node's `{ incoming }`
   */
  fetch(request: Request, env?: unknown): Response | Promise<Response>
  /** Takes no more jobs, waits for those that are here and frees the models. */
  close(): Promise<void>
}

const optionNames = [
  ...[
    'models',
    'maxLoaded',
    'memory',
    'maxSide',
    'maxInputBytes',
    'queue',
    'results',
    'graceMs',
    'onEvent',
    'maxJobs',
    'maxJobsPerClient',
    'keepMs',
    'keepBytes',
  ],
  ...['token', 'allowedHosts', 'allowedOrigins', 'maxBody'],
]
const MAX_BODY = 32 * 2 ** 20

/** @throws KandinskyError `INVALID_ARGUMENT` */
export function createHandler(options: HandlerOptions = {}): Handler {
  return handlerOf(options).handler
}

function handlerOf(options: HandlerOptions): { handler: Handler; service: Service } {
  expectOptions(options, optionNames)
  checkLimits(options)
  const { token, allowedHosts, allowedOrigins, maxBody = MAX_BODY, onEvent, ...rest } = options
  const service: Service = new Service({
    ...rest,
    onEvent(event) {
      if (event.event === 'job') metrics.record(event)
      onEvent?.(event)
    },
  })
  const metrics = countJobs(() => service.jobs.size())
  const app = new Hono()
  app.use(guard({ allowedHosts, allowedOrigins }))
  app.get('/healthz', async (c) => {
    const jobs = await service.jobs.size().catch(() => undefined)
    return jobs === undefined ? c.json({ status: 'queue out of reach' }, 503) : c.json({ status: 'ok', jobs })
  })
  // The page itself asks for the token.
  app.route('/', page())
  app.use(requireToken({ token }))
  app.use(
    bodyLimit({
      maxSize: maxBody,
      onError: (c) => {
        const message = `Expected a body of at most ${maxBody} bytes`
        return c.json(
          { error: { message, type: 'invalid_request_error', param: null, code: null }, detail: message },
          413,
        )
      },
    }),
  )
  app.get('/about', (c) => c.json(about(service)))
  app.get('/metrics', async (c) => {
    try {
      const { type, text } = await metrics.text()
      return c.body(text, 200, { 'Content-Type': type })
    } catch (error) {
      return notInstalled(c, error)
    }
  })
  app.route('/v1', openAi(service))
  const { api, internal } = automatic1111(service)
  app.route('/sdapi/v1', api)
  app.route('/internal', internal)
  app.route('/jobs', jobsApi(service))
  const authorization: Record<string, string> = token === undefined ? {} : { Authorization: `Bearer ${token}` }
  const askFor =
    (env: unknown): Ask =>
    async (path, init) => {
      const headers = new Headers({ ...init?.headers, ...authorization })
      return app.fetch(new Request(`http://127.0.0.1${path}`, { ...init, headers }), env as object)
    }
  const mcp = mcpOverHttp(askFor, service.models.names)
  app.all('/mcp', async (c) => {
    try {
      return await mcp.fetch(c.req.raw, c.env)
    } catch (error) {
      return notInstalled(c, error)
    }
  })
  const handler: Handler = {
    fetch: (request, env) => app.fetch(request, env as object),
    async close() {
      await mcp.close()
      await service.close()
    },
  }
  return { handler, service }
}

/** What needs a package that is not there. */
function notInstalled(c: Context, error: unknown): Response {
  if (!(error instanceof KandinskyError)) throw error
  return c.json({ error: { message: error.message } }, 501)
}

/**
 * The tool for assistants (Model Context Protocol) over standard input and output, until either ends. Nothing else may write
 * to standard output meanwhile.
 * @throws KandinskyError `INVALID_ARGUMENT`; `FILE_NOT_FOUND` unless `@modelcontextprotocol/sdk` is installed beside this package
 */
export async function serveMcp(options: HandlerOptions, signal: AbortSignal): Promise<void> {
  const handler = createHandler(options)
  const ask: Ask = async (path, init) => handler.fetch(new Request(`http://127.0.0.1${path}`, init))
  try {
    const { data } = (await (await ask('/v1/models')).json()) as { data: { id: string }[] }
    await serveStdio(
      ask,
      data.map(({ id }) => id),
      signal,
    )
  } finally {
    await handler.close()
  }
}

/** A handler's options and where to listen. */
export interface ServerOptions extends HandlerOptions {
  /** address to listen at (default 127.0.0.1: this machine only) */
  host?: string | undefined
  /** default 7860; 0 for any free one */
  port?: number | undefined
}

/** A running picture server. */
export interface Server extends AsyncDisposable {
  /** e.g. `http://127.0.0.1:7860` */
  readonly url: string
  /** Takes no more requests, finishes those that are here and frees the models. */
  close(): Promise<void>
}

const PORT = 7860

/** @throws KandinskyError `INVALID_ARGUMENT`, also for an address that cannot be listened at */
export async function createServer({
  host = '127.0.0.1',
  port = PORT,
  ...options
}: ServerOptions = {}): Promise<Server> {
  const { handler, service } = handlerOf(options)
  await service.jobs.ready()
  const server = serve({ fetch: handler.fetch, hostname: host, port })
  await new Promise<void>((resolve, reject) => {
    server.once('listening', resolve)
    server.once('error', (error) => {
      const message = `Could not listen at ${host}, port ${port}: ${error.message}`
      reject(new KandinskyError('INVALID_ARGUMENT', message, { cause: error }))
    })
  })
  const { address, family, port: actual } = server.address() as AddressInfo
  const close = async () => {
    const closed = new Promise((resolve) => server.close(resolve))
    await handler.close()
    await closed
  }
  const url = `http://${family === 'IPv6' ? `[${address}]` : address}:${actual}`
  return { url, close, [Symbol.asyncDispose]: close }
}

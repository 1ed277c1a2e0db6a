// Who may ask: pages of other sites in the user's browser may not, nor names that were pointed at this machine.
import { createHash, timingSafeEqual } from 'node:crypto'
import { isIP } from 'node:net'
import type { MiddlewareHandler } from 'hono'

export interface GuardOptions {
  /** required of every request but those for the page's files and /healthz: as `Authorization: Bearer <token>`, or as the password of basic authentication */
  token?: string | undefined
  /** names under which the server may be addressed, beside localhost and IP addresses; `'*'` allows all */
  allowedHosts?: readonly string[] | '*' | undefined
  /** origins of pages elsewhere that may use the server, e.g. `https://app.example.org` */
  allowedOrigins?: readonly string[] | undefined
}

/** Which hosts and whose pages. */
export function guard({ allowedHosts = [], allowedOrigins = [] }: GuardOptions): MiddlewareHandler {
  const hosts = allowedHosts === '*' ? allowedHosts : allowedHosts.map((name) => name.toLowerCase())
  return async (c, next) => {
    c.header('X-Content-Type-Options', 'nosniff')
    c.header('Vary', 'Origin')
    const host = c.req.header('host') ?? new URL(c.req.url).host
    if (!isOwnHost(host, hosts)) return c.json(refusal('This name is not allowed as a host'), 403)
    const origin = c.req.header('origin')
    const isAllowed = origin !== undefined && allowedOrigins.includes(origin)
    // A browser names the page's origin, or at least that it is another one. A link to here leads to what shows itself.
    const site = c.req.header('sec-fetch-site')
    const isLink = c.req.method === 'GET' && c.req.header('sec-fetch-dest') === 'document'
    const isForeign =
      origin !== undefined ? !isSameHost(origin, host) : (site === 'cross-site' || site === 'same-site') && !isLink
    if (isForeign && !isAllowed) return c.json(refusal('Pages of other origins are not allowed'), 403)
    if (isAllowed) {
      c.header('Access-Control-Allow-Origin', origin)
      c.header('Access-Control-Expose-Headers', 'Location, Retry-After')
      if (c.req.method === 'OPTIONS') {
        c.header('Access-Control-Allow-Methods', 'GET, POST, DELETE')
        // Clients have headers of their own, as OpenAI's does.
        c.header(
          'Access-Control-Allow-Headers',
          c.req.header('access-control-request-headers') ?? 'Authorization, Content-Type',
        )
        return c.body(null, 204)
      }
    }
    await next()
  }
}

/** Whoever knows the token; everyone without one. */
export function requireToken({ token }: GuardOptions): MiddlewareHandler {
  const digest = token === undefined ? undefined : sha256(token)
  return async (c, next) => {
    if (digest && !timingSafeEqual(sha256(secretOf(c.req.header('authorization'))), digest)) {
      c.header('WWW-Authenticate', 'Bearer')
      return c.json(refusal('Expected the token of this server'), 401)
    }
    await next()
  }
}

/** As OpenAI's API and AUTOMATIC1111's say it, in one. */
function refusal(message: string) {
  return { error: { message, type: 'invalid_request_error', param: null, code: null }, detail: message }
}

/** No page can point an IP address elsewhere, as it can a name of its own. */
function isOwnHost(host: string, allowed: readonly string[] | '*'): boolean {
  const name = host
    .replace(/:\d+$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .toLowerCase()
  return allowed === '*' || name === 'localhost' || isIP(name) !== 0 || allowed.includes(name)
}

function isSameHost(origin: string, host: string): boolean {
  return URL.canParse(origin) && new URL(origin).host === host.toLowerCase()
}

function secretOf(authorization = ''): string {
  const [, scheme = '', value = ''] = /^(\w+) +(.+)$/.exec(authorization) ?? []
  if (scheme.toLowerCase() === 'basic')
    return Buffer.from(value, 'base64')
      .toString()
      .replace(/^[^:]*:/, '')
  return scheme.toLowerCase() === 'bearer' ? value : ''
}

/** Digests are of one length, which the comparison needs. */
function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

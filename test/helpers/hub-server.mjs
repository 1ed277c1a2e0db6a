// A small Hugging Face hub on loopback: model info, downloads with Range, large files behind a redirect to a "CDN" on
// another origin, and faults on demand.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'

export const COMMIT = 'c0ffee'.padEnd(40, '0')
/** From this size on a file is stored like Git LFS does: named by sha256, served by the CDN. */
const LFS_BYTES = 1000

export const sha256 = (content) => createHash('sha256').update(content).digest('hex')
const gitSha1 = (content) => createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex')
export const digestOf = (content) => (content.length < LFS_BYTES ? gitSha1(content) : sha256(content))

async function listen(handler) {
  const server = createServer(handler).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

/**
 * @param repositories { 'owner/name': { 'path/in/repository': string | Buffer } }; may be changed while it runs
 * @returns `requests` ({ host: 'hub' | 'cdn', path, headers }), `faults`: { path: [fault, ...] }, one used up per
 *   request; a fault is { status, headers }, { cut: bytes }, { stall: bytes }, { content } or { ignoreRange: true };
 *   `edit(info)` may change the model info before it is sent
 */
export async function startHub(repositories) {
  const hub = { requests: [], faults: {}, edit: (info) => info, commit: COMMIT }
  const cdn = await listen((request, response) => serve('cdn', request, response))
  const front = await listen((request, response) => serve('hub', request, response))
  hub.endpoint = `http://127.0.0.1:${front.address().port}`
  const cdnOrigin = `http://127.0.0.1:${cdn.address().port}`
  hub.close = () => {
    for (const server of [cdn, front]) {
      server.closeAllConnections()
      server.close()
    }
  }
  return hub

  function serve(host, request, response) {
    const path = decodeURIComponent(request.url.split('?')[0])
    hub.requests.push({ host, path, url: request.url, headers: request.headers })
    const [, id, rest] = /^\/(?:api\/models\/)?([^/]+\/[^/]+)\/(.*)$/.exec(path)
    const files = repositories[id]
    const name = rest.replace(/^resolve\/[0-9a-f]{40}\//, '')
    const isListing = path.startsWith('/api/')
    const content = isListing || !files?.[name] ? undefined : Buffer.from(files[name])
    const onCdn = content?.length >= LFS_BYTES
    const fault = onCdn && host === 'hub' ? undefined : hub.faults[isListing ? 'listing' : name]?.shift()
    if (fault?.status) response.writeHead(fault.status, fault.headers).end()
    else if (!files) response.writeHead(401, { 'x-error-code': 'RepoNotFound' }).end()
    else if (isListing && !['main', 'refs/pr/1', hub.commit].includes(rest.replace('revision/', '')))
      response.writeHead(404, { 'x-error-code': 'RevisionNotFound' }).end()
    else if (isListing) response.end(JSON.stringify(hub.edit(modelInfo(files))))
    else if (!content) response.writeHead(404, { 'x-error-code': 'EntryNotFound' }).end()
    else if (onCdn && host === 'hub') response.writeHead(302, { location: `${cdnOrigin}${request.url}` }).end()
    else send(response, fault?.content ?? content, request.headers.range, fault ?? {})
  }

  function modelInfo(files) {
    const siblings = Object.entries(files).map(([rfilename, text]) => {
      const content = Buffer.from(text)
      const lfs = content.length < LFS_BYTES ? {} : { lfs: { sha256: sha256(content), size: content.length } }
      return { rfilename, size: content.length, blobId: gitSha1(content), ...lfs }
    })
    return { sha: hub.commit, siblings }
  }

  function send(response, content, range, { cut, stall, ignoreRange }) {
    const start = range && !ignoreRange ? Number(/^bytes=(\d+)-$/.exec(range)[1]) : 0
    const headers = { 'content-length': content.length - start }
    if (start > 0) headers['content-range'] = `bytes ${start}-${content.length - 1}/${content.length}`
    response.writeHead(start > 0 ? 206 : 200, headers)
    const end = cut ?? stall
    if (end === undefined) return response.end(content.subarray(start))
    response.write(content.subarray(start, end), () => {
      if (cut !== undefined) response.destroy()
    })
  }
}

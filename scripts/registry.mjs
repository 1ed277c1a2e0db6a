// A registry for tests: `node scripts/registry.mjs FOLDER` serves the packages that scripts/packages.mjs made there, on a port
// of its own, which it prints, until its standard input ends. An .npmrc with `@node-kandinsky:registry=http://127.0.0.1:PORT`
// sends npm, pnpm and Bun to it for our scope alone.
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import path from 'node:path'
import { targets } from './check-binary.mjs'
import { platformFields } from './packages.mjs'

const folder = process.argv[2]
const { version: released } = JSON.parse(readFileSync(path.join(folder, 'node-kandinsky', 'package.json'), 'utf8'))
const server = createServer((request, response) => {
  const name = path.posix.basename(decodeURIComponent(request.url))
  const tarball = path.join(folder, name.endsWith('.tgz') ? name : `${name}.tgz`)
  const bytes = existsSync(tarball) ? readFileSync(tarball) : undefined
  if (name.endsWith('.tgz') && bytes) return response.end(bytes)
  // Of targets that were not made a registry knows that they are not for this machine.
  const manifest = bytes
    ? JSON.parse(readFileSync(path.join(folder, name, 'package.json'), 'utf8'))
    : targets[name] && { name: `@node-kandinsky/${name}`, version: released, ...platformFields(targets[name]) }
  if (!manifest) return response.writeHead(404).end('{}')
  const { version } = manifest
  const integrity = `sha512-${createHash('sha512')
    .update(bytes ?? '')
    .digest('base64')}`
  const dist = { integrity, tarball: `http://127.0.0.1:${server.address().port}/${name}.tgz` }
  const versions = { [version]: { ...manifest, dist } }
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify({ name: manifest.name, 'dist-tags': { latest: version }, versions }))
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
process.stdin.on('end', () => process.exit()).resume()

// The page at `/` (page/ in the package): plain files that talk to the server through its jobs API.
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { Hono } from 'hono'
import binaries from '../binaries.cjs'
import { schedulerShortNames } from '../schedulers/registry.js'
import { version } from '../version.js'
import type { Service } from './service.js'

/** Named one by one: no request names a file of this machine. */
const names = [
  'style.css',
  'icon.svg',
  ...['main', 'server', 'recipe', 'form', 'mix', 'editor', 'gallery', 'jobs', 'elements', 'store'].map(
    (name) => `${name}.js`,
  ),
]
const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.js': 'text/javascript; charset=utf-8',
}
/** Nothing from elsewhere, nothing inline, in no frame; pictures are made of bytes in the page. */
const policy = [
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'",
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
].join('; ')

export function page(): Hono {
  const app = new Hono()
  for (const [route, name] of [['/', 'index.html'], ...names.map((file) => [`/page/${file}`, file])] as [
    string,
    string,
  ][])
    app.get(route, async (c) => {
      const body = await read(name)
      if (body === undefined) return c.text('The page was not bundled; the APIs are there.', 404)
      return c.body(new Uint8Array(body), 200, {
        'Content-Type': types[path.extname(name)]!,
        'Content-Security-Policy': policy,
        'Cross-Origin-Opener-Policy': 'same-origin',
        'Cross-Origin-Resource-Policy': 'same-origin',
        'Referrer-Policy': 'no-referrer',
        'Cache-Control': 'no-cache',
      })
    })
  return app
}

/** Undefined where a bundler left the files behind. */
async function read(name: string): Promise<Buffer | undefined> {
  try {
    return await readFile(binaries.pagePath(name))
  } catch {
    return undefined
  }
}

/** What the page offers to choose from. */
export function about({ models, ranges }: Service) {
  return {
    version,
    models: models.names,
    schedulers: schedulerShortNames,
    limits: { side: ranges.side.max, steps: ranges.steps.max, count: ranges.count.max },
  }
}

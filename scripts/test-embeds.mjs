// npm run test:embeds [-- webpack jest ...]: the recipes of docs/bundlers.md with the tools themselves, at the versions below.
//
// Each gets the packed packages, with this checkout's binary, in an application of its own, which is built as
// its users build and then draws a picture. It installs some hundreds of MB from npm and takes minutes, so it is not part of
// `npm test`. Prints a line for each; exits 1 if one fails, with the folder that it can be looked at in.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { makePackages } from './packages.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const node = process.execPath

const draw = `async function draw({ AutoPipelineForText2Image }) {
  const pipe = await AutoPipelineForText2Image.fromPretrained('demo', { threads: 1 })
  const { images } = await pipe.generate({ prompt: 'a cat', numInferenceSteps: 2 })
  const png = await images[0].toBuffer('png')
  await pipe.dispose()
  return 'drawn ' + images[0].width + ' ' + png.subarray(1, 4)
}`
const drawn = 'drawn 128 PNG'
const imported = `import * as kandinsky from 'node-kandinsky'\n${draw}\ndraw(kandinsky).then(console.log)`
const required = `const kandinsky = require('node-kandinsky')\n${draw}\ndraw(kandinsky).then(console.log)`
const testOf = (load) =>
  `${load}\n${draw}\ntest('draws', async () => expect(await draw(kandinsky)).toBe('${drawn}'), 60000)`

/** A server inside another, asked for a picture by OpenAI's API. */
const serving = (listen) => `import { getRequestListener } from '@hono/node-server'
import { createHandler } from 'node-kandinsky/server'
const handler = createHandler()
const listener = getRequestListener(handler.fetch)
${listen}
const response = await fetch('http://127.0.0.1:3918/pictures/v1/images/generations', { method: 'POST',
  headers: { 'content-type': 'application/json' }, body: JSON.stringify({ prompt: 'a cat', steps: 2 }) })
const { size, data } = await response.json()
console.log('drawn', size.split('x')[0], Buffer.from(data[0].b64_json, 'base64').toString('latin1', 1, 4))
await handler.close()
process.exit()`

/**
 * `tools` are what the application depends on beside the package, `files` what it consists of, `steps` commands (bin of a
 * tool and its arguments), of which the last one must print that it has drawn, or `passes` without.
 */
const hosts = {
  webpack: {
    tools: { webpack: '5.113.0', 'webpack-cli': '7.3.1' },
    files: {
      'entry.cjs': required,
      'webpack.config.cjs': `module.exports = { mode: 'production', target: 'node', entry: './entry.cjs',
        externals: { 'node-kandinsky': 'commonjs node-kandinsky' } }`,
    },
    steps: [['webpack'], [node, 'dist/main.js']],
  },
  'webpack, ES modules': {
    tools: { webpack: '5.113.0', 'webpack-cli': '7.3.1' },
    files: {
      'entry.mjs': imported,
      'webpack.config.cjs': `module.exports = { mode: 'production', target: 'node20', entry: './entry.mjs',
        experiments: { outputModule: true }, output: { module: true, filename: 'main.mjs' },
        externalsType: 'module', externals: ['node-kandinsky'] }`,
    },
    steps: [['webpack'], [node, 'dist/main.mjs']],
  },
  rspack: {
    tools: { '@rspack/core': '2.3.3', '@rspack/cli': '2.2.8' },
    files: {
      'entry.cjs': required,
      'rspack.config.cjs': `module.exports = { mode: 'production', target: 'node', entry: './entry.cjs',
        externals: { 'node-kandinsky': 'commonjs node-kandinsky' } }`,
    },
    steps: [
      ['rspack', 'build'],
      [node, 'dist/main.js'],
    ],
  },
  rollup: {
    tools: { rollup: '4.68.8' },
    files: { 'entry.mjs': imported },
    steps: [
      ['rollup', 'entry.mjs', '--external', 'node-kandinsky', '--format', 'es', '--file', 'dist/main.mjs'],
      [node, 'dist/main.mjs'],
    ],
  },
  vite: {
    tools: { vite: '8.3.8' },
    files: { 'entry.mjs': imported },
    steps: [
      ['vite', 'build', '--ssr', 'entry.mjs', '--outDir', 'dist'],
      [node, 'dist/entry.js'],
    ],
    module: true,
  },
  next: {
    tools: { next: '16.4.6', react: '19.3.1', 'react-dom': '19.3.1' },
    files: {
      'next.config.mjs': `export default { output: 'standalone', serverExternalPackages: ['node-kandinsky'],
        outputFileTracingRoot: import.meta.dirname, turbopack: { root: import.meta.dirname } }`,
      'app/layout.js': 'export default ({ children }) => <html lang="en"><body>{children}</body></html>',
      'app/page.js': 'export default () => <p>page</p>',
      'app/draw/route.js': `import * as kandinsky from 'node-kandinsky'\n${draw}
        export const dynamic = 'force-dynamic'
        export const GET = async () => new Response(await draw(kandinsky))`,
      // What is left out of the standalone folder must not be found beside it.
      'ask.mjs': `import { spawn } from 'node:child_process'
        import { cpSync, renameSync } from 'node:fs'
        cpSync('.next/standalone', '../standalone', { recursive: true, verbatimSymlinks: true })
        renameSync('node_modules', 'node_modules.away')
        const server = spawn(process.execPath, ['server.js'], { cwd: '../standalone', env: { ...process.env, PORT: '3917', HOSTNAME: '127.0.0.1' } })
        let answer
        for (let i = 0; i < 100 && !answer; i++) {
          await new Promise((resolve) => setTimeout(resolve, 300))
          answer = await fetch('http://127.0.0.1:3917/draw').then((r) => r.text()).catch(() => undefined)
        }
        console.log(answer)
        server.kill()`,
    },
    steps: [
      ['next', 'build'],
      [node, 'ask.mjs'],
    ],
    env: { NEXT_TELEMETRY_DISABLED: '1' },
  },
  express: {
    tools: { express: '5.3.0', '@hono/node-server': '2.1.9', hono: '4.13.19' },
    files: {
      'entry.mjs': serving(`import express from 'express'
const app = express()
app.use('/pictures', listener)
await new Promise((resolve) => app.listen(3918, '127.0.0.1', resolve))`),
    },
    steps: [[node, 'entry.mjs']],
  },
  fastify: {
    tools: { fastify: '5.12.8', '@hono/node-server': '2.1.9', hono: '4.13.19' },
    files: {
      'entry.mjs': serving(`import Fastify from 'fastify'
const app = Fastify()
app.register(async (pictures) => {
  pictures.removeAllContentTypeParsers()
  pictures.addContentTypeParser('*', (request, body, done) => done(null))
  pictures.all('/*', (request, reply) => {
    reply.hijack()
    request.raw.url = request.raw.url.slice('/pictures'.length)
    listener(request.raw, reply.raw)
  })
}, { prefix: '/pictures' })
await app.listen({ port: 3918 })`),
    },
    steps: [[node, 'entry.mjs']],
  },
  jest: {
    tools: { jest: '30.5.2' },
    files: { 'draw.test.js': testOf(`const kandinsky = require('node-kandinsky')`) },
    steps: [['jest']],
    passes: true,
  },
  'jest, ES modules': {
    tools: { jest: '30.5.2' },
    files: {
      'draw.test.mjs': testOf(`import * as kandinsky from 'node-kandinsky'`),
      'jest.config.mjs': `export default { testMatch: ['**/*.test.mjs'], transform: {} }`,
    },
    steps: [[node, '--experimental-vm-modules', 'node_modules/jest/bin/jest.js']],
    passes: true,
  },
  ...Object.fromEntries(
    ['forks', 'threads', 'vmThreads', 'vmForks'].map((pool) => [
      `vitest, ${pool}`,
      {
        tools: { vitest: '5.1.2', vite: '8.3.8' },
        files: {
          'draw.test.mjs': testOf(`import { expect, test } from 'vitest'\nimport * as kandinsky from 'node-kandinsky'`),
        },
        steps: [['vitest', 'run', '--pool', pool]],
        passes: true,
      },
    ]),
  ),
  pnpm: {
    manager: 'pnpm@12.21.0',
    files: { 'entry.mjs': imported },
    install: ['install', '--ignore-scripts'],
    steps: [[node, 'entry.mjs']],
  },
  'yarn, node_modules': {
    manager: '@yarnpkg/cli-dist@4.18.1',
    bin: 'yarn',
    files: { 'entry.mjs': imported, '.yarnrc.yml': 'nodeLinker: node-modules\nenableTelemetry: false\n' },
    install: ['install', '--no-immutable'],
    steps: [[node, 'entry.mjs']],
  },
  "yarn, Plug'n'Play": {
    manager: '@yarnpkg/cli-dist@4.18.1',
    bin: 'yarn',
    files: { 'entry.cjs': required, '.yarnrc.yml': 'nodeLinker: pnp\nenableTelemetry: false\n' },
    install: ['install', '--no-immutable'],
    steps: [[node, '-r', './.pnp.cjs', 'entry.cjs']],
  },
  bun: {
    tools: { bun: '1.4.5' },
    files: { 'entry.mjs': imported },
    scripts: true, // its own, which fetches nothing: it puts the binary of the platform in place
    steps: [['bun', 'entry.mjs']],
  },
  deno: {
    tools: { deno: '2.9.6' },
    files: { 'entry.mjs': imported },
    scripts: true,
    steps: [['deno', 'run', '--allow-all', '--node-modules-dir=manual', 'entry.mjs']],
  },
  'single executable': {
    tools: { postject: '1.0.0-alpha.6' },
    files: {
      'main.cjs': `const { createRequire } = require('node:module')
        const kandinsky = createRequire(process.execPath)('node-kandinsky')\n${draw}\ndraw(kandinsky).then(console.log)`,
      'sea.json': JSON.stringify({ main: 'main.cjs', output: 'main.blob', disableExperimentalSEAWarning: true }),
      'copy.cjs': `require('node:fs').copyFileSync(process.execPath, 'program')`,
    },
    steps: [
      [node, '--experimental-sea-config', 'sea.json'],
      [node, 'copy.cjs'],
      [
        'postject',
        'program',
        'NODE_SEA_BLOB',
        'main.blob',
        '--sentinel-fuse',
        'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2',
      ],
      ['./program'],
    ],
  },
}

const wanted = process.argv.slice(2)
const names = Object.keys(hosts).filter((name) => wanted.length === 0 || wanted.some((word) => name.startsWith(word)))
if (names.length === 0) {
  console.error(`expected some of ${Object.keys(hosts).join('; ')}`)
  process.exit(2)
}
const work = mkdtempSync(path.join(tmpdir(), 'kandinsky-embeds-'))
const [tarball, registry] = await publish()
let failed = 0
for (const name of names) {
  const folder = path.join(work, name.replace(/\W+/g, '-'), 'app')
  const started = performance.now()
  const fault = tryHost(name, hosts[name], folder)
  const seconds = Math.round((performance.now() - started) / 1000)
  console.log(`${fault ? 'FAIL' : 'ok  '} ${name} (${seconds} s)${fault ? `\n${fault}\nin ${folder}` : ''}`)
  if (fault) failed++
  else rmSync(path.dirname(folder), { recursive: true, force: true })
}
if (failed === 0) rmSync(work, { recursive: true, force: true })
process.exit(failed > 0 ? 1 : 0)

/** The packages as a release has them, with this checkout's binary as that of this platform, and a registry for our scope. */
async function publish() {
  const binary = path.join(root, 'build', 'Release', 'kandinsky.node')
  if (!existsSync(binary)) throw new Error(`${binary} is not there: npm run build`)
  const folder = path.join(work, 'packages')
  const main = makePackages(folder, { here: true }).at(-1)
  const registry = spawn(node, [path.join(root, 'scripts', 'registry.mjs'), folder], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const [port] = await once(registry.stdout, 'data')
  return [main.tarball, `http://127.0.0.1:${String(port).trim()}`]
}

/** @returns what went wrong, if something did */
function tryHost(name, host, folder) {
  const { tools = {}, files, steps, manager, scripts = false, module = false, env = {}, passes = false } = host
  const write = (file, text) => {
    mkdirSync(path.dirname(path.join(folder, file)), { recursive: true })
    writeFileSync(path.join(folder, file), text)
  }
  const dependencies = { 'node-kandinsky': `file:${tarball}`, ...tools }
  write('package.json', JSON.stringify({ name: 'app', private: true, ...(module && { type: 'module' }), dependencies }))
  write('.npmrc', `@node-kandinsky:registry=${registry}\n`)
  for (const [file, text] of Object.entries(files)) write(file, text)
  // Its shared folder would remember the registry of an earlier run.
  if (files['.yarnrc.yml'])
    write(
      '.yarnrc.yml',
      `${files['.yarnrc.yml']}npmScopes:\n  node-kandinsky:\n    npmRegistryServer: ${registry}\n    npmMinimalAgeGate: 0\nunsafeHttpWhitelist: [127.0.0.1]\nglobalFolder: .yarn/global\n`,
    )
  try {
    if (manager) {
      const tool = path.join(path.dirname(folder), 'manager')
      mkdirSync(tool)
      run(['npm', 'install', '--prefix', tool, '--no-audit', '--no-fund', manager], tool)
      const bin = path.join(tool, 'node_modules', '.bin', host.bin ?? manager.split('@')[0])
      run([bin, ...host.install], folder, env)
    } else run(['npm', 'install', '--no-audit', '--no-fund', ...(scripts ? [] : ['--ignore-scripts'])], folder, env)
    let output = ''
    for (const [command, ...args] of steps) {
      const bin = path.join(folder, 'node_modules', '.bin', command)
      output = run([existsSync(bin) ? bin : command, ...args], folder, env)
    }
    if (!passes && !output.includes(drawn)) return `${name} printed ${JSON.stringify(output.slice(-1000))}`
  } catch (error) {
    return error.message
  }
}

function run([command, ...args], cwd, env = {}) {
  const options = {
    cwd,
    encoding: 'utf8',
    timeout: 300_000,
    env: { ...process.env, CI: '1', ...env },
  }
  const { status, stdout, stderr, error } = spawnSync(command, args, options)
  if (status !== 0)
    throw new Error(
      `${path.basename(command)} ${args.join(' ')}: ${error?.message ?? status}\n${stdout}\n${stderr}`.slice(-4000),
    )
  return stdout + stderr
}

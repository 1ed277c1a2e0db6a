// The package as npm delivers it: what is in the tarball, and that it runs where nothing can be compiled.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import path from 'node:path'
import { after, test } from 'node:test'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { installPackage, manifest, runScript } from '../helpers/installed-package.mjs'

const root = path.resolve(import.meta.dirname, '../..')
const { name } = manifest
const { folder, app, installed, tarball, files, byNpm } = installPackage()
after(() => rmSync(folder, { recursive: true, force: true }))

test('the tarball holds what runs and what is read, and no sources of a build', () => {
  for (const wanted of [
    'dist/index.js',
    'dist/index.d.ts',
    'cjs/index.js',
    'cjs/index.d.ts',
    'cjs/package.json',
    'dist/cli/main.js',
    'models/demo.gguf',
    'models/demo-inpaint.gguf',
    'models/demo.json',
    'page/index.html',
    'docs/building.md',
    'LICENSE',
    'THIRD_PARTY_NOTICES.md',
  ])
    assert.ok(files.includes(wanted), wanted)
  const folders = new Set(files.filter((file) => file.includes('/')).map((file) => file.split('/')[0]))
  assert.deepEqual([...folders].sort(), ['cjs', 'dist', 'docs', 'examples', 'models', 'page', 'prebuilds'])
  assert.deepEqual(
    files.filter((file) => /binding\.gyp|CMakeLists|\.(cpp|cu|h|map)$/.test(file)),
    [],
  )
})

test('it is small enough to carry the binaries of every target and the demo models', () => {
  assert.ok(statSync(tarball).size < 40e6)
})

test('an install runs no script and brings no build tools', {
  skip: !byNpm && 'npm has not cached every dependency',
}, () => {
  const { scripts } = JSON.parse(readFileSync(path.join(installed, 'package.json'), 'utf8'))
  for (const script of ['preinstall', 'install', 'postinstall']) assert.equal(scripts[script], undefined, script)
  const { packages } = JSON.parse(readFileSync(path.join(app, 'node_modules', '.package-lock.json'), 'utf8'))
  const installedNames = Object.keys(packages).map((folder) => folder.replace('node_modules/', ''))
  assert.ok(installedNames.length <= 13, installedNames.join(' '))
  for (const tool of ['cmake-js', 'node-addon-api', 'node-api-headers', 'prebuildify', 'typescript'])
    assert.ok(!installedNames.includes(tool), tool)
})

test('links of the README and of the guides lead to files that are in the tarball', () => {
  for (const page of files.filter((file) => file.endsWith('.md'))) {
    const text = readFileSync(path.join(installed, page), 'utf8')
    for (const [, link] of text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)) {
      const target = path.posix.join(path.posix.dirname(page), link)
      const isThere = files.some((file) => file === target || file.startsWith(`${target}/`))
      assert.ok(isThere, `${page} links to ${link}`)
    }
  }
})

test('package.json tells where the source, the issues and the documentation are', () => {
  assert.match(manifest.repository.url, /^git\+https:/)
  for (const field of ['homepage', 'bugs', 'license', 'author', 'description']) assert.ok(manifest[field], field)
  assert.ok(manifest.keywords.length > 0)
})

test('publint has nothing to say', async () => {
  const { messages } = await publint({ pkgDir: installed, strict: true })
  assert.deepEqual(
    messages.map((message) => formatMessage(message, manifest)),
    [],
  )
})

test('types fit for import and for require, in every way that TypeScript resolves them', () => {
  const attw = path.join(root, 'node_modules', '.bin', 'attw')
  const { status, stdout } = spawnSync(attw, [tarball, '--format', 'table-flipped', '--no-color'], { encoding: 'utf8' })
  assert.equal(status, 0, stdout)
})

test('the code says its own version without reading package.json', async () => {
  const { version } = await import('../../dist/version.js')
  assert.equal(version, manifest.version)
  for (const folder of ['dist', 'cjs'])
    for (const file of readdirSync(path.join(installed, folder), { recursive: true }))
      if (/\.c?js$/.test(file))
        assert.doesNotMatch(readFileSync(path.join(installed, folder, file), 'utf8'), /import\.meta|['/]package\.json'/)
})

const draw = `
  const pipe = await AutoPipelineForText2Image.fromPretrained('demo', { threads: 1 })
  const { images } = await pipe.generate({ prompt: 'a cat', numInferenceSteps: 3 })
  await images[0].save('cat.png')
  await pipe.dispose()
  console.log(images[0].width, images[0].height)`

test('import works from prebuilds alone, with no compiler in reach', () => {
  const { status, stdout, stderr } = runScript(
    app,
    'esm.mjs',
    `import { AutoPipelineForText2Image } from '${name}'${draw}`,
  )
  assert.equal(status, 0, stderr)
  assert.equal(stdout.trim(), '128 128')
})

for (const options of [[], ['--no-experimental-require-module']])
  test(`require works ${options.length ? 'where Node cannot require ES modules' : 'without a warning'}`, {
    skip: options.length > 0 && !process.allowedNodeEnvironmentFlags.has(options[0]) && 'no such option here',
  }, () => {
    const source = `const { AutoPipelineForText2Image } = require('${name}')\n;(async () => {${draw}})()`
    const { status, stdout, stderr } = runScript(app, 'cjs.cjs', source, ...options)
    assert.equal(status, 0, stderr)
    assert.equal(stdout.trim(), '128 128')
    assert.equal(stderr, '')
  })

test('import and require in one process share pictures, errors and the addon', () => {
  const { status, stderr } = runScript(
    app,
    'both.mjs',
    `import assert from 'node:assert'
     import { createRequire } from 'node:module'
     import * as imported from '${name}'
     const required = createRequire(import.meta.url)('${name}')
     assert.deepEqual(Object.keys(required).sort(), Object.keys(imported).sort())
     assert.equal(required.listDevices().length, imported.listDevices().length)
     assert.ok(new required.Tensor(new Float32Array(1), [1]) instanceof imported.Tensor)
     assert.throws(() => required.makeImageGrid([], 1, 1), imported.KandinskyError)`,
  )
  assert.equal(status, 0, stderr)
})

test('the command runs from the package', () => {
  const command = path.join(installed, manifest.bin.kandinsky)
  const { stdout } = spawnSync(process.execPath, [command, '--version'], { encoding: 'utf8' })
  assert.equal(stdout.trim(), manifest.version)
})

test('in an Electron archive the addon and the models come from what is unpacked beside it', () => {
  const archive = path.join(app, 'resources', 'app.asar', 'node_modules', name)
  const unpacked = archive.replace('app.asar', 'app.asar.unpacked')
  // Not a real archive, which plain Node cannot read: the code in the one folder, the binaries only in the other.
  for (const [folder, target] of [
    ['dist', archive],
    ['models', unpacked],
    ['prebuilds', unpacked],
  ])
    cpSync(path.join(installed, folder), path.join(target, folder), { recursive: true })
  cpSync(path.join(installed, 'package.json'), path.join(archive, 'package.json'))
  const { status, stdout, stderr } = runScript(
    app,
    path.join('resources', 'main.mjs'),
    `import { AutoPipelineForText2Image } from './app.asar/node_modules/${name}/dist/index.js'${draw}`,
  )
  assert.equal(status, 0, stderr)
  assert.equal(stdout.trim(), '128 128')
})

test('without any binary the error says what is missing and what to do', () => {
  const prebuild = path.join(installed, 'prebuilds', `${process.platform}-${process.arch}`)
  renameSync(prebuild, `${prebuild}.away`)
  const { stdout } = runScript(
    app,
    'missing.mjs',
    `import { listDevices, Generator } from '${name}'
     new Generator(1).randn([4])
     try { listDevices() } catch (error) { console.log(error.name, error.code, error.message) }`,
  )
  renameSync(`${prebuild}.away`, prebuild)
  assert.match(stdout, /^KandinskyError NATIVE_LOAD_FAILED/)
  assert.match(stdout, new RegExp(`${process.platform}.${process.arch}`))
  assert.match(stdout, /kandinsky doctor/)
  assert.match(stdout, /docs\/building\.md/)
})

// The package as npm delivers it: what is in the tarball, and that it runs where nothing can be compiled.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, readdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, test } from 'node:test'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { targets } from '../../scripts/check-binary.mjs'
import { addonPackage, installPackage, manifest, modelPackage, runScript } from '../helpers/installed-package.mjs'

const root = path.resolve(import.meta.dirname, '../..')
const { name } = manifest
const { folder, app, installed, tarballs, files, byNpm } = installPackage()
after(() => rmSync(folder, { recursive: true, force: true }))

test('the tarball holds what runs and what is read, and no sources of a build', () => {
  for (const wanted of [
    'dist/index.js',
    'dist/index.d.ts',
    'cjs/index.js',
    'cjs/index.d.ts',
    'cjs/package.json',
    'dist/cli/main.js',
    'page/index.html',
    'docs/building.md',
    'LICENSE',
    'THIRD_PARTY_NOTICES.md',
  ])
    assert.ok(files.includes(wanted), wanted)
  const folders = new Set(files.filter((file) => file.includes('/')).map((file) => file.split('/')[0]))
  assert.deepEqual([...folders].sort(), ['cjs', 'dist', 'docs', 'examples', 'page'])
  assert.deepEqual(
    files.filter((file) => /binding\.gyp|CMakeLists|\.(cpp|cu|h|map)$/.test(file)),
    [],
  )
})

test('a user downloads less than 25 MB, of which a production install can leave out all but 4', () => {
  const megabytes = (...names) => names.reduce((sum, each) => sum + statSync(tarballs[each]).size, 0) / 1e6
  assert.ok(megabytes(name, addonPackage, modelPackage) < 25)
  assert.ok(megabytes(name, addonPackage) < 4)
})

test('a package for each platform and one for the demo models are optional, at exactly this version', () => {
  const main = JSON.parse(readFileSync(path.join(installed, 'package.json'), 'utf8'))
  const others = [...Object.keys(targets).map((target) => `@node-kandinsky/${target}`), modelPackage]
  assert.deepEqual(main.optionalDependencies, Object.fromEntries(others.map((other) => [other, manifest.version])))
  assert.equal(main.private, undefined)
  assert.equal(manifest.private, true, 'what a checkout holds is not what is published')
  assert.equal(manifest.optionalDependencies, undefined, 'a checkout installs none of them')
  const addon = JSON.parse(readFileSync(path.join(app, 'node_modules', addonPackage, 'package.json'), 'utf8'))
  assert.deepEqual([addon.os, addon.cpu], [[process.platform], [process.arch]])
  assert.equal(addon.libc !== undefined, process.platform === 'linux')
  assert.equal(addon.version, manifest.version)
})

test('an install runs no script and brings no build tools', {
  skip: !byNpm && 'npm has not cached every dependency',
}, () => {
  const { scripts } = JSON.parse(readFileSync(path.join(installed, 'package.json'), 'utf8'))
  assert.equal(scripts, undefined)
  const { packages } = JSON.parse(readFileSync(path.join(app, 'node_modules', '.package-lock.json'), 'utf8'))
  const installedNames = Object.keys(packages).map((folder) => folder.replace('node_modules/', ''))
  assert.ok(installedNames.length <= 15, installedNames.join(' '))
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
  for (const each of Object.keys(tarballs)) {
    const pkgDir = path.join(app, 'node_modules', each)
    const pkg = JSON.parse(readFileSync(path.join(pkgDir, 'package.json'), 'utf8'))
    const { messages } = await publint({ pkgDir, strict: true })
    assert.deepEqual(
      messages.map((message) => formatMessage(message, pkg)),
      [],
      each,
    )
  }
})

test('types fit for import and for require, in every way that TypeScript resolves them', () => {
  const attw = path.join(root, 'node_modules', '.bin', 'attw')
  const { status, stdout } = spawnSync(attw, [tarballs[name], '--format', 'table-flipped', '--no-color'], {
    encoding: 'utf8',
  })
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

test("import works from the platform's package, with no compiler in reach", () => {
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

test('an addon of another version is refused, with both versions and what to do', () => {
  const file = path.join(installed, 'dist/version.js')
  const code = readFileSync(file, 'utf8')
  writeFileSync(file, code.replace(manifest.version, '99.0.0'))
  try {
    const { stdout } = runScript(
      app,
      'version.mjs',
      `import { listDevices } from '${name}'
       try { listDevices() } catch (error) { console.log(error.code, error.message) }`,
    )
    assert.match(stdout, /^NATIVE_LOAD_FAILED Expected the native addon of version 99\.0\.0 but .* is of \d/)
    assert.ok(stdout.includes(`is of ${manifest.version}. Install`), stdout)
  } finally {
    writeFileSync(file, code)
  }
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
  // Not a real archive, which plain Node cannot read: a folder that lists all, as one does, but what must be outside is empty.
  const modules = path.join(app, 'node_modules')
  const archive = path.join(app, 'resources', 'app.asar', 'node_modules')
  const unpacked = archive.replace('app.asar', 'app.asar.unpacked')
  for (const file of ['dist', 'package.json'])
    cpSync(path.join(installed, file), path.join(archive, name, file), { recursive: true })
  for (const each of [addonPackage, modelPackage])
    for (const target of [archive, unpacked])
      cpSync(path.join(modules, each), path.join(target, each), { recursive: true })
  for (const file of readdirSync(path.join(archive, '@node-kandinsky'), { recursive: true }))
    if (/\.(node|gguf)$/.test(file)) truncateSync(path.join(archive, '@node-kandinsky', file))
  const { status, stdout, stderr } = runScript(
    app,
    path.join('resources', 'main.mjs'),
    `import { AutoPipelineForText2Image } from './app.asar/node_modules/${name}/dist/index.js'${draw}`,
  )
  assert.equal(status, 0, stderr)
  assert.equal(stdout.trim(), '128 128')
})

/** Runs with a folder of node_modules out of reach. */
function without(folder, run) {
  const there = path.join(app, 'node_modules', folder)
  renameSync(there, `${there}.away`)
  try {
    return run()
  } finally {
    renameSync(`${there}.away`, there)
  }
}

test('without the demo models the error names their package, and all else works', () => {
  const { stdout } = without(modelPackage, () =>
    runScript(
      app,
      'modelless.mjs',
      `import { AutoPipelineForText2Image, listDevices } from '${name}'
       console.log(listDevices().length)
       await AutoPipelineForText2Image.fromPretrained('demo').catch(({ code, message }) => console.log(code, message))`,
    ),
  )
  assert.match(stdout, /^1\nFILE_NOT_FOUND /)
  assert.match(stdout, new RegExp(` npm install ${modelPackage}@${manifest.version}$`, 'm'))
})

test('without the optional packages the error names the one for this machine, and what to do', () => {
  const doctor = () =>
    spawnSync(process.execPath, [path.join(installed, manifest.bin.kandinsky), 'doctor'], { encoding: 'utf8' })
  const [{ stdout }, looked] = without('@node-kandinsky', () => [
    runScript(
      app,
      'missing.mjs',
      `import { listDevices, Generator } from '${name}'
       new Generator(1).randn([4])
       try { listDevices() } catch (error) { console.log(error.name, error.code, error.message) }`,
    ),
    doctor(),
  ])
  assert.match(stdout, /^KandinskyError NATIVE_LOAD_FAILED/)
  assert.match(stdout, new RegExp(`${addonPackage}, an optional dependency, which is not installed`))
  assert.match(stdout, /--include=optional/)
  assert.match(stdout, /kandinsky doctor/)
  assert.match(stdout, /docs\/building\.md/)
  assert.equal(looked.status, 1)
  assert.match(looked.stdout + looked.stderr, /Problem: No native addon/)
  assert.match(looked.stdout, /@node-kandinsky\/demo-models is not installed/)
})

// The package as npm delivers it: what is in the tarball, and that it runs where nothing can be compiled.
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'

const root = path.resolve(import.meta.dirname, '../..')
const { name, dependencies } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))
const folder = mkdtempSync(path.join(tmpdir(), 'kandinsky-package-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const installed = path.join(folder, 'app with spaces', 'node_modules', name)
let files

before(() => {
  const [packed] = JSON.parse(
    execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--loglevel', 'silent', '--pack-destination', folder], {
      cwd: root,
      encoding: 'utf8',
    }),
  )
  files = packed.files.map((file) => file.path)
  mkdirSync(installed, { recursive: true })
  execFileSync('tar', ['-xzf', path.join(folder, packed.filename), '--strip-components=1', '-C', installed])
  // A release carries the binary as a prebuild; here it is the one that this checkout built.
  const prebuild = path.join(installed, 'prebuilds', `${process.platform}-${process.arch}`)
  mkdirSync(prebuild, { recursive: true })
  cpSync(path.join(root, 'build', 'Release', 'kandinsky.node'), path.join(prebuild, 'node.napi.node'))
  for (const dependency of Object.keys(dependencies)) {
    const link = path.join(path.dirname(installed), dependency)
    mkdirSync(path.dirname(link), { recursive: true })
    symlinkSync(path.join(root, 'node_modules', dependency), link)
  }
})

/** Runs a script beside the installed package, with nothing but Node on the PATH. */
function run(file, source) {
  const script = path.join(folder, 'app with spaces', file)
  writeFileSync(script, source)
  const env = { PATH: path.dirname(process.execPath), PREBUILDS_ONLY: '1', HOME: folder }
  return spawnSync(process.execPath, [script], { encoding: 'utf8', env })
}

test('the tarball holds the library, the command, the sources of a build, and nothing else', () => {
  for (const wanted of [
    'dist/index.js',
    'dist/index.d.ts',
    'dist/cli/main.js',
    'models/demo.gguf',
    'models/demo-inpaint.gguf',
    'binding.gyp',
    'CMakeLists.txt',
    'LICENSE',
  ])
    assert.ok(files.includes(wanted), wanted)
  for (const wanted of ['scripts/cmake.mjs', 'native/ggml/src/ggml.c', 'native/ggml/LICENSE', 'THIRD_PARTY_NOTICES.md'])
    assert.ok(files.includes(wanted), wanted)
  const stray = files.filter((file) =>
    /^(test|bench|examples|\.ci|build|src)\/|native\/(test|bench)\/|fixtures/.test(file),
  )
  assert.deepEqual(stray, [])
})

test('import works from prebuilds alone, with no compiler in reach', () => {
  const { status, stdout, stderr } = run(
    'esm.mjs',
    `import { AutoPipelineForText2Image } from '${name}'
     const pipe = await AutoPipelineForText2Image.fromPretrained('demo', { threads: 1 })
     const { images } = await pipe.generate({ prompt: 'a cat', numInferenceSteps: 3 })
     await images[0].save('${path.join(folder, 'cat.png')}')
     await pipe.dispose()
     console.log(images[0].width, images[0].height)`,
  )
  assert.equal(status, 0, stderr)
  assert.equal(stdout.trim(), '128 128')
})

test('require() works where the Node version can require ES modules', {
  skip: !process.features.require_module && 'this Node cannot require ES modules',
}, () => {
  const { status, stdout, stderr } = run(
    'cjs.cjs',
    `console.log(typeof require('${name}').AutoPipelineForText2Image.fromPretrained)`,
  )
  assert.equal(status, 0, stderr)
  assert.equal(stdout.trim(), 'function')
})

test('without any binary the error says what is missing and what to do', () => {
  const prebuild = path.join(installed, 'prebuilds', `${process.platform}-${process.arch}`, 'node.napi.node')
  rmSync(prebuild)
  const { stdout } = run(
    'missing.mjs',
    `import { listDevices, Generator } from '${name}'
     new Generator(1).randn([4])
     try { listDevices() } catch (error) { console.log(error.name, error.code, error.message) }`,
  )
  assert.match(stdout, /^KandinskyError NATIVE_LOAD_FAILED/)
  assert.match(stdout, new RegExp(`${process.platform}.${process.arch}`))
  assert.match(stdout, /npm rebuild node-kandinsky/)
})

test('the prebuild has the name that Electron rebuilders recognise', () => {
  const { scripts } = createRequire(import.meta.url)('../../package.json')
  assert.match(scripts['make:prebuilds'], /prebuild/)
  const source = readFileSync(path.join(root, 'scripts', 'prebuild.mjs'), 'utf8')
  assert.match(source, /'node\.napi'/)
})

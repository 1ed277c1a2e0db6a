// Makes what is published, in build/packages: `npm run make:packages [-- --here]`.
//
//   node-kandinsky               the JavaScript, types, page, guides and examples, with the others as optional dependencies
//   @node-kandinsky/<target>     the binary of one target, for those whose `os`, `cpu` and `libc` it has: from prebuilds/
//   @node-kandinsky/demo-models  what the sources 'demo' and 'demo-inpaint' name
//
// A folder and a tarball each. All have one version, and depend on exactly that of each other. A checkout needs none of them:
// package.json lists them only here. With --here, the package for this machine holds what this checkout built, and those of
// other targets are not made: tests install that.
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { checkBinary, targets, thisTarget } from './check-binary.mjs'
import { stop } from './cmake.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))
const scope = `@${manifest.name}`
const models = `${scope}/demo-models`

/**
 * @param {string} folder where to; what is there of an earlier run is replaced
 * @param {{ here?: boolean }} options
 * @returns {{ name: string, folder: string, tarball: string }[]} the main package last
 */
export function makePackages(folder, { here = false } = {}) {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const binaries = here ? [[thisTarget(), targets[thisTarget()]]] : Object.entries(targets)
  return [
    ...binaries.map(([name, target]) => platformPackage(folder, name, target, here)),
    modelPackage(folder),
    mainPackage(folder),
  ]
}

function platformPackage(folder, name, target, here) {
  const inside = path.posix.join('prebuilds', target.folder, target.file)
  const binary = here ? path.join(root, 'build', 'Release', 'kandinsky.node') : path.join(root, inside)
  const faults = !existsSync(binary) ? ['it is missing'] : here ? [] : checkBinary(binary, target)
  if (faults.length > 0) stop(`${binary} is not fit for ${name}: ${faults.join(', ')}`)
  const fields = { main: inside, ...platformFields(target) }
  return secondaryPackage(folder, `${scope}/${name}`, `The native addon of ${manifest.name} for ${name}`, fields, {
    [inside]: binary,
    'THIRD_PARTY_NOTICES.md': path.join(root, 'THIRD_PARTY_NOTICES.md'),
  })
}

/** By which package managers know whether a package is for their machine. */
export function platformFields({ folder, libc }) {
  const [os, cpu] = folder.split('-')
  return { os: [os], cpu: [cpu], ...(libc && { libc: [libc] }) }
}

function modelPackage(folder) {
  const files = ['demo.gguf', 'demo-inpaint.gguf', 'demo.json']
  // Where the models are, spelled as tracers read it.
  const index = path.join(folder, 'demo-models.js')
  const lines = files
    .slice(0, 2)
    .map((file) => `  '${path.basename(file, '.gguf')}': path.join(__dirname, '${file}'),\n`)
  writeFileSync(index, `const path = require('node:path')\n\nmodule.exports = {\n${lines.join('')}}\n`)
  const fields = { main: 'index.js', sideEffects: false }
  const made = secondaryPackage(folder, models, `The demo models of ${manifest.name}`, fields, {
    'index.js': index,
    ...Object.fromEntries(files.map((file) => [file, path.join(root, 'models', file)])),
    'THIRD_PARTY_NOTICES.md': path.join(root, 'THIRD_PARTY_NOTICES.md'),
  })
  rmSync(index)
  return made
}

/** `files`: from their path in the package to where they are. */
function secondaryPackage(folder, name, description, fields, files) {
  const staged = path.join(folder, name.split('/')[1])
  for (const [file, from] of Object.entries({ ...files, LICENSE: path.join(root, 'LICENSE') })) {
    mkdirSync(path.dirname(path.join(staged, file)), { recursive: true })
    cpSync(from, path.join(staged, file))
  }
  const { version, homepage, bugs, repository, license, author, engines } = manifest
  // Yarn's archives cannot be read by native code.
  const own = {
    name,
    version,
    description,
    homepage,
    bugs,
    repository,
    license,
    author,
    type: 'commonjs',
    engines,
    preferUnplugged: true,
    ...fields,
  }
  writeJson(path.join(staged, 'package.json'), own)
  const readme = `# ${name}\n\n${description}. It is installed with [${manifest.name}](${homepage}) where it is of use; do not depend on it.\n`
  writeFileSync(path.join(staged, 'README.md'), readme)
  return packed(folder, name, staged)
}

function mainPackage(folder) {
  const plain = npmPack(root, folder)
  const staged = path.join(folder, manifest.name)
  mkdirSync(staged)
  execFileSync('tar', ['-xzf', plain, '--strip-components=1', '-C', staged])
  rmSync(plain)
  const { private: _, scripts, devDependencies, ...kept } = manifest
  const optional = [...Object.keys(targets).map((name) => `${scope}/${name}`), models]
  writeJson(path.join(staged, 'package.json'), {
    ...kept,
    optionalDependencies: Object.fromEntries(optional.map((name) => [name, manifest.version])),
  })
  return packed(folder, manifest.name, staged)
}

function packed(folder, name, staged) {
  const tarball = path.join(folder, `${path.basename(staged)}.tgz`)
  renameSync(npmPack(staged, folder), tarball)
  return { name, folder: staged, tarball }
}

function npmPack(from, to) {
  const args = ['pack', '--json', '--ignore-scripts', '--loglevel', 'silent', '--pack-destination', to]
  const [{ filename }] = JSON.parse(execFileSync('npm', args, { cwd: from, encoding: 'utf8' }))
  return path.join(to, filename)
}

function writeJson(file, value) {
  writeFileSync(file, `${JSON.stringify(value, undefined, 2)}\n`)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { values } = parseArgs({ options: { here: { type: 'boolean' } } })
  for (const { name, tarball } of makePackages(path.join(root, 'build', 'packages'), values))
    console.log(`${name}: ${(statSync(tarball).size / 1e6).toFixed(1)} MB`)
}

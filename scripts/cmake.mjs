// Builds the addon for this machine: `node scripts/cmake.mjs [Release|Debug] [-DNAME=VALUE ...]`.
//
// `npm install` in a checkout (with --if-missing: only where no binary is there yet) and `npm run build:native` call it.
// Incremental: CMake's tree lives in build/cmake, results go to build/<config>, where node-gyp-build looks for them.
//
//   KANDINSKY_CUDA=1      also build the CUDA backend, as a library that is loaded at run time
//   KANDINSKY_PORTABLE=1  for any machine of this kind, instead of tuned for this one
//   KANDINSKY_TESTS=1     also build the native test and benchmark programs
//   KANDINSKY_SANITIZE=address|undefined|thread
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { ensureGgml } from './ggml.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(import.meta.url)

/** What CMake must be told to build the addon, whatever the machine that it is for. */
export function definitions() {
  const enabled = (name) => (['1', 'true', 'on'].includes((process.env[name] ?? '').toLowerCase()) ? 'ON' : 'OFF')
  return {
    KANDINSKY_GGML_DIR: ensureGgml(),
    KANDINSKY_NODE_INCLUDES: `${require('node-api-headers').include_dir};${path.resolve(require('node-addon-api').include_dir)}`,
    KANDINSKY_CUDA: enabled('KANDINSKY_CUDA'),
    KANDINSKY_PORTABLE: enabled('KANDINSKY_PORTABLE'),
    KANDINSKY_TESTS: enabled('KANDINSKY_TESTS'),
    KANDINSKY_SANITIZE: process.env.KANDINSKY_SANITIZE ?? '',
  }
}

/**
 * Configures a tree where that is needed, and builds.
 * @param {string} tree path of CMake's own files
 * @param {string} config Release or Debug
 * @param {Record<string, string>} settings definitions
 * @param {string[]} [more] further arguments of the configuration
 */
export function buildTree(tree, config, settings, more = []) {
  const wanted = [
    `-DCMAKE_BUILD_TYPE=${config}`,
    ...Object.entries(settings).map(([name, value]) => `-D${name}=${value}`),
    ...more,
  ]
  const stamp = path.join(tree, 'settings.json')
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== JSON.stringify(wanted)) {
    const isNew = !existsSync(path.join(tree, 'CMakeCache.txt'))
    const generator = isNew && !process.env.CMAKE_GENERATOR && works(['ninja', '--version']) ? ['-G', 'Ninja'] : []
    mkdirSync(tree, { recursive: true })
    run('cmake', ['-S', root, '-B', tree, ...generator, ...wanted])
    writeFileSync(stamp, JSON.stringify(wanted))
  }
  run('cmake', ['--build', tree, '--config', config, '--parallel', String(availableParallelism())])
}

/** True if a program can be started. */
export function works([command, ...args]) {
  try {
    execFileSync(command, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

/** Ends with a message. */
export function stop(message) {
  console.error(`node-kandinsky: ${message}`)
  process.exit(1)
}

function run(command, args) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', cwd: root })
  if (error) stop(error.message)
  if (status !== 0) stop('the native build failed; the compiler messages above say where')
}

function requireTools() {
  const missing = []
  if (!works(['cmake', '--version'])) missing.push('CMake 3.18 or newer')
  const compilers = [process.env.CXX, 'c++', 'g++', 'clang++'].filter(Boolean)
  if (!compilers.some((name) => works([name, '--version']))) missing.push('GCC or Clang')
  if (missing.length === 0) return
  const hint = {
    linux: 'Debian, Ubuntu: apt install build-essential cmake git; Fedora: dnf install gcc-c++ make cmake git',
    darwin: 'xcode-select --install, then: brew install cmake',
    win32: 'MSYS2: pacman -S mingw-w64-clang-x86_64-{clang,cmake,ninja} git; the kernels do not compile with MSVC',
  }[process.platform]
  stop(
    `building the addon for ${process.platform}-${process.arch} needs ${missing.join(' and ')}.\n` +
      `  Install it (${hint ?? 'with your package manager'}), then run: npm run build:native`,
  )
}

function main() {
  const args = process.argv.slice(2)
  const ifMissing = args[0] === '--if-missing' && args.shift()
  if (ifMissing) {
    try {
      require('node-gyp-build').path(root)
      return
    } catch {} // there is none
  }
  const config = args[0]?.startsWith('-') === false ? args.shift() : 'Release'
  requireTools()
  let settings
  try {
    settings = definitions()
  } catch (error) {
    stop(error.message)
  }
  buildTree(path.join(root, 'build', 'cmake'), config, settings, args)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) main()

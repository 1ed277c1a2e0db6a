// Builds the addon: `node scripts/cmake.mjs [Release|Debug] [extra cmake-js arguments]`.
//
// binding.gyp calls it (npm install without a prebuilt binary, prebuildify) and `npm run build:native` does. Incremental:
// CMake's tree lives in build/cmake, results go to build/<config>, where node-gyp-build and prebuildify look for them.
//
//   KANDINSKY_CUDA=1      also build the CUDA backend, as a library that is loaded at run time
//   KANDINSKY_PORTABLE=1  build for release: ggml's CPU backend in all variants, chosen at run time
//   KANDINSKY_TESTS=1     also build the native test and benchmark programs
//   KANDINSKY_SANITIZE=address|undefined|thread
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { ensureGgml } from './ggml.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const [config = 'Release', ...extra] = process.argv.slice(2)

requireTools()
let ggml
try {
  ggml = ensureGgml()
} catch (error) {
  stop(error.message)
}

const enabled = (name) => (['1', 'true', 'on'].includes((process.env[name] ?? '').toLowerCase()) ? 'ON' : 'OFF')
const definitions = {
  KANDINSKY_GGML_DIR: ggml,
  KANDINSKY_CUDA: enabled('KANDINSKY_CUDA'),
  KANDINSKY_PORTABLE: enabled('KANDINSKY_PORTABLE'),
  KANDINSKY_TESTS: enabled('KANDINSKY_TESTS'),
  KANDINSKY_SANITIZE: process.env.KANDINSKY_SANITIZE ?? '',
}
const cmakeJs = createRequire(import.meta.url).resolve('cmake-js/bin/cmake-js')
const tree = path.join(root, 'build', 'cmake')
const common = ['--directory', root, '--out', tree, '--config', config, '--log-level', 'warn']
const settings = [...Object.entries(definitions).map(([name, value]) => `--CD${name}=${value}`), ...extra]

// `build` configures a new tree only: other definitions than the last time must be handed over explicitly.
const stamp = path.join(tree, 'settings.json')
const wanted = JSON.stringify({ config, settings })
if (existsSync(tree) && (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted)) run('configure')
// Not `compile`: it wipes the tree and builds everything again after any error.
run('build')
writeFileSync(stamp, wanted)

function run(command) {
  const { status } = spawnSync(process.execPath, [cmakeJs, command, ...common, ...settings], {
    stdio: 'inherit',
    cwd: root,
  })
  if (status !== 0) stop('the native build failed; the compiler messages above say where')
}

function requireTools() {
  const missing = []
  if (!works(['cmake', '--version'])) missing.push('CMake 3.18 or newer')
  // On Windows cmake-js finds Visual Studio itself.
  const compilers = [process.env.CXX, 'c++', 'g++', 'clang++'].filter(Boolean)
  if (process.platform !== 'win32' && !compilers.some((name) => works([name, '--version'])))
    missing.push('a C++17 compiler')
  if (missing.length === 0) return
  const hint = {
    linux: 'Debian, Ubuntu: apt install build-essential cmake git; Fedora: dnf install gcc-c++ make cmake git',
    darwin: 'xcode-select --install, then: brew install cmake',
    win32: 'Visual Studio Build Tools with the C++ workload, which contains CMake; and git',
  }[process.platform]
  stop(
    `no prebuilt binary fits ${process.platform}-${process.arch}, and building from source needs ${missing.join(' and ')}.\n` +
      `  Install it (${hint ?? 'with your package manager'}), then run: npm rebuild node-kandinsky`,
  )
}

function works([command, ...args]) {
  try {
    execFileSync(command, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

function stop(message) {
  console.error(`node-kandinsky: ${message}`)
  process.exit(1)
}

// Puts release binaries into prebuilds/: `npm run make:prebuilds [-- --target linux-arm64 ... | --all]`.
//
// Without a target: for this machine's kind. Each is compiled in a tree of its own (build/prebuild/<target>) by the clang of
// a pinned Zig, which carries the C libraries of all targets, so that one Linux machine builds them all, against a glibc
// that is old enough, with the C++ library linked in. Nothing is published that `checkBinary` does not pass. ZIG names
// another Zig to use, as on a machine that the pinned package has none for.
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { checkBinary, targets, thisTarget } from './check-binary.mjs'
import { buildTree, definitions, stop } from './cmake.mjs'
import { fetchTarball } from './npm-tarball.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const zigPin = JSON.parse(readFileSync(path.join(root, 'scripts', 'zig.json'), 'utf8'))

const { values } = parseArgs({
  options: { target: { type: 'string', multiple: true }, all: { type: 'boolean' } },
})
const wanted = values.all ? Object.keys(targets) : (values.target ?? [thisTarget()])
for (const name of wanted)
  if (!Object.hasOwn(targets, name)) stop(`no target ${name}: expected one of ${Object.keys(targets).join(', ')}`)
const zig = process.env.ZIG ?? fetchZig()
for (const name of wanted) {
  const file = build(name, targets[name])
  console.log(`${path.relative(root, file)}: ${(readFileSync(file).length / 2 ** 20).toFixed(1)} MB`)
}

/** @returns the path of the program, fetched into build/zig if it was not there */
function fetchZig() {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    stop(`the pinned Zig is one for linux-x64; set ZIG to a Zig ${zigPin.version} for this machine`)
  const folder = path.join(root, 'build', `zig-${zigPin.version}`)
  if (existsSync(folder)) return path.join(folder, 'zig')
  const work = mkdtempSync(path.join(tmpdir(), 'kandinsky-zig-'))
  try {
    console.log(`fetching ${zigPin.package}@${zigPin.version}`)
    const tarball = fetchTarball(zigPin, work)
    const staged = `${folder}.${process.pid}`
    mkdirSync(staged, { recursive: true })
    execFileSync('tar', ['-xzf', tarball, '--strip-components=1', '-C', staged])
    chmodSync(path.join(staged, 'zig'), 0o755)
    renameSync(staged, folder)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return path.join(folder, 'zig')
}

/** @returns the path of the binary in prebuilds/ */
function build(name, target) {
  console.log(`\n${name}`)
  const tree = path.join(root, 'build', 'prebuild', name)
  const output = path.join(tree, 'bin')
  mkdirSync(tree, { recursive: true })
  buildTree(tree, 'Release', {
    ...definitions(),
    ...toolchain(tree, target),
    KANDINSKY_PORTABLE: 'ON',
    KANDINSKY_CUDA: 'OFF',
    KANDINSKY_OUTPUT: output,
  })
  const built = path.join(output, 'kandinsky.node')
  const faults = checkBinary(built, target)
  if (faults.length > 0) stop(`${built} is not fit for ${name}:\n  ${faults.join('\n  ')}`)
  const file = path.join(root, 'prebuilds', target.folder, target.file)
  mkdirSync(path.dirname(file), { recursive: true })
  copyFileSync(built, file)
  return file
}

/** CMake takes a compiler to be one program: each part of Zig becomes a script of its own in the tree. */
function toolchain(tree, { zig: triple, system, processor }) {
  const script = (name, ...args) => {
    const file = path.join(tree, name)
    writeFileSync(file, `#!/bin/sh\nexec "${zig}" ${args.join(' ')} "$@"\n`)
    chmodSync(file, 0o755)
    return file
  }
  const common = ['-target', triple, '-fno-sanitize=undefined']
  return {
    CMAKE_SYSTEM_NAME: system,
    CMAKE_SYSTEM_PROCESSOR: processor,
    CMAKE_C_COMPILER: script('cc', 'cc', ...common),
    CMAKE_CXX_COMPILER: script('cxx', 'c++', ...common),
    CMAKE_AR: script('ar', 'ar'),
    CMAKE_RANLIB: script('ranlib', 'ranlib'),
    CMAKE_SHARED_LINKER_FLAGS: '-s',
    KANDINSKY_ARM_BF16: system === 'Darwin' ? '-mcpu=apple_m2' : '-mcpu=generic+v8_2a+bf16',
    ...(system === 'Darwin' && { CMAKE_INSTALL_NAME_TOOL: '/bin/true' }),
  }
}

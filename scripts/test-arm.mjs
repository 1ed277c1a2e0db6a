// Tests the AArch64 kernels on another processor: `node scripts/test-arm.mjs [text in a test's name]`.
//
// Cross-compiles the kernels' own tests (native/test/CMakeLists.txt) into build/arm64, looks at the machine code for
// spills, and runs the tests in each variant under QEMU's user-mode emulation, which says nothing about speed.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { findLoops } from './check-spills.mjs'

const VARIANTS = ['neon_bf16', 'neon', 'neon_f32', 'portable']
const PACKAGES = {
  'aarch64-linux-gnu-g++': 'g++-aarch64-linux-gnu',
  'aarch64-linux-gnu-objdump': 'binutils-aarch64-linux-gnu',
  'qemu-aarch64': 'qemu-user',
  cmake: 'cmake',
}

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const build = path.join(root, 'build', 'arm64')
const [filter = 'kernels'] = process.argv.slice(2)

const missing = Object.keys(PACKAGES).filter((program) => spawnSync(program, ['--version']).error)
if (missing.length > 0) {
  const packages = missing.map((program) => PACKAGES[program]).join(' ')
  stop(`${missing.join(' and ')} not found. Debian, Ubuntu: apt install ${packages}`)
}

const toolchain = {
  CMAKE_SYSTEM_NAME: 'Linux',
  CMAKE_SYSTEM_PROCESSOR: 'aarch64',
  CMAKE_CXX_COMPILER: 'aarch64-linux-gnu-g++',
  CMAKE_BUILD_TYPE: 'Release',
  CMAKE_EXE_LINKER_FLAGS: '-static', // or the emulator would need to know where the libraries of Arm are
}
const definitions = Object.entries(toolchain).map(([name, value]) => `-D${name}=${value}`)
run('cmake', ['-S', path.join(root, 'native', 'test'), '-B', build, ...definitions])
run('cmake', ['--build', build, '--parallel', String(availableParallelism())])

const objects = readdirSync(build, { recursive: true }).filter((file) => /neon\w*\.cpp\.o$/.test(file))
const loops = objects.flatMap((file) => findLoops(path.join(build, file), 'aarch64-linux-gnu-objdump'))
const bad = loops.filter(({ instructions, spills }) => instructions === 0 || spills > 0)
for (const { file, name, spills } of bad) console.error(`${file} ${name}: ${spills} vectors to or from the stack`)
if (loops.length === 0 || bad.length > 0) stop('the inner loops do not keep their sums in registers')
console.log(`${loops.length} inner loops keep their sums in registers`)

const program = path.join(build, 'kandinsky-kernel-test')
for (const variant of VARIANTS) {
  console.log(`\n${variant}`)
  run('qemu-aarch64', ['-cpu', 'max', program, '--filter', filter], { KANDINSKY_CPU: variant })
}

function run(command, args, environment = {}) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', env: { ...process.env, ...environment } })
  if (error) stop(error.message)
  if (status !== 0) process.exit(status ?? 1)
}

function stop(message) {
  console.error(message)
  process.exit(1)
}

// Runs the native tests and the Node tests: `npm test [-- text in a file name ...]`.
//
// The files are listed here because Node 20's runner takes no globs. One file at a time: the networks use all cores.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const wanted = process.argv.slice(2)

const files = readdirSync(path.join(root, 'test'), { recursive: true })
  .filter((file) => file.endsWith('.test.mjs') && (wanted.length === 0 || wanted.some((text) => file.includes(text))))
  .map((file) => path.join('test', file))
  .sort()
if (files.length === 0) stop(`no test file's name contains ${wanted.join(' or ')}`)

if (wanted.length === 0) {
  run(process.execPath, ['scripts/cmake.mjs'], { KANDINSKY_TESTS: '1' })
  const program = path.join('build', 'Release', 'kandinsky-native-test')
  const fixtures = ['--fixtures', path.join('test', 'fixtures')]
  run(program, fixtures)
  // That ran the kernels in every instruction set of this machine, but the networks only in the best ones.
  const { stdout } = spawnSync(program, ['--list-kernels'], { cwd: root, encoding: 'utf8' })
  for (const KANDINSKY_CPU of stdout.trim().split('\n')) {
    console.log(`\nnetworks with KANDINSKY_CPU=${KANDINSKY_CPU}`)
    for (const filter of ['matches_diffusers', 'matches_transformers', 'packed_weights'])
      run(program, [...fixtures, '--filter', filter], { KANDINSKY_CPU })
  }
  if (process.platform === 'linux') {
    console.log('\nCUDA kernels, and networks by them, on an emulated GPU')
    run(process.execPath, ['scripts/test-cuda-host.mjs'])
    for (const filter of ['cuda_', 'matches_diffusers', 'matches_transformers'])
      run(program, [...fixtures, '--device', 'cuda', '--filter', filter], { KANDINSKY_CUDA_KERNELS: 'always' })
  }
}
run(process.execPath, ['--test', '--test-concurrency=1', '--test-reporter=spec', ...files])

function run(command, args, environment = {}) {
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...environment },
  })
  if (error) stop(error.message)
  if (status !== 0) process.exit(status ?? 1)
}

function stop(message) {
  console.error(message)
  process.exit(1)
}

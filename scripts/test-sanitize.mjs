// The tests under sanitizers: `npm run test:sanitize [-- address | thread] [text in a file name ...]`.
//
// address: all native tests, then the addon's Node tests, under AddressSanitizer and UndefinedBehaviorSanitizer.
// thread: the native tests that use several threads and the concurrent Node tests under ThreadSanitizer.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { stop } from './cmake.mjs'
import { sanitizedBuild } from './sanitized.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')

// Left out: tests of memory and processor time, which sanitizers multiply, and those of signals that they handle themselves.
const TESTS = {
  address: {
    native: [''],
    node: [
      'native',
      'network',
      'gguf',
      'convert',
      'safetensors',
      'torch-zip',
      'robustness-calls',
      'robustness-configs',
    ],
  },
  thread: {
    native: ['tensor', 'kernels', 'network', 'only_graphs'],
    node: ['native', 'network', 'robustness-calls', 'turns'],
  },
}

const args = process.argv.slice(2)
const kinds = args[0] in TESTS ? [args.shift()] : Object.keys(TESTS)
for (const kind of kinds) test(kind, args)
console.log(`nothing found: ${kinds.join(', ')}`)

function test(kind, words) {
  const { program, environment } = sanitizedBuild(kind)
  const native = program('kandinsky-native-test')
  // The sanitizer is linked into programs, which free what they took, unlike Node.
  const leaks = environment.ASAN_OPTIONS?.replace('detect_leaks=0', 'detect_leaks=1') ?? ''
  const without = { ...environment, LD_PRELOAD: '', ASAN_OPTIONS: leaks }
  if (words.length === 0)
    for (const filter of TESTS[kind].native)
      run(native, ['--fixtures', path.join('test', 'fixtures'), '--filter', filter], without)
  const files = readdirSync(path.join(root, 'test', 'unit')).filter((file) =>
    words.length > 0
      ? words.some((text) => file.includes(text))
      : TESTS[kind].node.some((name) => file === `${name}.test.mjs`),
  )
  for (const file of files)
    run(process.execPath, ['--test', '--test-reporter=spec', path.join('test', 'unit', file)], environment)
}

function run(command, args, environment) {
  console.log(`\n${path.basename(command)} ${args.join(' ')}`)
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...environment, KANDINSKY_SANITIZED: '1' },
  })
  if (error) stop(error.message)
  if (status !== 0) stop(`${path.basename(command)} ${args.join(' ')} failed`)
}

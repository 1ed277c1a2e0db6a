// Builds that find mistakes, in trees of their own: what scripts/test-sanitize.mjs and the fuzzing programs run.
import { execFileSync } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildTree, definitions, stop, works } from './cmake.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')

// Clang has the fuzzer; GCC's ThreadSanitizer is a library that goes into a running Node.
const BUILDS = {
  address: {
    compilers: ['clang', 'clang++'],
    settings: { KANDINSKY_SANITIZE: 'address,undefined', KANDINSKY_FUZZ: 'ON' },
    runtime: 'libclang_rt.asan-x86_64.so',
    environment: {
      // Node frees little when it ends; LeakSanitizer counts in the native tests.
      ASAN_OPTIONS: 'detect_leaks=0:handle_segv=0:allocator_may_return_null=1',
      UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
    },
  },
  thread: {
    compilers: ['gcc', 'g++'],
    settings: { KANDINSKY_SANITIZE: 'thread' },
    runtime: 'libtsan.so',
    environment: { TSAN_OPTIONS: 'halt_on_error=1:second_deadlock_stack=1' },
  },
}

/**
 * Builds the addon and the native programs under a sanitizer.
 * @param {'address' | 'thread'} kind address and undefined behaviour, or data races
 * @returns {{ program(name: string): string, environment: Record<string, string> }} paths of programs, and what a Node
 *   process needs in its environment to load the addon of this build
 */
export function sanitizedBuild(kind) {
  const { compilers, settings, runtime, environment } = BUILDS[kind]
  for (const name of compilers)
    if (!works([name, '--version'])) stop(`${name} not found. Debian, Ubuntu: apt install clang g++`)
  const tree = path.join(root, 'build', kind)
  const output = path.join(tree, 'build', 'Release')
  buildTree(path.join(tree, 'cmake'), 'RelWithDebInfo', {
    ...{ ...definitions(), KANDINSKY_TESTS: 'ON', ...settings, KANDINSKY_OUTPUT: output },
    ...{ CMAKE_C_COMPILER: compilers[0], CMAKE_CXX_COMPILER: compilers[1], CMAKE_CXX_FLAGS_RELWITHDEBINFO: '-O1 -g1' },
    CMAKE_C_FLAGS_RELWITHDEBINFO: '-O1 -g1',
  })
  const library = execFileSync(compilers[0], [`-print-file-name=${runtime}`], { encoding: 'utf8' }).trim()
  return {
    program: (name) => path.join(output, name),
    environment: { ...environment, LD_PRELOAD: library, NODE_KANDINSKY_PREBUILD: tree },
  }
}

// Builds the engine and its native tests with clang in a tree of its own, and runs them: `npm run test:clang`. macOS,
// FreeBSD, Zig and clang-cl compile nothing else.
import { execFileSync } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { ensureGgml } from './ggml.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const tree = path.join(root, 'build', 'clang')
const output = path.join(tree, 'bin')
const run = (command, args) => execFileSync(command, args, { cwd: root, stdio: 'inherit' })

run('cmake', [
  ...['-S', '.', '-B', tree, '-DCMAKE_BUILD_TYPE=Release', '-DKANDINSKY_TESTS=ON'],
  ...['-DCMAKE_C_COMPILER=clang', '-DCMAKE_CXX_COMPILER=clang++'],
  ...[`-DKANDINSKY_OUTPUT=${output}`, `-DKANDINSKY_GGML_DIR=${ensureGgml()}`],
])
run('cmake', ['--build', tree, '--parallel'])
run(path.join(output, 'kandinsky-native-test'), ['--fixtures', path.join('test', 'fixtures')])

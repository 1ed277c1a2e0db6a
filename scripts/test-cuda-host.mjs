// Tests the CUDA kernels without a GPU: `npm run test:cuda-host [-- text in a test's name]`.
//
// Builds native/kernels/cuda as plain C++ on an emulated GPU (native/test/cuda_host) under the address and
// undefined-behaviour sanitizers, and runs the kernels' tests. Where the CUDA toolkit is, every kernel is also compiled
// for the cards it is meant for: none may spill registers, and those of matrix products must have tensor-core
// instructions. Neither says anything about speed.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const ARCHITECTURES = ['80', '90', '120']
const HOT_KERNELS = /product_kernel|attention_kernel/

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const build = path.join(root, 'build', 'cuda-host')
const sources = path.join(root, 'native', 'kernels', 'cuda')
const [filter = ''] = process.argv.slice(2)

for (const program of ['cmake', 'c++'])
  if (spawnSync(program, ['--version']).error) stop(`${program} not found. Debian, Ubuntu: apt install cmake g++`)
// No build type: optimization and sanitizers are part of what CMakeLists.txt says.
run('cmake', ['-S', path.join(root, 'native', 'test', 'cuda_host'), '-B', build, '-DCMAKE_BUILD_TYPE=None'])
run('cmake', ['--build', build, '--parallel', String(availableParallelism())])
run(path.join(build, 'kandinsky-cuda-host-test'), ['--filter', filter])

if (spawnSync('nvcc', ['--version']).error) console.log('no CUDA toolkit (nvcc): not compiled for a GPU')
else checkDeviceCode()

function checkDeviceCode() {
  const output = path.join(build, 'device')
  mkdirSync(output, { recursive: true })
  const kernels = readdirSync(sources)
    .filter((file) => file.endsWith('.cu'))
    .flatMap((file) => compile(file, output))
  for (const { name, architecture, registers, spills, products } of kernels)
    if (HOT_KERNELS.test(name) || spills > 0)
      console.log(`sm_${architecture} ${name}: ${registers} registers, ${spills} bytes spilled, ${products} mma.sync`)
  const bad = kernels.filter(({ name, spills, products }) => spills > 0 || (HOT_KERNELS.test(name) && products === 0))
  if (bad.length > 0) stop(`${bad.map(({ name }) => name).join(', ')}: spilled registers or no tensor cores`)
  const hot = new Set(kernels.map(({ name }) => name).filter((name) => HOT_KERNELS.test(name)))
  if (hot.size === 0) stop('no kernel of a matrix product was found')
  console.log(`${kernels.length} compiled kernels keep everything in registers; ${hot.size} multiply on tensor cores`)
}

/** The kernels of one source: { name, architecture, registers, spills, products }. */
function compile(file, output) {
  const common = ['-std=c++17', '-O3', `-I${path.join(root, 'native')}`, path.join(sources, file)]
  const ptx = path.join(output, `${file}.ptx`)
  nvcc([...common, '-ptx', '-arch=compute_80', '-o', ptx])
  const products = new Map(
    readFileSync(ptx, 'utf8')
      .split(/^(?=\.visible \.entry|\.entry)/m)
      .map((text) => [/\.entry (\w+)/.exec(text)?.[1], text.match(/mma\.sync/g)?.length ?? 0]),
  )
  const targets = ARCHITECTURES.map((number) => `-gencode=arch=compute_${number},code=sm_${number}`)
  const log = nvcc([...common, ...targets, '-Xptxas', '-v', '-c', '-o', path.join(output, `${file}.o`)])
  const entry =
    /entry function '(\w+)' for 'sm_(\d+)'[\s\S]*?(\d+) bytes spill stores, (\d+) bytes spill loads[\s\S]*?Used (\d+) registers/g
  return [...log.matchAll(entry)].map(([, symbol, architecture, stores, loads, registers]) => ({
    name: readable(symbol),
    architecture,
    registers: Number(registers),
    spills: Number(stores) + Number(loads),
    products: products.get(symbol) ?? 0,
  }))
}

/** `product_kernel<128, 64, 8, 3>` of a mangled name: its own name and its numbers. */
function readable(symbol) {
  const name = /[a-z]+(?:_[a-z]+)+(?=I|E)/.exec(
    symbol.replace(/^.*?GLOBAL__N__\w*?_cu_[0-9a-f]{8}\w*?\d+(?=[a-z])/, ''),
  )
  const numbers = [...symbol.matchAll(/L(?:i|N\w*?StoredTypeE)(\d+)E/g)].map(([, number]) => number)
  return (name?.[0] ?? symbol) + (numbers.length > 0 ? `<${numbers.join(', ')}>` : '')
}

function nvcc(args) {
  const { status, stdout, stderr } = spawnSync('nvcc', args, { encoding: 'utf8', maxBuffer: 1 << 26 })
  if (status !== 0) stop(stdout + stderr)
  return stdout + stderr
}

function run(command, args) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit' })
  if (error) stop(error.message)
  if (status !== 0) process.exit(status ?? 1)
}

function stop(message) {
  console.error(message)
  process.exit(1)
}

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { findLoops, findLoopsIn } from '../../scripts/check-spills.mjs'

const tree = path.resolve(import.meta.dirname, '../../build/cmake')
const objects = path.join(tree, 'CMakeFiles/kandinsky_engine.dir/native/kernels/cpu')
const variants =
  {
    x64: ['avx2', 'avx2_f32', 'avx512', 'avx512_f32', 'avx512_bf16'],
    arm64: ['neon', 'neon_f32', 'neon_bf16'],
  }[process.arch] ?? []

/** Why there is no machine code to look at, or false. */
function missing() {
  if (variants.length === 0) return `no kernels are written for ${process.arch}`
  if (!existsSync(objects)) return 'the addon was not built here'
  if (/^KANDINSKY_SANITIZE:\w+=./m.test(readFileSync(path.join(tree, 'CMakeCache.txt'), 'utf8')))
    return 'the build is for sanitizers, which need registers of their own'
  try {
    if (/GNU/.test(execFileSync('objdump', ['--version'], { encoding: 'utf8' }))) return false
  } catch {}
  return 'GNU objdump (binutils) is not installed'
}

for (const variant of variants) {
  test(`the inner loops of ${variant} keep their sums in registers`, { skip: missing() }, () => {
    const loops = findLoops(path.join(objects, `${variant}.cpp.o`))
    assert.equal(loops.length, 12, 'tiles of 1 to 6 rows, one vector wide and as wide as a panel')
    for (const { name, instructions, spills } of loops) {
      assert.ok(instructions > 0, `no loop was found in ${name}`)
      assert.equal(spills, 0, `${name} moves ${spills} vectors to or from the stack on each of its rounds`)
    }
  })
}

/** What objdump prints for one function, as it is called, with these instructions at 0, 4, 8 ... */
function listing(file, instructions) {
  const lines = instructions.map((text, i) => `   ${(4 * i).toString(16)}:\t${text}`)
  const name = 'void kandinsky::(anonymous namespace)::multiply_tile<2, 1>(float const* const*)'
  return [`${file}:     file format elf64`, '', `0000000000000000 <${name}>:`, ...lines, ''].join('\n')
}

const cases = {
  'a sum that is loaded and stored': [2, 'vmovaps 0x40(%rsp),%zmm1', 'vmovaps %zmm1,0x40(%rsp)'],
  'a product that reads the stack': [1, 'vfmadd231ps -0x40(%rsp),%zmm2,%zmm3'],
  'a register of the processor, not a vector': [0, 'mov    0x8(%rsp),%rax'],
  '%rbp as an ordinary register': [0, 'vbroadcastss (%rbp,%rdx,4),%zmm4'],
}
for (const [name, [spills, ...extra]] of Object.entries(cases)) {
  test(`spills of a loop: ${name}`, () => {
    const text = listing('avx512.cpp.o', [
      'vmovaps %zmm9,(%rsp)', // before the loop: costs nothing
      'vfmadd231ps %zmm0,%zmm1,%zmm2',
      ...extra,
      'jne    4 <multiply_tile>',
    ])
    assert.deepEqual(findLoopsIn(text), [
      { name: 'multiply_tile<2, 1>', file: 'avx512.cpp.o', instructions: 2 + extra.length, spills },
    ])
  })
}

test('spills of a loop: through a frame pointer', () => {
  const body = ['vfmadd231ps %zmm0,%zmm1,%zmm2', 'vmovaps %zmm2,-0x40(%rbp)', 'jne    8 <multiply_tile>']
  const [loop] = findLoopsIn(listing('avx512.cpp.o', ['push   %rbp', 'mov    %rsp,%rbp', ...body]))
  assert.equal(loop.spills, 1)
})

test('spills of a loop: on AArch64', () => {
  const body = ['fmla\tv0.4s, v1.4s, v2.s[0]', 'str\tq0, [sp, #16]', 'ldp\tq3, q4, [sp]', 'b.ne\t4 <multiply_tile>']
  const [loop] = findLoopsIn(listing('neon.cpp.o', ['sub\tsp, sp, #0x40', ...body]))
  assert.deepEqual([loop.instructions, loop.spills], [4, 2])
})

test('a function without a loop of products is not taken for a good one', () => {
  const [loop] = findLoopsIn(listing('avx2.cpp.o', ['vfmadd231ps %ymm0,%ymm1,%ymm2', 'ret']))
  assert.equal(loop.instructions, 0)
})

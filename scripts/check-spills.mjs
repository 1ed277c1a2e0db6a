// node scripts/check-spills.mjs <object, archive or library> ...
//
// Looks at the machine code of the CPU kernels' inner loops for vector registers that the compiler moves to and from the
// stack: the loops are written to fit the registers exactly, and a compiler that spills there halves their speed without
// any other test failing. portable.cpp is left out: no one knows its registers. Prints one line per loop; exits 1 if a
// loop spills, 2 if no loop is found. Needs binutils' objdump; the variable OBJDUMP names another processor's.
import { execFileSync } from 'node:child_process'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const HOT_FUNCTION = /multiply_tile<\d+, \d+>/
const PRODUCT = /^(vdpbf16ps|vfmadd\w+|bfdot|fmla)\b/
const VECTOR = /%[xyz]mm\d|\b(ldr|str|ldp|stp)\s+q\d/
const STACK = /\(%rsp[,)]|\[sp\b/
// %rbp and x29 are ordinary registers, except in a function that begins by pointing them at its stack.
const FRAME_START = /^(mov\s+%rsp,%rbp|mov\s+x29, sp|stp\s+x29, .*\[sp)/
const STACK_OR_FRAME = /\(%r[sb]p[,)]|\[(sp|x29)\b/

/** Splits objdump's text into functions: { name, file, instructions: [{ address, text }] }. */
function parseFunctions(disassembly) {
  const functions = []
  let file = ''
  for (const line of disassembly.split('\n')) {
    file = /^(\S+):\s+file format/.exec(line)?.[1] ?? file
    const header = /^[0-9a-f]+ <(.+)>:$/.exec(line)
    if (header) {
      functions.push({ name: header[1], file: path.basename(file), instructions: [] })
      continue
    }
    const instruction = /^\s*([0-9a-f]+):\s+(\S.*)$/.exec(line)
    if (instruction)
      functions.at(-1)?.instructions.push({ address: Number.parseInt(instruction[1], 16), text: instruction[2] })
  }
  return functions
}

/** The loop (a backward jump and what lies before it) with the most products per instruction. */
function innerLoop(instructions) {
  let best = { body: [], density: 0 }
  for (const [end, { address, text }] of instructions.entries()) {
    const target = /^(?:j\w+|b\.\w+|cbn?z\s+\w+,)\s+(?:\w+,\s*)?([0-9a-f]+)/.exec(text)?.[1]
    if (!target || Number.parseInt(target, 16) >= address) continue
    const start = instructions.findIndex((one) => one.address === Number.parseInt(target, 16))
    if (start < 0) continue
    const body = instructions.slice(start, end + 1)
    const density = body.filter((one) => PRODUCT.test(one.text)).length / body.length
    if (density > best.density) best = { body, density }
  }
  return best.body
}

/**
 * The inner loops of the matrix-product kernels in the output of `objdump -d -C --no-show-raw-insn`.
 * @param {string} disassembly
 * @returns {{ name: string, file: string, instructions: number, spills: number }[]} `instructions` is 0 where a function
 *   has no loop with products in it
 */
export function findLoopsIn(disassembly) {
  return parseFunctions(disassembly)
    .filter(({ name, file }) => HOT_FUNCTION.test(name) && !file.includes('portable'))
    .map(({ name, file, instructions }) => {
      const onStack = instructions.some(({ text }) => FRAME_START.test(text)) ? STACK_OR_FRAME : STACK
      const body = innerLoop(instructions)
      return {
        name: HOT_FUNCTION.exec(name)[0],
        file,
        instructions: body.length,
        spills: body.filter(({ text }) => VECTOR.test(text) && onStack.test(text)).length,
      }
    })
}

/**
 * The same of an object file, archive or library.
 * @param {string} file path
 * @param {string} [objdump] the program, for other processors than this one
 */
export function findLoops(file, objdump = 'objdump') {
  const options = ['-d', '-C', '--no-show-raw-insn', file]
  return findLoopsIn(execFileSync(objdump, options, { encoding: 'utf8', maxBuffer: 1 << 30 }))
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const loops = process.argv.slice(2).flatMap((file) => findLoops(file, process.env.OBJDUMP))
  for (const { name, file, instructions, spills } of loops) {
    console.log(`${spills ? 'SPILLS' : 'ok'} ${spills} of ${instructions} instructions: ${file} ${name}`)
  }
  process.exitCode = loops.length === 0 ? 2 : loops.some(({ spills }) => spills > 0) ? 1 : 0
}

// node scripts/check-spills.mjs <object, archive or library> ...
//
// Looks at the machine code of the CPU kernels' inner loops for vector registers that the compiler moves to and from the
// stack: the loops are written to fit the registers exactly, and a compiler that spills there halves their speed without
// any test failing. portable.cpp is left out: no one knows its registers. Prints one line per loop; exits 1 if a loop spills, 2 if no loop is found. Needs binutils' objdump.
import { execFileSync } from 'node:child_process'
import { pathToFileURL } from 'node:url'

const HOT_FUNCTION = /multiply_tile<(\d+), (\d+)>/
const PRODUCT = /^(vdpbf16ps|vpdpbusd|vfmadd\w+|mulps|bfdot|fmla|usdot|sdot)\b/
const VECTOR_ON_STACK = /%[xyz]mm.*\(%r[sb]p|\(%r[sb]p.*%[xyz]mm|\b(ldr|str|ldp|stp)\s+q\d+.*\[sp/

/** Splits objdump's text into functions: { name, member, instructions: [{ address, text }] }. */
function parseFunctions(disassembly) {
  const functions = []
  let member = ''
  for (const line of disassembly.split('\n')) {
    member = /^(\S+):\s+file format/.exec(line)?.[1] ?? member
    const header = /^[0-9a-f]+ <(.+)>:$/.exec(line)
    if (header) {
      functions.push({ name: header[1], member, instructions: [] })
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
 * The inner loops of the matrix-product kernels in an object file, archive or library.
 * @param {string} file path
 * @param {string} [objdump] the program, for other processors than this one
 * @returns {{ name: string, instructions: number, spills: number }[]}
 */
export function findLoops(file, objdump = 'objdump') {
  const text = execFileSync(objdump, ['-d', '-C', '--no-show-raw-insn', file], { encoding: 'utf8', maxBuffer: 1 << 30 })
  return parseFunctions(text)
    .filter(({ name, member }) => HOT_FUNCTION.test(name) && !member.includes('portable'))
    .map(({ name, member, instructions }) => {
      const body = innerLoop(instructions)
      return {
        name: `${member} ${HOT_FUNCTION.exec(name)[0]}`,
        instructions: body.length,
        spills: body.filter((one) => VECTOR_ON_STACK.test(one.text)).length,
      }
    })
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const loops = process.argv.slice(2).flatMap((file) => findLoops(file, process.env.OBJDUMP))
  for (const { name, instructions, spills } of loops) {
    console.log(`${spills ? 'SPILLS' : 'ok'} ${spills} of ${instructions} instructions: ${name}`)
  }
  process.exitCode = loops.length === 0 ? 2 : loops.some(({ spills }) => spills > 0) ? 1 : 0
}

// A process of its own that may end where memory does: pictures under ever tighter limits of the address space, which
// make allocations fail as on a machine with little memory. Prints the outcome of each as JSON.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { Generator, KandinskyV22Pipeline } from '../../dist/index.js'
import { checkpoint } from './cases.mjs'

const MB = 2 ** 20
const addressSpace = () => 1024 * Number(/VmSize:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1])
const limit = (bytes) => execFileSync('prlimit', ['--pid', process.pid, `--as=${bytes}:`])

const pipe = await KandinskyV22Pipeline.fromPretrained(checkpoint('kandinsky-2-2-decoder'), { threads: 1 })
const generate = (side) => {
  const random = new Generator(1)
  const embeds = { imageEmbeds: random.randn([1, 128]), negativeImageEmbeds: random.randn([1, 128]) }
  return pipe.generate({ ...embeds, height: side, width: side, numInferenceSteps: 1, generator: random })
}
const hash = ({ images }) => Buffer.from(images[0].data).toString('base64')

const expected = hash(await generate(64))
const outcomes = []
for (const spare of [400, 300, 200, 150, 100]) {
  limit(addressSpace() + spare * MB)
  const outcome = await generate(768).then(
    () => 'done',
    ({ code, message }) => code ?? message,
  )
  limit('unlimited')
  outcomes.push({ spare, outcome, isUsable: hash(await generate(64)) === expected })
}
console.log(JSON.stringify(outcomes))

// One whole text-to-image run at full size with random weights: time of each stage and the process's peak memory.
//
//   node bench/text-to-image.mjs [--size 768] [--steps 2] [--type q8_0] [--packing compact] [--offload none] [--device cpu]
//
// Few steps suffice: steps cost the same, and the peak is reached in the first. Prints one JSON line.
import { existsSync, mkdirSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { AutoPipelineForText2Image, Generator } from '../dist/index.js'
import { writeRandomCheckpoint } from '../scripts/random-checkpoint.mjs'

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '768' },
    steps: { type: 'string', default: '2' },
    type: { type: 'string', default: 'q8_0' },
    packing: { type: 'string', default: 'compact' },
    offload: { type: 'string', default: 'none' },
    device: { type: 'string', default: 'cpu' },
  },
})
const { type, packing, offload, device } = values
const size = Number(values.size)
const steps = Number(values.steps)
const file = path.join(import.meta.dirname, '..', 'build', 'bench', `kandinsky-2-2-${type}.gguf`)
mkdirSync(path.dirname(file), { recursive: true })
if (!existsSync(file)) {
  // In a process of its own, so that its memory does not count.
  if (process.env.KANDINSKY_BENCH_WRITE) await writeRandomCheckpoint('kandinsky-2-2', file, { type })
  else {
    const { execFileSync } = await import('node:child_process')
    execFileSync(process.execPath, process.argv.slice(1), { env: { ...process.env, KANDINSKY_BENCH_WRITE: '1' } })
  }
}
if (!process.env.KANDINSKY_BENCH_WRITE) {
  const started = performance.now()
  const pipe = await AutoPipelineForText2Image.fromPretrained(file, { device, packing, offload })
  const marks = [
    ['load', started],
    ['', performance.now()],
  ]
  const { images } = await pipe.generate({
    prompt: 'red cat, 4k photo',
    height: size,
    width: size,
    numInferenceSteps: steps,
    priorNumInferenceSteps: 25,
    generator: new Generator(0),
    onStep: ({ stage, step, steps: all }) => {
      if (step === 1 || step === all) marks.push([`${stage} step ${step}`, performance.now()])
    },
  })
  marks.push(['decode', performance.now()])
  await pipe.dispose()
  const seconds = {}
  for (let i = 1; i < marks.length; i++) {
    const name = i === 1 ? 'load' : marks[i][0]
    seconds[name] = Math.round((marks[i][1] - marks[i - 1][1]) / 10) / 100
  }
  const peak_mb = Math.round(process.resourceUsage().maxRSS / 1024)
  console.log(JSON.stringify({ size, type, packing, offload, device, pictures: images.length, seconds, peak_mb }))
}

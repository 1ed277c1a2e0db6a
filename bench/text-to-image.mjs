// One whole text-to-image run at full size with random weights: time of each stage and the process's peak memory.
//
//   node bench/text-to-image.mjs [--model kandinsky-2-2 | kandinsky-3] [--size 768] [--steps 2] [--type q8_0]
//     [--packing compact] [--offload none] [--device cpu] [--generations 1]
//
// Few steps suffice: steps cost the same, and the peak is reached in the first. Prints one JSON line.
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { AutoPipelineForText2Image, Generator } from '../dist/index.js'
import { writeRandomCheckpoint } from '../scripts/random-checkpoint.mjs'

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'kandinsky-2-2' },
    size: { type: 'string', default: '768' },
    steps: { type: 'string', default: '2' },
    type: { type: 'string', default: 'q8_0' },
    packing: { type: 'string', default: 'compact' },
    offload: { type: 'string', default: 'none' },
    device: { type: 'string', default: 'cpu' },
    generations: { type: 'string', default: '1' },
  },
})
const { model, type, packing, offload, device } = values
const size = Number(values.size)
const steps = Number(values.steps)
const file = path.join(import.meta.dirname, '..', 'build', 'bench', `${model}-${type}.gguf`)
mkdirSync(path.dirname(file), { recursive: true })
if (!existsSync(file)) {
  // In a process of its own, so that its memory does not count.
  if (process.env.KANDINSKY_BENCH_WRITE) await writeRandomCheckpoint(model, file, { type })
  else {
    const { execFileSync } = await import('node:child_process')
    execFileSync(process.execPath, process.argv.slice(1), { env: { ...process.env, KANDINSKY_BENCH_WRITE: '1' } })
  }
}
if (!process.env.KANDINSKY_BENCH_WRITE) {
  const peaks = watchMemory()
  const started = performance.now()
  const pipe = await AutoPipelineForText2Image.fromPretrained(file, { device, packing, offload })
  const load_s = seconds(performance.now() - started)
  const generations = []
  for (let i = 0; i < Number(values.generations); i++) generations.push(await timedGeneration(pipe))
  const peak_mb = Math.round(process.resourceUsage().maxRSS / 1024)
  await pipe.dispose()
  console.log(JSON.stringify({ model, size, type, packing, offload, device, load_s, generations, peak_mb, ...peaks }))
}

/** Seconds of a generation's stages. */
async function timedGeneration(pipe) {
  const marks = [['', performance.now()]]
  await pipe.generate({
    prompt: 'red cat, 4k photo',
    height: size,
    width: size,
    numInferenceSteps: steps,
    ...(model === 'kandinsky-2-2' && { priorNumInferenceSteps: 25 }),
    generator: new Generator(0),
    onStep: ({ stage, step, steps: all }) => {
      if (step === 1 || step === all) marks.push([`${stage} step ${step}`, performance.now()])
    },
  })
  marks.push(['decode', performance.now()])
  return Object.fromEntries(marks.slice(1).map(([name, time], i) => [name, seconds(time - marks[i][1])]))
}

function seconds(ms) {
  return Math.round(ms / 10) / 100
}

/**
 * The largest resident sizes of anonymous memory and of mapped file pages, looked at every 20 ms while networks compute
 * on their own threads. Their sum may be more than the peak: they are reached at different times. Linux only.
 */
function watchMemory() {
  const peaks = {}
  if (process.platform !== 'linux') return peaks
  const look = () => {
    const status = readFileSync('/proc/self/status', 'utf8')
    for (const kind of ['Anon', 'File']) {
      const megabytes = Math.round(Number(new RegExp(`Rss${kind}:\\s+(\\d+)`).exec(status)[1]) / 1024)
      const name = `peak_${kind.toLowerCase()}_mb`
      peaks[name] = Math.max(peaks[name] ?? 0, megabytes)
    }
  }
  setInterval(look, 20).unref()
  return peaks
}

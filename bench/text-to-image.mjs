// One whole text-to-image run at full size with random weights: time of each stage and the process's peak memory.
//
//   node bench/text-to-image.mjs [--model kandinsky-2-2 | kandinsky-3] [--size 768] [--steps 2] [--type q8_0]
//     [--packing compact] [--offload none] [--device cpu] [--generations 1]
//
// Few steps suffice: steps cost the same, and the peak is reached in the first. Prints one JSON line.
//
//   node bench/text-to-image.mjs --setting defaults --setting 25 --setting forecast --setting fast [--size 512]
//     [--torch eager] [--torch compiled] [--rounds 2] [--python python3]
//
// From prompt to picture with 2.2, networks loaded, by settings that people choose, and in turns with each way of torch, where
// diffusers has the first two. One JSON line for each, of the fastest of so many pictures. Of 100 steps 25 are computed, and the
// others taken to cost as much.
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { AutoPipelineForText2Image, Generator } from '../dist/index.js'
import { schedulerByName } from '../dist/schedulers/registry.js'
import { writeRandomCheckpoint } from '../scripts/random-checkpoint.mjs'
import { startWorker } from './children.mjs'

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'kandinsky-2-2' },
    size: { type: 'string' },
    steps: { type: 'string', default: '2' },
    type: { type: 'string', default: 'q8_0' },
    packing: { type: 'string', default: 'compact' },
    offload: { type: 'string', default: 'none' },
    device: { type: 'string', default: 'cpu' },
    generations: { type: 'string', default: '1' },
    setting: { type: 'string', multiple: true, default: [] },
    torch: { type: 'string', multiple: true, default: [] },
    rounds: { type: 'string', default: '2' },
    python: { type: 'string', default: 'python3' },
  },
})
const { model, type, packing, offload, device } = values
/** The defaults of diffusers; a sampler that needs fewer steps; and what leaves out more of the work. */
const settings = {
  defaults: { scheduler: 'ddpm', steps: 100 },
  25: { scheduler: 'dpm++', steps: 25 },
  forecast: { scheduler: 'dpm++', steps: 25, options: { forecast: 'balanced' } },
  fast: { scheduler: 'dpm++', steps: 25, options: { forecast: 'fast', guidanceInterval: [0, 0.6] } },
}
const MOST_STEPS = 25
for (const name of values.setting)
  if (!settings[name]) throw new Error(`unknown --setting ${name}: expected one of ${Object.keys(settings).join(', ')}`)
const size = Number(values.size ?? (values.setting.length > 0 ? 512 : 768))
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
if (values.setting.length > 0 && !process.env.KANDINSKY_BENCH_WRITE) await compareSettings()
else if (!process.env.KANDINSKY_BENCH_WRITE) {
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

/** Ours alone, or against each way of torch in turns. */
async function compareSettings() {
  const pipe = await AutoPipelineForText2Image.fromPretrained(file, { device, packing, offload })
  const own = pipe.scheduler
  await picture(pipe, 2) // warms up
  for (const way of values.torch.length > 0 ? values.torch : [undefined]) {
    const script = path.join(import.meta.dirname, 'torch_text_to_image.py')
    const torch = way && startWorker(values.python, [script, way, size])
    const first = await torch?.next()
    const runs = values.setting.flatMap((name) => {
      const { scheduler, steps, options } = settings[name]
      const computed = Math.min(steps, MOST_STEPS)
      const ours = () => {
        pipe.scheduler = schedulerByName(scheduler, own.config)
        return picture(pipe, computed, options)
      }
      const theirs = () => torch.ask(JSON.stringify({ scheduler, steps: computed }))
      const run = { setting: name, steps }
      return [{ ...run, side: 'ours', make: ours }, ...(way && !options ? [{ ...run, side: way, make: theirs }] : [])]
    })
    for (const run of runs) run.pictures = []
    for (let round = 0; round < Number(values.rounds); round++)
      for (const { make, pictures } of runs) pictures.push(await make())
    for (const run of runs) reportBest(run)
    if (torch) console.log(JSON.stringify({ side: way, first_s: seconds(1000 * first.first), ...(await torch.stop()) }))
  }
  await pipe.dispose()
}

/** Seconds of a picture's parts: everything up to the embedding, a step of the decoder, everything after the last. */
async function picture(pipe, numInferenceSteps, options = {}) {
  const marks = [performance.now()]
  let end = 0
  await pipe.generate({
    ...{ prompt: 'red cat, 4k photo', height: size, width: size, numInferenceSteps, seed: 0 },
    ...options,
    onStep: ({ stage, step, steps }) => {
      end = performance.now()
      if (stage === 'prior' && step === steps) marks.push(end)
    },
  })
  marks.push(performance.now())
  const [begin, embedded, done] = marks
  const parts = { prior: embedded - begin, step: (end - embedded) / numInferenceSteps, decode: done - end }
  return Object.fromEntries(Object.entries(parts).map(([part, ms]) => [part, ms / 1000]))
}

/** The picture with the shortest sum, of all its steps. */
function reportBest({ side, setting, steps, pictures }) {
  const [best] = pictures
    .map((parts) => ({ ...parts, total: parts.prior + steps * parts.step + parts.decode }))
    .sort((a, b) => a.total - b.total)
  const rounded = Object.entries(best).map(([part, value]) => [`${part}_s`, seconds(1000 * value)])
  console.log(JSON.stringify({ side, setting, size, steps, ...Object.fromEntries(rounded) }))
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

// Times single networks at their real size, filled with random weights, and, where Python with torch and diffusers is
// there, the same work in the same minutes: both sides take turns, the best of each counts, the ratio is what to quote.
//
//   npm run bench -- --case unet-512 --json [--type q8_0] [--device cpu] [--threads 2] [--packing fast] [--tiling always]
//       [--pictures 1] [--rounds 3] [--torch eager] [--torch compiled] [--python python3]
//
// Cases: prior (one guided step, 81 tokens), unet-256, unet-512, unet-768, unet-1024 (one guided step, batch 2), movq-512,
// movq-768 (one decode; both in any other size, too); of Kandinsky 2.1 prior21, unet21-512 and text21 (MultilingualCLIP,
// prompt and negative prompt); of Kandinsky 3 unet3-512, unet3-1024, movq3-1024, t5-32 and t5-128 (a prompt of so many
// tokens through four of the 32 equal layers; diffusers pads each to 128); of Kandinsky 5 transformer5-512 and -1024 (one guided
// step through 4 of the 50 equal visual blocks, texts of 130 tokens) and whole5-512 and -1024 (through all, ours alone). Without --case: all of them. The other side is
// eager torch; `--torch compiled` is torch.compile with inductor's freezing (weights packed once), which compiles for minutes
// in the first round, and naming both compares with both. `--no-torch` leaves it out; PYTHONPATH finds diffusers. `--pictures`
// makes the batch of a UNet's or prior's step that of so many pictures. `--profile` prints, after each step of ours, how long each
// kind of node ran; the first step also reads the file and allocates.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { writeRandomCheckpoint } from '../scripts/random-checkpoint.mjs'
import { startWorker } from './children.mjs'

const { values } = parseArgs({
  options: {
    case: { type: 'string', multiple: true },
    type: { type: 'string', default: 'q8_0' },
    device: { type: 'string', default: 'cpu' },
    threads: { type: 'string', default: '0' },
    packing: { type: 'string', default: 'compact' },
    tiling: { type: 'string', default: 'auto' },
    pictures: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '3' },
    torch: { type: 'string', multiple: true, default: ['eager'] },
    python: { type: 'string', default: 'python3' },
    'no-torch': { type: 'boolean' },
    json: { type: 'boolean' },
    profile: { type: 'boolean' },
  },
})
const allCases = [
  'prior',
  'unet-256',
  'unet-512',
  'unet-768',
  'unet-1024',
  'movq-512',
  'movq-768',
  'prior21',
  'unet21-512',
  'text21',
  'unet3-512',
  'unet3-1024',
  'movq3-1024',
  't5-32',
  't5-128',
  'transformer5-512',
  'transformer5-1024',
]
/** Checkpoint and component of the part of a case's name that stands before its size. */
const networks = {
  prior: ['kandinsky-2-2-prior', 'prior'],
  unet: ['kandinsky-2-2-decoder', 'unet'],
  movq: ['kandinsky-2-2-decoder', 'movq'],
  prior21: ['kandinsky-2-1-prior', 'prior'],
  unet21: ['kandinsky-2-1', 'unet'],
  text21: ['kandinsky-2-1', 'text_encoder'],
  unet3: ['kandinsky-3', 'unet'],
  movq3: ['kandinsky-3', 'movq'],
  t5: ['kandinsky-3-t5-4-layers', 'text_encoder'],
  transformer5: ['kandinsky-5-4-blocks', 'transformer'],
  whole5: ['kandinsky-5', 'transformer'],
}
const cases = values.case ?? allCases
for (const name of cases)
  if (!allCases.includes(name) && !/^((unet|movq)3?|t5|transformer5|whole5)-\d+$/.test(name))
    throw new Error(`unknown case ${name}: expected ${allCases.join(', ')}`)

const cache = path.join(import.meta.dirname, '..', 'build', 'bench')
mkdirSync(cache, { recursive: true })

for (const way of values.torch)
  if (!['eager', 'compiled'].includes(way)) throw new Error(`unknown --torch ${way}: expected eager or compiled`)
const hasTorch =
  !values['no-torch'] && spawnSync(values.python, ['-c', 'import torch, diffusers'], { stdio: 'ignore' }).status === 0

for (const name of cases) {
  const network = name.split('-')[0]
  const ways = hasTorch && network !== 'whole5' ? values.torch : []
  const [checkpoint, component] = networks[network]
  const file = path.join(cache, `${network}-${values.type}.gguf`)
  if (!existsSync(file)) await writeRandomCheckpoint(checkpoint, file, { type: values.type, components: [component] })

  const ours = startWorker(
    process.execPath,
    [
      path.join(import.meta.dirname, 'worker.mjs'),
      ...[name, file, values.device, values.threads, values.packing, values.tiling, values.pictures],
    ],
    values.profile ? { KANDINSKY_PROFILE: '1' } : {},
  )
  const load = await ours.next()
  const sides = [{ way: 'ours', worker: ours, times: [] }]
  for (const way of ways) {
    const worker = startWorker(
      values.python,
      [path.join(import.meta.dirname, 'torch_worker.py'), name, values.threads, values.pictures],
      way === 'compiled' ? { KANDINSKY_TORCH_COMPILE: '1' } : {},
    )
    await worker.next()
    sides.push({ way, worker, times: [] })
  }
  // The first round warms all sides up (and compiles) and does not count.
  for (const side of sides) side.first = (await side.worker.ask('step')).ms
  for (let round = 1; round <= Number(values.rounds); round++)
    for (const { worker, times } of sides) times.push((await worker.ask('step')).ms)
  const best = Math.min(...sides[0].times)
  const end = await ours.stop()
  const torch = {}
  for (const { way, worker, times, first } of sides.slice(1)) {
    const prefix = way === 'eager' ? 'torch' : 'compiled_torch'
    torch[`${prefix}_ms_per_step`] = round1(Math.min(...times))
    torch[`${prefix}_peak_mb`] = (await worker.stop()).peak_mb
    if (way === 'compiled') torch.compile_ms = Math.round(first)
    torch[way === 'eager' ? 'ratio' : 'compiled_ratio'] = Math.round((100 * Math.min(...times)) / best) / 100
  }
  report({
    case: name,
    ...(values.pictures !== '1' && { pictures: Number(values.pictures) }),
    ms_per_step: round1(best),
    peak_mb: end.peak_mb,
    compute_mb: end.compute_mb,
    load_ms: load.load_ms,
    weights: values.type,
    device: values.device,
    packing: values.packing,
    tiling: values.tiling,
    ...torch,
    cpu: os.cpus()[0]?.model.trim(),
  })
}

function report(result) {
  if (values.json) console.log(JSON.stringify(result))
  else {
    let torch = ''
    if (result.ratio) torch += `, torch ${result.torch_ms_per_step} ms, ratio ${result.ratio}`
    if (result.compiled_ratio)
      torch += `, compiled torch ${result.compiled_torch_ms_per_step} ms, ratio ${result.compiled_ratio}`
    console.log(
      `${result.case}: ${result.ms_per_step} ms, peak ${result.peak_mb} MB (${result.weights}, ${result.device})${torch}`,
    )
  }
}

function round1(ms) {
  return Math.round(ms * 10) / 10
}

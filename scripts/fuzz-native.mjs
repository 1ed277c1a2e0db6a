// Runs the fuzzing programs of native/fuzz: `npm run fuzz:native -- [--seconds N] [--keep] [target ...]`, each for N seconds
// (60); --keep adds what reached new code to its corpus. Each has a corpus in native/fuzz/corpus: small inputs that together reach what has
// been reached so far, and those that once found something.
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { stop } from './cmake.mjs'
import { sanitizedBuild } from './sanitized.mjs'

const folder = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', 'native', 'fuzz')
const findings = path.resolve(folder, '..', '..', 'build', 'findings')

/** Their names: the source files without `.cpp`. */
const targets = readdirSync(folder)
  .filter((file) => file.endsWith('.cpp'))
  .map((file) => path.basename(file, '.cpp'))

/**
 * Runs one program; what it finds is put into build/findings.
 * @param {string} name one of `targets`
 * @param {{ seconds: number, keep?: boolean }} options for how long, and whether what reaches new code joins the corpus
 * @returns {boolean} whether it found nothing
 */
function fuzzNative(name, { seconds, keep = false }) {
  const { program, environment } = sanitizedBuild('address')
  const corpus = path.join(folder, 'corpus', name)
  const found = mkdtempSync(path.join(tmpdir(), 'kandinsky-fuzz-'))
  mkdirSync(findings, { recursive: true })
  const run = (...args) =>
    spawnSync(program(`kandinsky-fuzz-${name}`), args, {
      stdio: 'inherit',
      env: { ...process.env, ...environment, LD_PRELOAD: '' },
    }).status === 0
  try {
    // A file may cost a small multiple of its size, and inputs have a few kilobytes at most.
    const limits = ['-malloc_limit_mb=128', '-rss_limit_mb=2048', '-timeout=5', '-max_len=4096']
    const prefix = `-artifact_prefix=${path.join(findings, `${name}-`)}`
    const ok = run(found, corpus, `-max_total_time=${seconds}`, '-print_final_stats=1', ...limits, prefix)
    return keep ? ok && run('-merge=1', corpus, found) : ok
  } finally {
    rmSync(found, { recursive: true, force: true })
  }
}

const { values, positionals } = parseArgs({
  options: { seconds: { type: 'string', default: '60' }, keep: { type: 'boolean', default: false } },
  allowPositionals: true,
})
const seconds = Number(values.seconds)
if (!Number.isInteger(seconds) || seconds < 1) stop(`Expected whole seconds from 1 but received ${values.seconds}`)
const wanted = positionals.length > 0 ? positionals : targets
for (const name of wanted)
  if (!targets.includes(name)) stop(`Expected one of the targets ${targets.join(', ')} but received ${name}`)

const found = []
for (const name of wanted) {
  console.log(`\n${name}: ${seconds} seconds`)
  if (!fuzzNative(name, { seconds, keep: values.keep })) found.push(name)
}
if (found.length > 0) stop(`found something in ${found.join(', ')}; the inputs are in build/findings`)
console.log(`\n${wanted.join(', ')}: nothing found`)

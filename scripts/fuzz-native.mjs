// The fuzzing programs of native/fuzz (libFuzzer, under sanitizers); a part of `npm run fuzz`. Each has a corpus in
// native/fuzz/corpus: small inputs that together reach what has been reached so far, and those that once found something.
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { sanitizedBuild } from './sanitized.mjs'

const folder = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', 'native', 'fuzz')
/** Their names: the source files without `.cpp`. */
export const natives = readdirSync(folder)
  .filter((file) => file.endsWith('.cpp'))
  .map((file) => path.basename(file, '.cpp'))

/**
 * Runs one program.
 * @param {string} name one of `natives`
 * @param {{ seconds: number, count: number, keep: boolean, findings: string }} options when to end (whatever comes first), whether
 *   what reaches new code joins the corpus, and the folder for findings
 * @returns {boolean} whether it found nothing
 */
export function fuzzNative(name, { seconds, count, keep, findings }) {
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
    const ok = run(
      found,
      corpus,
      `-max_total_time=${seconds}`,
      `-runs=${count === Infinity ? -1 : count}`,
      '-print_final_stats=1',
      ...limits,
      prefix,
    )
    return keep ? ok && run('-merge=1', corpus, found) : ok
  } finally {
    rmSync(found, { recursive: true, force: true })
  }
}

// The command line in a folder, as a script meets it.
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { checkpoint } from './cases.mjs'

export const main = path.resolve(import.meta.dirname, '../../dist/cli/main.js')

/** Options that make a picture of a tiny checkpoint in a moment. */
export const small = [
  ...['-m', checkpoint('kandinsky-2-2-decoder'), '--steps', '2', '--prior-steps', '2'],
  ...['--width', '64', '--height', '64', '--threads', '1'],
]

/**
 * @param options of spawnSync, e.g. `input` for standard input
 * @returns status, stdout and stderr as text, `bytes` of stdout, and `lines()` of JSON
 */
export function kandinskyIn(folder, args, options = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { cwd: folder, ...options })
  const text = stdout?.toString('utf8')
  return {
    ...{ status, bytes: stdout, stdout: text, stderr: stderr.toString('utf8') },
    lines: () =>
      text
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
  }
}

// Children of the benchmarks that answer lines with lines.
import { spawn } from 'node:child_process'
import path from 'node:path'
import { createInterface } from 'node:readline'

/** A child that answers each line on its standard input with one JSON line. */
export function startWorker(command, args, variables = {}) {
  const env = { ...process.env, ...variables }
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], env })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async () => {
    const { value, done } = await lines.next()
    if (done) throw new Error(`${path.basename(args[0])} ended early`)
    return JSON.parse(value)
  }
  const ask = (line) => {
    child.stdin.write(`${line}\n`)
    return next()
  }
  const stop = async () => {
    const answer = await ask('stop')
    // An open standard input would keep the child, and with it this process, alive.
    child.stdin.end()
    return answer
  }
  return { next, ask, stop }
}

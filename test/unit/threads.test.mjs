// More threads than cores: whoever waits must not keep the awaited thread from running.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import os from 'node:os'
import test from 'node:test'

const script = `
  import { AutoPipeline } from '${new URL('../../dist/index.js', import.meta.url)}'
  const pipe = await AutoPipeline.fromPretrained('demo', { threads: Number(process.argv[1]) })
  const before = process.cpuUsage()
  await pipe.generate({ prompt: 'a red apple', numInferenceSteps: 10 })
  const { user, system } = process.cpuUsage(before)
  console.log(user + system)
`

/** Processor time of a picture, in microseconds: unlike the time it takes, other work on the machine hardly changes it. */
const processorTime = (threads) =>
  Number(execFileSync(process.execPath, ['--input-type=module', '--eval', script, String(threads)]))

test('eight threads per core cost little more processor time than one in all', () => {
  // Threads that spin without giving their core away took 20 times as much.
  const ratio = processorTime(8 * os.availableParallelism()) / processorTime(1)
  assert.ok(ratio < 5, `${ratio.toFixed(1)} times as much`)
})

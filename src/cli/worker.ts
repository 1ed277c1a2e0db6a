import { type CliOption, expectNothing, type Invocation, UsageError } from './options.js'
import { graceOf, logTo, memoryOf, modelsOf, queueOf, options as serving } from './serve.js'

export const summary = 'make pictures for servers that share a queue in Redis'
export const usage =
  'Usage: kandinsky worker --queue redis://… --results <folder | s3://bucket/prefix> [-m <model>] [options]'
const names = [
  'queue',
  'results',
  'model',
  'inpaint-model',
  'weights',
  'device',
  'threads',
  'memory',
  'grace',
  'quiet',
  'json',
]
export const options: Record<string, CliOption> = Object.fromEntries(names.map((name) => [name, serving[name]!]))

export async function run({ values, positionals, signal, json, quiet }: Invocation): Promise<void> {
  expectNothing(positionals)
  const { queue, results } = queueOf(values)
  if (queue === undefined || results === undefined)
    throw new UsageError('expected --queue redis://… and --results, as the servers have them')
  const models = modelsOf(values)
  const { createQueueWorker } = await import('../server/index.js')
  await using _worker = await createQueueWorker({
    ...{ queue, results, models, memory: memoryOf(values), graceMs: graceOf(values) },
    onEvent: logTo({ json, quiet }),
  })
  if (json)
    console.log(JSON.stringify({ type: 'working', time: new Date().toISOString(), models: Object.keys(models) }))
  else if (!quiet) console.log(`Waiting for jobs of ${Object.keys(models).join(', ')}`)
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
  if (!quiet && !json) console.error('Finishing the job that runs; once more to stop now.')
}

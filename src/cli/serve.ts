import type { FailureEvent, JobEvent, ModelEvent, ServerEvent } from '../server/index.js'
import {
  type CliOption,
  type Invocation,
  numberOption,
  shared,
  textOption,
  UsageError,
  weightTypeOption,
} from './options.js'
import { formatBytes } from './terminal.js'

export const summary = 'serve pictures to programs that speak the API of OpenAI or of AUTOMATIC1111'
export const usage = 'Usage: kandinsky serve [-m <model>] [--port N] [options]'
export const options: Record<string, CliOption> = {
  model: {
    type: 'string',
    short: 'm',
    multiple: true,
    value: '[NAME=]SOURCE',
    completion: 'model',
    description: 'model, and the name that clients know it by (repeatable; default: the packaged demo)',
  },
  'inpaint-model': {
    type: 'string',
    value: 'SOURCE',
    completion: 'model',
    description: 'model that repaints, for the first model',
  },
  host: {
    type: 'string',
    value: 'ADDRESS',
    description: 'address to listen at (default: 127.0.0.1, this machine only)',
  },
  port: { type: 'string', value: 'N', description: 'port to listen at (default: 7860)' },
  token: {
    type: 'string',
    value: 'TEXT',
    description: 'what clients must know (default: $KANDINSKY_TOKEN, or nothing)',
  },
  'allow-host': {
    type: 'string',
    multiple: true,
    value: 'NAME',
    description: 'name under which the server may be addressed beside localhost (repeatable)',
  },
  'allow-origin': {
    type: 'string',
    multiple: true,
    value: 'ORIGIN',
    description: 'origin of web pages that may use the server, e.g. https://app.example.org (repeatable)',
  },
  weights: {
    type: 'string',
    value: 'TYPE',
    completion: shared.type.completion,
    description: 'weight type in memory, e.g. q8_0 (default: as stored)',
  },
  device: {
    type: 'string',
    value: 'NAME',
    completion: ['auto', 'cpu', 'cuda'],
    description: 'auto, cpu, cuda, cuda:1 … (default: auto)',
  },
  threads: shared.threads,
  memory: {
    type: 'string',
    value: 'SIZE',
    description:
      'e.g. 12GB: what loaded models may take in all; those used last stay (default: two stay, whatever their size)',
  },
  queue: {
    type: 'string',
    value: 'URL',
    description:
      'redis://… where jobs wait for `kandinsky worker`s to make them (default: $KANDINSKY_QUEUE, or this process)',
  },
  results: {
    type: 'string',
    value: 'WHERE',
    completion: 'file',
    description: 'with --queue: folder or s3://bucket/prefix, which servers and workers share, for the pictures',
  },
  grace: {
    type: 'string',
    value: 'SECONDS',
    description: 'how long jobs may still take once it is stopped (default: as long as they do)',
  },
  quiet: shared.quiet,
  json: shared.json,
}
/** What workers have in a server's place. */
const ofWorkers = ['inpaint-model', 'weights', 'device', 'threads', 'memory']

export async function run({ values, positionals, signal, json, quiet }: Invocation): Promise<void> {
  if (positionals.length > 0) throw new UsageError('serve takes no arguments without a flag: name a model with -m')
  const port = numberOption(values, 'port', { integer: true, min: 0, max: 65535 })
  const { queue, results } = queueOf(values)
  const given = ofWorkers.find((name) => values[name] !== undefined)
  if (queue !== undefined && given)
    throw new UsageError(`--${given} is for the workers: with --queue a server draws nothing`)
  const models = modelsOf(values)
  // Loaded here: no other command needs it.
  const { createServer } = await import('../server/index.js')
  await using server = await createServer({
    ...{ models, queue, results, memory: memoryOf(values), graceMs: graceOf(values) },
    host: textOption(values, 'host'),
    port,
    token: textOption(values, 'token') ?? (process.env.KANDINSKY_TOKEN || undefined),
    allowedHosts: values['allow-host'] as string[] | undefined,
    allowedOrigins: values['allow-origin'] as string[] | undefined,
    onEvent: logTo({ json, quiet }),
  })
  if (json) console.log(JSON.stringify({ type: 'listening', time: new Date().toISOString(), url: server.url }))
  else
    console.log(
      quiet ? server.url : `Listening at ${server.url} (OpenAI: ${server.url}/v1, AUTOMATIC1111: ${server.url})`,
    )
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
  if (!quiet && !json) console.error('Finishing what was asked for; once more to stop now.')
}

/** One line for each event: JSON on standard output, or words on standard error. */
export function logTo({ json, quiet }: Pick<Invocation, 'json' | 'quiet'>) {
  return (event: ServerEvent): void => {
    const time = new Date().toISOString()
    if (json) console.log(JSON.stringify({ type: event.event, time, ...event }))
    else if (!quiet) console.error(describe(event))
  }
}

function describe(event: ServerEvent): string {
  switch (event.event) {
    case 'job':
      return describeJob(event)
    case 'model':
      return describeModel(event)
    case 'failure':
      return describeFailure(event)
  }
}

function describeFailure({ method, path, status, error }: FailureEvent): string {
  return `${method} ${path}: ${status}: ${error}`
}

function describeJob({ api, state, waitedMs, ranMs, pictures, error }: JobEvent): string {
  const times = `waited ${(waitedMs / 1000).toFixed(1)} s, ran ${(ranMs / 1000).toFixed(1)} s`
  return `${api}: ${state}, ${pictures} ${pictures === 1 ? 'picture' : 'pictures'}, ${times}${error ? `: ${error}` : ''}`
}

function describeModel({ model, task, state, ms, bytes }: ModelEvent): string {
  const takes = bytes === undefined ? '' : `, about ${formatBytes(bytes)}`
  return `${model} (${task}): ${state} in ${(ms / 1000).toFixed(1)} s${takes}`
}

/** In bytes. */
export function memoryOf(values: Invocation['values']): number | undefined {
  const text = textOption(values, 'memory')
  if (text === undefined) return undefined
  const [, number, unit] = /^(\d+(?:\.\d+)?) ?(GB|MB)$/i.exec(text) ?? []
  const bytes = Number(number) * (unit?.toUpperCase() === 'MB' ? 1e6 : 1e9)
  if (!(bytes > 0)) throw new UsageError(`expected a size as 12GB or 500MB for --memory but received ${text}`)
  return bytes
}

/** Where jobs wait and pictures go; nothing of both for this process. */
export function queueOf(values: Invocation['values']) {
  const queue = textOption(values, 'queue') ?? (process.env.KANDINSKY_QUEUE || undefined)
  const results = textOption(values, 'results')
  if ((queue === undefined) !== (results === undefined))
    throw new UsageError('expected --queue and --results together: workers of a queue put the pictures there')
  return { queue, results }
}

/** In ms. */
export function graceOf(values: Invocation['values']): number | undefined {
  const seconds = numberOption(values, 'grace', { min: 0, max: 86_400 })
  return seconds === undefined ? undefined : seconds * 1000
}

/** By name; without one a model is called as its file or repository. */
export function modelsOf(values: Invocation['values']) {
  const given =
    (values.model as string[] | undefined) ?? (process.env.KANDINSKY_MODEL ? [process.env.KANDINSKY_MODEL] : [])
  const inpainting = textOption(values, 'inpaint-model')
  const loading = {
    weights: weightTypeOption(values, 'weights'),
    device: textOption(values, 'device'),
    threads: numberOption(values, 'threads', { integer: true, min: 1 }),
  }
  const sources = given.length > 0 ? given : ['demo']
  const models = sources.map((text, i) => {
    const [, name, source = text] = /^([\w.-]+)=(.+)$/.exec(text) ?? []
    const short = source
      .split(/[\\/]/)
      .at(-1)!
      .replace(/\.gguf$/, '')
    const repaints = i === 0 ? (inpainting ?? (source === 'demo' ? 'demo-inpaint' : undefined)) : undefined
    return [name ?? short, { source, inpainting: repaints, ...loading }] as const
  })
  return Object.fromEntries(models)
}

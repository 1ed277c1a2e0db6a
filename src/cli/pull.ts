import { type PullPlan, pull } from '../pull.js'
import {
  type CliOption,
  type Invocation,
  numberOption,
  shared,
  textOption,
  UsageError,
  weightTypeOption,
} from './options.js'
import { formatBytes, formatShare, ProgressBar, remaining, say } from './terminal.js'

export const summary = 'download a model and keep it, quantized, under a name'
export const usage = `Usage: kandinsky pull <owner/name | URL> [--type q8_0] [--prior <owner/name>] [--name <name>]

What is downloaded goes as it becomes part of the model, and an interrupted pull continues where it ended.`
export const options: Record<string, CliOption> = {
  type: {
    ...shared.type,
    description: `${shared.type.description.split(' (')[0]} (default: q8_0; a .gguf file's own)`,
  },
  prior: {
    type: 'string',
    value: 'SOURCE',
    completion: 'model',
    description:
      "where the prior is: a repository, a model that is here, or none (default: what the decoder's model card names)",
  },
  name: { type: 'string', value: 'NAME', description: "what -m shall call it (default: the repository's name)" },
  skip: {
    type: 'string',
    multiple: true,
    value: 'NAME',
    description: 'part to do without, e.g. image_encoder, which texts alone do not need (repeatable)',
  },
  variant: { ...shared.variant, description: 'weight files to download, e.g. fp16' },
  revision: { type: 'string', value: 'NAME', description: 'branch, tag or commit (default: main)' },
  threads: shared.threads,
  quiet: shared.quiet,
  json: shared.json,
}

export async function run({ values, positionals, signal, json, quiet }: Invocation): Promise<void> {
  const [source, ...more] = positionals
  if (source === undefined || more.length > 0) throw new UsageError('expected one repository or URL')
  using bar = new ProgressBar({ json, quiet })
  const emit = (event: object) => console.log(JSON.stringify(event))
  let planned = false
  let percent = -1
  const left = remaining()
  const pulled = pull(source, {
    weights: weightTypeOption(values, 'type'),
    prior: textOption(values, 'prior'),
    name: textOption(values, 'name'),
    skip: values.skip as string[] | undefined,
    variant: textOption(values, 'variant'),
    revision: textOption(values, 'revision'),
    threads: numberOption(values, 'threads', { integer: true, min: 1 }),
    signal,
    onPlan(plan) {
      if (json) emit({ type: 'plan', ...plan })
      else describe(plan, !planned, bar)
      planned = true
    },
    onProgress: ({ stage, done, total }) => {
      bar.update(stage, done, total, formatShare(done, total) + (stage === 'download' ? left(done, total) : ''))
      const now = Math.floor((100 * done) / total)
      if (json && now !== percent) emit({ type: 'progress', stage, done, total })
      percent = now
    },
  })
  const result = await pulled.catch((error) => {
    if (planned) bar.note('What has been done so far is kept: the same command continues there.')
    throw error
  })
  for (const note of result.notes) bar.note(`note: ${note}`)
  bar.end()
  if (json) return emit({ type: 'result', ...result })
  if (quiet) return console.log(result.name)
  say(
    `${result.name}: ${formatBytes(result.bytes)}, ${result.components.join(', ')}${result.kept ? ' (was here already)' : ''}`,
  )
  if (result.components.includes('unet')) bar.note(`Use it: kandinsky generate "a red cat" -m ${result.name}`)
}

/** Sizes and licences. What is only known later comes in a second plan. */
function describe({ sources, bytes, path }: PullPlan, isFirst: boolean, bar: ProgressBar): void {
  for (const { id, license, bytes: size } of isFirst ? sources : [])
    bar.note(`${id}: ${formatBytes(size)} to download, licence ${license ?? 'not stated'}`)
  if (bytes !== undefined) bar.note(`About ${formatBytes(bytes)} will be kept in ${path}`)
}

import path from 'node:path'
import { convert } from '../convert.js'
import type { WeightType } from '../native.js'
import { loraFlags, loraOption } from './loras.js'
import {
  type CliOption,
  type Invocation,
  numberOption,
  shared,
  textOption,
  UsageError,
  weightType,
  weightTypeOption,
  withModel,
} from './options.js'
import { formatBytes, formatShare, ProgressBar, say } from './terminal.js'

export const summary = 'write a checkpoint as one self-contained, optionally quantized .gguf file'
export const usage =
  'Usage: kandinsky convert <source> <out.gguf> [--type q8_0] [--prior <source>] [--rule regex=type] [--lora file=weight]'
export const options: Record<string, CliOption> = {
  model: shared.model,
  type: shared.type,
  prior: {
    type: 'string',
    value: 'SOURCE',
    completion: 'model',
    description: 'a prior checkpoint to put into the same file',
  },
  rule: {
    type: 'string',
    multiple: true,
    value: 'REGEX=TYPE',
    description: 'type for the tensors whose name matches; the first match wins (repeatable)',
  },
  lora: { ...loraOption, description: `${loraOption.description}; merged into the weights` },
  skip: {
    type: 'string',
    multiple: true,
    value: 'NAME',
    description: 'part to leave out or to do without, e.g. image_encoder (repeatable)',
  },
  'skip-zero-image': {
    type: 'boolean',
    description: "do not run a prior's image encoder once to store its embedding of an all-zero image",
  },
  variant: shared.variant,
  threads: shared.threads,
  quiet: shared.quiet,
  json: shared.json,
}
export const completion = 'model'

export async function run({ values, positionals, signal, json, quiet }: Invocation): Promise<void> {
  const [source, output, ...more] = withModel({ values, positionals })
  if (source === undefined || output === undefined || more.length > 0)
    throw new UsageError('expected a source and an output file')
  using bar = new ProgressBar({ json, quiet })
  const result = await convert(source, output, {
    weights: weightTypeOption(values, 'type'),
    prior: textOption(values, 'prior'),
    rules: (values.rule as string[] | undefined)?.map(parseRule),
    loras: loraFlags(values),
    skip: values.skip as string[] | undefined,
    skipZeroImage: values['skip-zero-image'] === true,
    variant: textOption(values, 'variant'),
    threads: numberOption(values, 'threads'),
    signal,
    onProgress: ({ done, total }) => bar.update('converting', done, total, formatShare(done, total)),
  })
  bar.end()
  for (const note of result.notes) bar.note(`note: ${note}`)
  if (json) console.log(JSON.stringify({ type: 'result', ...result }))
  else
    say(
      `${path.relative('', result.path) || result.path}: ${formatBytes(result.bytes)}, ${result.components.join(', ')}`,
    )
}

function parseRule(text: string): { pattern: RegExp; type: WeightType } {
  const divider = text.lastIndexOf('=')
  if (divider < 1) throw new UsageError(`expected regex=type for --rule but received ${text}`)
  try {
    return { pattern: new RegExp(text.slice(0, divider)), type: weightType(text.slice(divider + 1)) }
  } catch (error) {
    throw new UsageError(`--rule ${text}: ${(error as Error).message}`)
  }
}

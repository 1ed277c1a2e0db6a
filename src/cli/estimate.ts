import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { combineCheckpoints, openCheckpoint } from '../checkpoint/open.js'
import type { Checkpoint } from '../checkpoint/pipeline-files.js'
import { parseOrigin, stageHeaders } from '../hub/origin.js'
import { findModel, unknownModel } from '../hub/resolve.js'
import { listDevices } from '../networks/devices.js'
import { type Estimate, estimate } from '../pipelines/estimate.js'
import { findPrior } from '../pipelines/loading/open.js'
import {
  type CliOption,
  type Invocation,
  numberOption,
  shared,
  textOption,
  UsageError,
  weightTypeOption,
} from './options.js'
import { columnsOf, formatBytes, table, wrap } from './terminal.js'

export const summary = 'tell how much disk and memory a model takes, without loading or downloading it'
export const usage = 'Usage: kandinsky estimate <model | owner/name> [--type q8_0] [--width W] [--height H] [--count N]'
const positive = { integer: true, min: 1 }
export const options: Record<string, CliOption> = {
  model: {
    type: 'string',
    short: 'm',
    value: 'SOURCE',
    completion: 'model',
    description: 'the same as the model itself',
  },
  type: { ...shared.type, description: `${shared.type.description.split(' (')[0]} (default: as stored)` },
  width: { type: 'string', value: 'W', description: "pixels (default: the model's own)" },
  height: { type: 'string', value: 'H', description: 'the same' },
  count: { type: 'string', api: 'numImagesPerPrompt', value: 'N', description: 'pictures at once (default: 1)' },
  prior: {
    type: 'string',
    value: 'SOURCE',
    completion: 'model',
    description: 'where the prior is, when the model holds only the decoder and does not say',
  },
  skip: {
    type: 'string',
    multiple: true,
    value: 'NAME',
    description: 'part to do without, e.g. image_encoder (repeatable)',
  },
  variant: shared.variant,
  revision: { type: 'string', value: 'NAME', description: 'branch, tag or commit of a repository (default: main)' },
  json: shared.json,
}
export const completion = 'model'

export async function run({ values, positionals, signal, json }: Invocation): Promise<void> {
  const given = [textOption(values, 'model'), ...positionals].filter((source) => source !== undefined)
  const source = given[0] ?? process.env.KANDINSKY_MODEL
  if (source === undefined || given.length > 1) throw new UsageError('expected one model')
  const settings = {
    weights: weightTypeOption(values, 'type'),
    width: numberOption(values, 'width', positive),
    height: numberOption(values, 'height', positive),
    count: numberOption(values, 'count', positive),
    skip: values.skip as string[] | undefined,
    signal,
  }
  const folder = await mkdtemp(path.join(tmpdir(), 'kandinsky-estimate-'))
  try {
    const result = await estimate(await openWhole(source, values, folder, signal), settings)
    if (json) console.log(JSON.stringify({ type: 'estimate', source, ...result }))
    else print(result)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** The model with its prior; of repositories only texts and headers are fetched. */
async function openWhole(
  source: string,
  values: Invocation['values'],
  folder: string,
  signal: AbortSignal,
): Promise<Checkpoint> {
  const variant = textOption(values, 'variant')
  const open = async (from: string, part: string, revision?: string) => {
    const here = await findModel(from)
    const inside = path.join(folder, part)
    if (here === undefined && !from.includes('/')) throw unknownModel(from)
    if (here === undefined) await stageHeaders(parseOrigin(from, revision), inside, { variant, signal })
    return openCheckpoint(here ?? inside, { variant })
  }
  const checkpoint = await open(source, 'model', textOption(values, 'revision'))
  const decoder = checkpoint.side('prior') ? undefined : checkpoint.side('decoder')
  const prior = textOption(values, 'prior') ?? (decoder && (await findPrior(decoder)))
  return prior === undefined ? checkpoint : combineCheckpoints(checkpoint, await open(prior, 'prior'))
}

function print({ task, width, height, count, disk, memory }: Estimate): void {
  const columns = columnsOf(process.stdout)
  const cpu = listDevices().find(({ kind }) => kind === 'cpu')
  const pictures = `${count > 1 ? `${count} pictures` : 'a picture'} of ${width} x ${height}`
  const tiles = memory.tiledPeak < memory.peak * 0.95 ? `, or ${formatBytes(memory.tiledPeak)} decoded in tiles` : ''
  const free = cpu ? ` (${formatBytes(cpu.freeBytes)} are free here)` : ''
  console.log(
    table(
      [
        ['disk', `${formatBytes(disk.total)} as one .gguf file`],
        ...disk.networks.map(({ name, bytes }) => [`  ${name}`, formatBytes(bytes)] as const),
        ['memory', `about ${formatBytes(memory.peak)} for ${pictures}, ${task}${tiles}${free}`],
        ...memory.stages.map(
          ({ name, weights, compute }) =>
            [`  ${name}`, `${formatBytes(weights)} of weights, ${formatBytes(compute)} of activations`] as const,
        ),
      ],
      columns,
    ),
  )
  console.log(wrap('Estimated for the CPU; networks take turns, so that their memory does not add up.', columns))
}

import { combineCheckpoints } from '../checkpoint/open.js'
import { findModel } from '../hub/resolve.js'
import type { WeightType } from '../native.js'
import { listDevices } from '../networks/devices.js'
import { type Estimate, estimate } from '../pipelines/estimate.js'
import { findPrior } from '../pipelines/loading/open.js'
import { PULLED_TYPE } from '../pull.js'
import { lookAt } from './look.js'
import {
  type CliOption,
  type Invocation,
  numberOption,
  shared,
  textOption,
  UsageError,
  weightTypeOption,
  withModel,
} from './options.js'
import { columnsOf, formatBytes, table, wrap } from './terminal.js'

export const summary = 'tell how much disk and memory a model takes, without loading or downloading it'
export const usage = 'Usage: kandinsky estimate <model | owner/name> [--type q8_0] [--width W] [--height H] [--count N]'
const positive = { integer: true, min: 1 }
export const options: Record<string, CliOption> = {
  model: shared.model,
  type: {
    ...shared.type,
    description: `${shared.type.description.split(' (')[0]} (default: as stored, of a repository ${PULLED_TYPE})`,
  },
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
  const [source = process.env.KANDINSKY_MODEL, ...more] = withModel({ values, positionals })
  if (source === undefined || more.length > 0) throw new UsageError('expected one model')
  const settings = {
    weights: weightTypeOption(values, 'type'),
    width: numberOption(values, 'width', positive),
    height: numberOption(values, 'height', positive),
    count: numberOption(values, 'count', positive),
    skip: values.skip as string[] | undefined,
    signal,
  }
  await lookAt(async (open) => {
    const from = { variant: textOption(values, 'variant'), signal }
    const checkpoint = await open(source, { ...from, revision: textOption(values, 'revision') })
    const decoder = checkpoint.side('prior') ? undefined : checkpoint.side('decoder')
    const prior = textOption(values, 'prior') ?? (decoder && (await findPrior(decoder)))
    const whole = prior === undefined ? checkpoint : combineCheckpoints(checkpoint, await open(prior, from))
    const weights = settings.weights ?? ((await findModel(source)) === undefined ? PULLED_TYPE : undefined)
    const result = await estimate(whole, { ...settings, weights })
    if (json) console.log(JSON.stringify({ type: 'estimate', source, weights: weights ?? null, ...result }))
    else print(result, weights)
  })
}

function print({ task, width, height, count, disk, memory }: Estimate, weights: WeightType | undefined): void {
  const columns = columnsOf(process.stdout)
  const cpu = listDevices().find(({ kind }) => kind === 'cpu')
  const pictures = `${count > 1 ? `${count} pictures` : 'a picture'} of ${width} x ${height}`
  const tiles = memory.tiledPeak < memory.peak * 0.95 ? `, or ${formatBytes(memory.tiledPeak)} decoded in tiles` : ''
  const free = cpu ? ` (${formatBytes(cpu.freeBytes)} are free here)` : ''
  console.log(
    table(
      [
        ['disk', `${formatBytes(disk.total)} as one .gguf file${weights ? ` of ${weights}` : ''}`],
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

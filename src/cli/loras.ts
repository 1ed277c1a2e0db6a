// --lora FILE=WEIGHT, of generate and convert.
import path from 'node:path'
import type { LoraLoader } from '../pipelines/loading/lora.js'
import { type CliOption, type Invocation, UsageError } from './options.js'

export const loraOption: CliOption = {
  type: 'string',
  multiple: true,
  api: 'loras',
  value: 'FILE=WEIGHT',
  completion: 'file',
  description: 'a LoRA file, folder or hub id, and what it is multiplied with (default: 1; repeatable)',
}

export interface LoraFlag {
  source: string
  weight: number
}

/** @throws UsageError */
export function loraFlags(values: Invocation['values']): LoraFlag[] {
  return ((values.lora as string[] | undefined) ?? []).map((text) => {
    const divider = text.lastIndexOf('=')
    const weight = divider < 0 ? 1 : Number(text.slice(divider + 1))
    const source = divider < 0 ? text : text.slice(0, divider)
    if (source === '' || text.endsWith('=') || !Number.isFinite(weight))
      throw new UsageError(`expected file=weight for --lora but received ${text}`)
    return { source, weight }
  })
}

/** Loads them under the names of their files. */
export async function addLoras(
  pipe: Pick<LoraLoader, 'loadLoraWeights' | 'setAdapters'>,
  loras: readonly LoraFlag[],
  signal: AbortSignal,
): Promise<void> {
  const names: string[] = []
  for (const { source } of loras) {
    const name = nameOf(source)
    names.push(names.includes(name) ? `${name}-${names.length + 1}` : name)
    await pipe.loadLoraWeights(source, { adapterName: names.at(-1)!, signal })
  }
  if (names.length > 0)
    await pipe.setAdapters(
      names,
      loras.map(({ weight }) => weight),
    )
}

/** Scripts call all files the same; their folders have names. */
function nameOf(source: string): string {
  const { name, dir } = path.parse(source.replace(/[/\\]+$/, '').replace(/^.*:/, ''))
  const folder = path.basename(dir)
  return /^(pytorch_lora_weights|adapter_model)$/.test(name) && folder !== '' ? folder : name || source
}

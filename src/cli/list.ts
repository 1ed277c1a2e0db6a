import { openCheckpoint } from '../checkpoint/open.js'
import { listPulled, type PulledModel } from '../hub/pulled.js'
import { binding } from '../native.js'
import { type CliOption, expectNothing, type Invocation, shared } from './options.js'
import { fitted, formatBytes, say } from './terminal.js'

export const summary = 'list the models that were pulled'
export const usage = 'Usage: kandinsky list [--quiet] [--json]'
export const options: Record<string, CliOption> = {
  quiet: { ...shared.quiet, description: 'print names only' },
  json: shared.json,
}

export async function run({ positionals, json, quiet }: Invocation): Promise<void> {
  expectNothing(positionals)
  const pulled = await listPulled()
  if (quiet && !json) {
    for (const { name, unfinished } of pulled) if (!unfinished) console.log(name)
    return
  }
  const models = await Promise.all(pulled.map(describe))
  if (json) console.log(JSON.stringify({ type: 'models', models }))
  else if (models.length === 0)
    console.error(fitted('No models yet. "kandinsky pull <owner/name>" brings one here.', process.stderr))
  for (const { name, bytes, unfinished, type, source, license, problem } of json ? [] : models) {
    const facts = unfinished ? ['unfinished: pull it again to continue'] : [type, source, license, problem]
    say(`${name}  ${[formatBytes(bytes), ...facts].filter((fact) => fact !== undefined).join(', ')}`)
  }
}

/** What a model's file says of itself. */
async function describe(model: PulledModel) {
  const nothing = { type: undefined, source: undefined, license: undefined, problem: undefined }
  if (model.unfinished) return { ...model, ...nothing }
  try {
    const { metadata } = await binding().readGguf(model.path)
    const [source, license] = [metadata['general.source.url'], metadata['general.license']]
    return { ...model, ...nothing, type: await mainType(model.path), source, license }
  } catch (error) {
    return { ...model, ...nothing, problem: (error as Error).message }
  }
}

/** The type that most bytes have. */
async function mainType(path: string): Promise<string | undefined> {
  const checkpoint = await openCheckpoint(path)
  const bytes = new Map<string, number>()
  for (const name of await checkpoint.components())
    for (const tensor of (await checkpoint.component(name))!.tensors)
      bytes.set(tensor.type, (bytes.get(tensor.type) ?? 0) + tensor.bytes)
  return [...bytes].sort(([, a], [, b]) => b - a)[0]?.[0]
}

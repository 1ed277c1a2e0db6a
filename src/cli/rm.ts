import { KandinskyError, suggestion } from '../errors.js'
import { listPulled, removePulled } from '../hub/pulled.js'
import { type CliOption, type Invocation, shared, UsageError } from './options.js'
import { formatBytes, say } from './terminal.js'

export const summary = 'remove models that were pulled, also unfinished ones'
export const usage = 'Usage: kandinsky rm <name> …'
export const options: Record<string, CliOption> = { json: shared.json }
export const completion = 'pulled'

export async function run({ positionals, json }: Invocation): Promise<void> {
  if (positionals.length === 0) throw new UsageError('expected the name of a model ("kandinsky list" shows them)')
  const known = (await listPulled()).map(({ name }) => name)
  for (const name of positionals) if (!known.includes(name)) throw unknown(name, known)
  for (const name of positionals) {
    const bytes = (await removePulled(name)) ?? 0
    if (json) console.log(JSON.stringify({ type: 'removed', name, bytes }))
    else say(`${name}: removed, ${formatBytes(bytes)} are free again`)
  }
}

function unknown(name: string, known: readonly string[]): KandinskyError {
  const others = known.length > 0 ? suggestion(name, known) : ': there are none'
  return new KandinskyError('FILE_NOT_FOUND', `There is no pulled model ${name}${others}`)
}

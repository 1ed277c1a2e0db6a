import { type CliOption, type Invocation, UsageError } from './options.js'
import { modelsOf, options as serving } from './serve.js'

export const summary = 'offer drawing to assistants as a tool (Model Context Protocol over standard input and output)'
export const usage = 'Usage: kandinsky mcp [-m <model>] [options]'
const names = ['model', 'inpaint-model', 'weights', 'device', 'threads']
export const options: Record<string, CliOption> = Object.fromEntries(names.map((name) => [name, serving[name]!]))

export async function run({ values, positionals, signal }: Invocation): Promise<void> {
  if (positionals.length > 0) throw new UsageError('mcp takes no arguments without a flag: name a model with -m')
  const { serveMcp } = await import('../server/index.js')
  await serveMcp({ models: modelsOf(values) }, signal)
}

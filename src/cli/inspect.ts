import { openCheckpoint } from '../checkpoint/open.js'
import { KandinskyError } from '../errors.js'
import { readRecipe } from '../images/image.js'
import { type CliOption, type Invocation, shared, UsageError } from './options.js'
import { formatBytes } from './terminal.js'

export const summary = 'show what a checkpoint holds, or how a picture was made'
export const usage = 'Usage: kandinsky inspect <model.gguf | folder | picture.png> [--tensors] [--json]'
export const options: Record<string, CliOption> = {
  tensors: { type: 'boolean', description: 'list every tensor' },
  json: shared.json,
}
export const completion = 'model'

export async function run({ values, positionals, json }: Invocation): Promise<void> {
  const [source, ...more] = positionals
  if (source === undefined || more.length > 0) throw new UsageError('expected one file or folder')
  if (/\.png$/i.test(source)) {
    const recipe = await readRecipe(source)
    if (!recipe)
      throw new KandinskyError('BAD_FILE', `Expected a picture that kandinsky made but ${source} carries no recipe`)
    console.log(json ? JSON.stringify({ type: 'recipe', recipe }) : JSON.stringify(recipe, null, 2))
    return
  }
  const checkpoint = await openCheckpoint(source)
  const names = await checkpoint.components()
  const components = await Promise.all(names.map(async (name) => (await checkpoint.component(name))!))
  if (json) {
    console.log(
      JSON.stringify({
        type: 'checkpoint',
        source,
        components: components.map(({ tensors, ...rest }) => ({
          ...rest,
          ...(values.tensors ? { tensors } : summarize(tensors)),
        })),
      }),
    )
    return
  }
  for (const { name, className, tensors } of components) {
    const { parameters, bytes, types } = summarize(tensors)
    const mix = Object.entries(types).map(([type, count]) => `${count} ${type}`)
    console.log(
      `${name.padEnd(14)} ${className}, ${(parameters / 1e6).toFixed(1)} M parameters, ${formatBytes(bytes)} (${mix.join(', ')})`,
    )
    if (values.tensors)
      for (const tensor of tensors) console.log(`  ${tensor.name} ${tensor.type} [${tensor.shape.join(', ')}]`)
  }
}

function summarize(tensors: readonly { shape: readonly number[]; bytes: number; type: string }[]) {
  const types: Record<string, number> = {}
  let parameters = 0
  let bytes = 0
  for (const tensor of tensors) {
    types[tensor.type] = (types[tensor.type] ?? 0) + 1
    parameters += tensor.shape.reduce((product, n) => product * n, 1)
    bytes += tensor.bytes
  }
  return { parameters, bytes, types }
}

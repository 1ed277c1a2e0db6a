import { stat } from 'node:fs/promises'
import { extname } from 'node:path'
import { fileKind, SourceFile } from '../checkpoint/formats/file.js'
import type { Checkpoint } from '../checkpoint/pipeline-files.js'
import { isPackaged } from '../hub/packaged.js'
import { findModel } from '../hub/resolve.js'
import { imageFormats, inspectImage } from '../images/image.js'
import { demoConcepts } from './demo.js'
import { lookAt } from './look.js'
import { type CliOption, type Invocation, shared, textOption, UsageError, withModel } from './options.js'
import { columnsOf, formatBytes, say, table, wrap } from './terminal.js'

export const summary = 'show what a checkpoint holds, or how a picture was made'
export const usage =
  'Usage: kandinsky inspect <model.gguf | folder | name | owner/name | picture.png> [--tensors] [--json]'
export const options: Record<string, CliOption> = {
  model: shared.model,
  tensors: { type: 'boolean', description: 'list every tensor' },
  variant: shared.variant,
  json: shared.json,
}
export const completion = 'model'

export async function run({ values, positionals, json, signal }: Invocation): Promise<void> {
  const [source, ...more] = withModel({ values, positionals })
  if (source === undefined || more.length > 0) throw new UsageError('expected one file or folder')
  const path = await findModel(source)
  if (path ? await isPicture(path) : /^(https?|data):/i.test(source)) return showPicture(source, json)
  await lookAt(async (open) => {
    const checkpoint = await open(source, { variant: textOption(values, 'variant'), signal })
    await showCheckpoint(checkpoint, source, { tensors: values.tensors === true, json })
  })
}

async function showCheckpoint(
  checkpoint: Checkpoint,
  source: string,
  { tensors: all, json }: { tensors: boolean; json: boolean },
): Promise<void> {
  const names = await checkpoint.components()
  const components = await Promise.all(names.map(async (name) => (await checkpoint.component(name))!))
  if (json) {
    console.log(
      JSON.stringify({
        type: 'checkpoint',
        source,
        ...(isPackaged(source) ? { concepts: demoConcepts() } : {}),
        components: components.map(({ tensors, ...rest }) => ({
          ...rest,
          ...(all ? { tensors } : summarize(tensors)),
        })),
      }),
    )
    return
  }
  const columns = columnsOf(process.stdout)
  const rows = components.map(({ name, className, tensors }) => {
    const { parameters, bytes, types } = summarize(tensors)
    const mix = Object.entries(types).map(([type, count]) => `${count} ${type}`)
    const size = `${(parameters / 1e6).toFixed(1)} M parameters, ${formatBytes(bytes)}`
    const list = all ? tensors.map((one) => `\n  ${one.name} ${one.type} [${one.shape.join(', ')}]`) : []
    return [name, `${className}, ${size} (${mix.join(', ')})`, list.join('')] as const
  })
  const width = Math.max(...rows.map(([name]) => name.length))
  for (const [name, text, list] of rows) console.log(table([[name.padEnd(width), text]], columns) + list)
  if (!isPackaged(source)) return
  const concepts = demoConcepts()
  console.log(wrap(`It draws ${concepts.length} things: ${concepts.join(', ')}.`, columns))
}

/** What is called a picture, or is no model by its content. */
async function isPicture(path: string): Promise<boolean> {
  const ending = extname(path).toLowerCase()
  if (imageFormats.includes(ending)) return true
  if (ending === '.gguf' || !(await stat(path)).isFile()) return false
  return (await SourceFile.with(path, fileKind)) === 'unknown'
}

async function showPicture(source: string, json: boolean): Promise<void> {
  const { recipe, ...picture } = await inspectImage(source)
  if (recipe) console.log(json ? JSON.stringify({ type: 'recipe', recipe }) : JSON.stringify(recipe, null, 2))
  else if (json) console.log(JSON.stringify({ type: 'picture', ...picture, recipe: null }))
  else {
    const { format, width, height } = picture
    say(`${source}: ${format.toUpperCase()}, ${width} x ${height} pixels`)
    say('It does not say how it was made; PNG files that kandinsky wrote do.')
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

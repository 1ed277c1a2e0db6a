// Prompts from the command line, a file or standard input.
import { addAbortSignal, type Readable } from 'node:stream'
import { KandinskyError } from '../errors.js'
import { readBytes } from '../images/source.js'
import { type Invocation, textOption, UsageError } from './options.js'
import { expectFile } from './plan.js'

/** in bytes; far above any list of prompts */
const MAX_BYTES = 16 << 20

/**
 * The one prompt that was typed, or every line of a file or of standard input (`-`) that is not blank.
 * @throws UsageError for none, and for more than one source of prompts
 */
export async function readPrompts(
  values: Invocation['values'],
  [prompt, ...more]: string[],
  signal: AbortSignal,
): Promise<string[]> {
  const file = textOption(values, 'prompts')
  if (more.length > 0 || (prompt === undefined) === (file === undefined))
    throw new UsageError('expected one prompt (quote it), or --prompts or --mix instead of it')
  if (file === '') throw new UsageError('expected a file for --prompts, or - for standard input')
  const source = file ?? (prompt === '-' ? '-' : undefined)
  if (source === undefined) return [prompt!]
  const name = source === '-' ? 'standard input' : source
  const lines = (await readText(source, name, signal)).split(/\r?\n/).filter((line) => line.trim() !== '')
  if (lines.length === 0) throw new UsageError(`expected a prompt on each line of ${name} but it has none`)
  return lines
}

/** @throws UsageError where there is a prompt beside a mix, which takes the place of one */
export async function expectNoPrompt(values: Invocation['values'], positionals: string[]): Promise<string[]> {
  if (positionals.length > 0 || values.prompts !== undefined)
    throw new UsageError('expected one prompt (quote it), or --mix instead of it')
  return ['']
}

async function readText(source: string, name: string, signal: AbortSignal): Promise<string> {
  if (source !== '-') await expectFile('prompts', source)
  const bytes = source === '-' ? await readAll(process.stdin, signal) : await readBytes(source, signal)
  checkSize(bytes.length)
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new KandinskyError('BAD_FILE', `Expected prompts as UTF-8 text in ${name} but it holds other bytes`, {
      cause,
    })
  }
}

async function readAll(input: Readable & { isTTY?: boolean }, signal: AbortSignal): Promise<Buffer> {
  if (input.isTTY) console.error('Prompts, one on each line; Ctrl-D ends them:')
  const parts: Buffer[] = []
  let size = 0
  try {
    for await (const part of addAbortSignal(signal, input)) {
      parts.push(part)
      size += part.length
      checkSize(size)
    }
  } catch (error) {
    signal.throwIfAborted()
    throw error
  }
  return Buffer.concat(parts)
}

function checkSize(bytes: number): void {
  if (bytes > MAX_BYTES) throw new KandinskyError('BAD_FILE', `Expected at most ${MAX_BYTES} bytes of prompts`)
}

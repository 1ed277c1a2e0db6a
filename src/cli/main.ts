#!/usr/bin/env node
// The command `kandinsky`. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (a signal stops cleanly).
import { parseArgs } from 'node:util'
import { KandinskyError, suggestion } from '../errors.js'
import { version } from '../version.js'
import { completionOf } from './completion.js'
import * as convert from './convert.js'
import * as devices from './devices.js'
import * as doctor from './doctor.js'
import * as estimate from './estimate.js'
import * as generate from './generate.js'
import * as inspect from './inspect.js'
import * as list from './list.js'
import * as mcp from './mcp.js'
import { type Command, type Invocation, optionHelp, UsageError, withFlags } from './options.js'
import * as pull from './pull.js'
import * as rm from './rm.js'
import * as serve from './serve.js'
import { columnsOf, fitted, say, table, wrap } from './terminal.js'
import * as worker from './worker.js'

const named: Record<string, Command> = {
  generate,
  serve,
  worker,
  mcp,
  pull,
  list,
  rm,
  estimate,
  convert,
  inspect,
  devices,
  doctor,
}
const commands: Record<string, Command> = { ...named, completion: completionOf(named) }

function help(): string {
  const columns = columnsOf(process.stdout)
  const rows = Object.entries(commands).map(([name, { summary }]) => [`  ${name}`, summary] as const)
  return `Usage: kandinsky <command> [options]

Commands:
${table(rows, columns)}

${wrap("kandinsky <command> --help shows a command's options.", columns)}
  -v, --version  print the version`
}

async function main([name, ...rest] = process.argv.slice(2)): Promise<number> {
  if (name === 'help' && rest[0] !== undefined) return main([rest[0], '--help'])
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    console.log(help())
    return name === undefined ? 2 : 0
  }
  if (name === '--version' || name === '-v') {
    console.log(version)
    return 0
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (!command) throw new UsageError(`unknown command ${name}${suggestion(name, Object.keys(commands))}`)
  const { values, positionals } = parse(command, rest)
  if (values.help) {
    const columns = columnsOf(process.stdout)
    say(`${command.usage}\n\n${command.summary}\n\nOptions:`)
    console.log(optionHelp(command.options, columns))
    return 0
  }

  const interrupt = new AbortController()
  const stop = () => {
    // A second Ctrl-C means now.
    if (interrupt.signal.aborted) process.exit(130)
    interrupt.abort(new Interrupted())
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  const [json, quiet] = [values.json === true, values.quiet === true]
  showWarnings(quiet)
  await command.run({ values, positionals, signal: interrupt.signal, json, quiet })
  return Number(process.exitCode ?? 0)
}

/** Warnings of this package as notes, where Node would add its process id and advice on how to debug it. */
function showWarnings(quiet: boolean): void {
  process.removeAllListeners('warning')
  process.on('warning', ({ name, message }) => {
    const text = name === 'KandinskyWarning' ? `note: ${message}` : `${name}: ${message}`
    if (!quiet) console.error(process.stderr.isTTY ? `\r\x1b[K${text}` : text)
  })
}

/** `--seed -1` as `--seed=-1`: parseArgs takes what begins with a dash for an option. */
function joinNegative(args: string[]): string[] {
  const joined: string[] = []
  for (const arg of args) {
    const previous = joined.at(-1)
    if (/^-\d/.test(arg) && previous !== undefined && /^--[^=]+$/.test(previous)) joined[joined.length - 1] += `=${arg}`
    else joined.push(arg)
  }
  return joined
}

class Interrupted extends Error {}

function parse(command: Command, args: string[]) {
  try {
    const options = { ...command.options, help: { type: 'boolean', short: 'h' } } as const
    const { values, positionals } = parseArgs({ args: joinNegative(args), options, allowPositionals: true })
    return { values: values as Invocation['values'], positionals }
  } catch (error) {
    throw new UsageError(explainArguments(error as NodeJS.ErrnoException, command))
  }
}

/** Node explains at length how to write texts that begin with a dash, where most often a flag is misspelled. */
function explainArguments({ code, message }: NodeJS.ErrnoException, { options }: Command): string {
  const flag = /^Unknown option '(--?[^'=]*)/.exec(message)?.[1]
  if (code !== 'ERR_PARSE_ARGS_UNKNOWN_OPTION' || flag === undefined) return message
  return `Unknown option '${flag}'${suggestion(
    flag,
    [...Object.keys(options), 'help'].map((name) => `--${name}`),
  )}`
}

// Who read the output has had enough (`| head -1`): nobody is left to tell.
process.stdout.on('error', ({ code, message }: NodeJS.ErrnoException) => {
  if (code !== 'EPIPE') console.error(`kandinsky: standard output cannot be written: ${message}`)
  process.exit(code === 'EPIPE' ? 0 : 1)
})
process.stderr.on('error', () => {}) // what cannot be told there can be told nowhere

main().then(
  (code) => {
    process.exitCode = code
  },
  (error: unknown) => {
    const json = process.argv.includes('--json')
    const { code, text, exit } = explain(error)
    if (json) console.log(JSON.stringify({ type: 'error', code, message: text }))
    else console.error(fitted(`kandinsky: ${text}`, process.stderr))
    process.exitCode = exit
  },
)

function helpCommand(): string {
  const name = process.argv[2] ?? ''
  return Object.hasOwn(commands, name) ? `kandinsky ${name} --help` : 'kandinsky --help'
}

function explain(error: unknown): { code: string; text: string; exit: number } {
  if (error instanceof Interrupted) return { code: 'INTERRUPTED', text: 'interrupted', exit: 130 }
  if (error instanceof UsageError) return { code: 'USAGE', text: `${error.message}\nTry: ${helpCommand()}`, exit: 2 }
  if (error instanceof KandinskyError) {
    const flags = commands[process.argv[2] ?? '']?.options ?? {}
    const text = error.code === 'INVALID_ARGUMENT' ? withFlags(error.message, flags) : error.message
    return { code: error.code, text, exit: error.code === 'INVALID_ARGUMENT' ? 2 : 1 }
  }
  const { stack, message } = error as Error
  return { code: 'INTERNAL', text: process.env.KANDINSKY_DEBUG ? (stack ?? message) : message, exit: 1 }
}

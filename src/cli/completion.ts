// Completion of command lines for the usual shells, made of the same table as --help.
import { packagedModels } from '../hub/packaged.js'
import { type CliOption, type Command, type Completion, type Invocation, UsageError } from './options.js'

const shells = { bash, zsh, fish }
const HELP: CliOption = { type: 'boolean', short: 'h', description: 'show this help' }
/** Prints the names of the models that were pulled. */
const PULLED = 'kandinsky list --quiet 2>/dev/null'

/** The command that prints a shell's completion of these commands and of itself. */
export function completionOf(others: Record<string, Command>): Command {
  const command: Command = {
    summary: 'print the completion of this command line for a shell',
    usage: `Usage: kandinsky completion <bash | zsh | fish>

  bash: eval "$(kandinsky completion bash)" in ~/.bashrc
  zsh:  eval "$(kandinsky completion zsh)" in ~/.zshrc, behind compinit
  fish: kandinsky completion fish > ~/.config/fish/completions/kandinsky.fish`,
    options: {},
    completion: Object.keys(shells),
    async run({ positionals: [shell, ...more] }: Invocation) {
      const script =
        shell !== undefined && Object.hasOwn(shells, shell) ? shells[shell as keyof typeof shells] : undefined
      if (!script || more.length > 0) throw new UsageError(`expected one of ${Object.keys(shells).join(', ')}`)
      console.log(script({ ...others, completion: command }))
    },
  }
  return command
}

type Commands = Record<string, Command>

function optionsOf({ options }: Command): [string, CliOption][] {
  return [...Object.entries(options), ['help', HELP]]
}

function flagsOf([name, { short }]: [string, CliOption]): string[] {
  return short ? [`--${name}`, `-${short}`] : [`--${name}`]
}

function bash(commands: Commands): string {
  const cases = (of: (name: string, command: Command) => string[]) =>
    Object.entries(commands)
      .flatMap(([name, command]) => of(name, command))
      .map((line) => `    ${line}`)
      .join('\n')
  const values = cases((name, command) =>
    optionsOf(command)
      .filter(([, { type }]) => type === 'string')
      .map((option) => {
        const patterns = flagsOf(option).map((flag) => quoted(`${name} ${flag}`))
        return `${patterns.join('|')}) ${bashReply(option[1].completion)}; return ;;`
      }),
  )
  const flags = cases((name, command) => [`${name}) flags=${quoted(optionsOf(command).flatMap(flagsOf).join(' '))} ;;`])
  const words = cases((name, { completion }) => [`${name}) ${bashReply(completion)} ;;`])
  return `# Completion of kandinsky for bash.
_kandinsky() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} command=\${COMP_WORDS[1]} flags=
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then _kandinsky_words ${quoted([...Object.keys(commands), '--help', '--version'].join(' '))}; return; fi
  case "$command $prev" in
${values}
  esac
  case "$command" in
${flags}
  esac
  case "$cur" in -*) _kandinsky_words "$flags"; return ;; esac
  case "$command" in
${words}
  esac
}
_kandinsky_words() { COMPREPLY+=($(compgen -W "$1" -- "$cur")); }
_kandinsky_files() { local IFS=$'\\n'; compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -f -- "$cur")); }
complete -F _kandinsky kandinsky`
}

function bashReply(completion: Completion | undefined): string {
  if (completion === undefined) return ':'
  if (completion === 'file') return '_kandinsky_files'
  if (completion === 'pulled') return `_kandinsky_words "$(${PULLED})"`
  if (completion === 'model') return `_kandinsky_words "${packagedModels.join(' ')} $(${PULLED})"; _kandinsky_files`
  return `_kandinsky_words ${quoted(completion.join(' '))}`
}

function zsh(commands: Commands): string {
  const summaries = Object.entries(commands).map(([name, { summary }]) => `    ${quoted(`${name}:${summary}`)}`)
  const cases = Object.entries(commands).map(([name, command]) => {
    const specs = optionsOf(command).flatMap((option) => {
      const [flag, { multiple, description, type, value, completion }] = option
      const flags = flagsOf(option)
      const text = description.replace(/[[\]\\:]/g, '\\$&')
      const argument = type === 'string' ? `:${value ?? flag}:${zshAction(completion)}` : ''
      const alone = multiple ? '*' : `(${flags.join(' ')})`
      return flags.map((each) => quoted(`${alone}${each}[${text}]${argument}`))
    })
    const rest = [quoted(`*: :${command.completion ? zshAction(command.completion) : '()'}`)]
    return `    ${name}) _arguments ${[...specs, ...rest].join(' \\\n      ')} ;;`
  })
  return `#compdef kandinsky
# Completion of kandinsky for zsh.
_kandinsky_pulled() { local -a names; names=(\${(f)"$(${PULLED})"}); compadd -a names; }
_kandinsky_models() { compadd ${packagedModels.join(' ')}; _kandinsky_pulled; _files; }
_kandinsky() {
  local -a commands
  commands=(
${summaries.join('\n')}
  )
  if (( CURRENT == 2 )); then _describe command commands; return; fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join('\n')}
  esac
}
compdef _kandinsky kandinsky`
}

function zshAction(completion: Completion | undefined): string {
  if (completion === undefined) return ' '
  if (completion === 'file') return '_files'
  if (completion === 'pulled') return '_kandinsky_pulled'
  if (completion === 'model') return '_kandinsky_models'
  return `(${completion.join(' ')})`
}

function fish(commands: Commands): string {
  const lines = Object.entries(commands).flatMap(([name, command]) => {
    const here = `-n '__fish_seen_subcommand_from ${name}'`
    const own = optionsOf(command).map(([flag, { short, type, description, completion }]) => {
      const takes = type === 'string' ? `${completion === 'file' || completion === 'model' ? ' -r -F' : ' -x'}` : ''
      const shortFlag = short ? ` -s ${short}` : ''
      return `complete -c kandinsky ${here} -l ${flag}${shortFlag}${takes}${fishWords(completion)} -d ${fishQuoted(description)}`
    })
    const files = command.completion === 'file' || command.completion === 'model' ? ' -F' : ''
    const rest = command.completion ? [`complete -c kandinsky ${here}${files}${fishWords(command.completion)}`] : []
    const first = `complete -c kandinsky -n __fish_use_subcommand -a ${name} -d ${fishQuoted(command.summary)}`
    return [first, ...own, ...rest]
  })
  return ['# Completion of kandinsky for fish.', 'complete -c kandinsky -f', ...lines].join('\n')
}

function fishWords(completion: Completion | undefined): string {
  if (completion === undefined || completion === 'file') return ''
  if (completion === 'pulled') return ` -a '(${PULLED})'`
  if (completion === 'model') return ` -a '${packagedModels.join(' ')} (${PULLED})'`
  return ` -a ${fishQuoted(completion.join(' '))}`
}

/** For bash and zsh, which know no escapes between single quotes. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

function fishQuoted(text: string): string {
  return `'${text.replace(/[\\']/g, '\\$&')}'`
}

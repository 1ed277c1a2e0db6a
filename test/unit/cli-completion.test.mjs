// Completion scripts do in their shells what the table of flags says. Shells that are not installed are left out.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { kandinskyIn, main } from '../helpers/cli.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const isThere = (shell) => spawnSync(shell, ['-c', 'exit 0']).status === 0

/** A folder with a model that was pulled, files to choose from, and the command on the path. */
function home(t) {
  const folder = temporaryFolder(t)
  mkdirSync(path.join(folder, 'models'))
  for (const file of ['models/k22.gguf', 'cat.png', 'two words.png']) writeFileSync(path.join(folder, file), '')
  const command = path.join(folder, 'kandinsky')
  writeFileSync(command, `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`)
  chmodSync(command, 0o755)
  const script = (shell) => {
    const { status, stdout, stderr } = kandinskyIn(folder, ['completion', shell])
    assert.equal(status, 0, stderr)
    writeFileSync(path.join(folder, `completion.${shell}`), stdout)
  }
  const run = (shell, ...args) => {
    const env = {
      ...process.env,
      PATH: `${folder}:${process.env.PATH}`,
      KANDINSKY_MODELS: path.join(folder, 'models'),
      HOME: folder,
    }
    const { status, stdout, stderr } = spawnSync(shell, args, { cwd: folder, env, encoding: 'utf8' })
    assert.equal(status, 0, stderr)
    return stdout.trim().split('\n')
  }
  return { script, run }
}

const cases = [
  [['pu'], ['pull']],
  [['generate', '--sch'], ['--scheduler']],
  [['generate', 'a cat', '--scheduler', 'dp'], ['dpm++']],
  [['convert', '--type', 'q8'], ['q8_0']],
  [['generate', '-m', 'k2'], ['k22']],
  [['generate', '-m', 'demo-'], ['demo-inpaint']],
  [['generate', '--image', 'ca'], ['cat.png']],
  [['rm', 'k'], ['k22']],
  [['completion', 'f'], ['fish']],
]

test('bash completes commands, flags, values, models and files', { skip: !isThere('bash') }, (t) => {
  const { script, run } = home(t)
  script('bash')
  const complete = (words) =>
    run(
      'bash',
      '-c',
      `. ./completion.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _kandinsky; printf '%s\\n' "\${COMPREPLY[@]}"`,
      ...['bash', 'kandinsky', ...words],
    )
  for (const [words, expected] of cases) assert.deepEqual(complete(words), expected, words.join(' '))
  assert.deepEqual(complete(['generate', '--image', 'two']), ['two words.png'])
  assert.deepEqual(complete(['generate', '--steps', '']), [''])
})

test('fish completes commands, flags, values, models and files', { skip: !isThere('fish') }, (t) => {
  const { script, run } = home(t)
  script('fish')
  for (const [words, expected] of cases) {
    const line = ['kandinsky', ...words].map((word) => word.replace(' ', '\\ ')).join(' ')
    const lines = run('fish', '--no-config', '-c', `source completion.fish; complete -C ${JSON.stringify(line)}`)
    assert.deepEqual(
      lines.map((each) => each.split('\t')[0]),
      expected,
      line,
    )
  }
})

test('zsh takes the script', { skip: !isThere('zsh') }, (t) => {
  const { script, run } = home(t)
  script('zsh')
  run('zsh', '-n', 'completion.zsh')
  const setUp = 'autoload -Uz compinit; compinit -u -D; source ./completion.zsh; print $_comps[kandinsky]'
  assert.deepEqual(run('zsh', '-f', '-c', setUp), ['_kandinsky'])
})

test('every flag of every command is in every script', (t) => {
  const folder = temporaryFolder(t)
  const scripts = ['bash', 'zsh', 'fish'].map((shell) => kandinskyIn(folder, ['completion', shell]).stdout)
  const help = kandinskyIn(folder, ['generate', '--help']).stdout
  const flags = [...help.matchAll(/^ {2}(?:-\w, | {4})--([\w-]+)/gm)].map(([, flag]) => flag)
  assert.ok(flags.length > 20)
  for (const flag of flags) for (const script of scripts) assert.match(script, new RegExp(`(--|-l )${flag}\\b`), flag)
})

test('another shell is wrong usage', (t) => {
  for (const args of [[], ['tcsh'], ['bash', 'zsh'], ['constructor']]) {
    const { status, stderr } = kandinskyIn(temporaryFolder(t), ['completion', ...args])
    assert.equal(status, 2)
    assert.match(stderr, /expected one of bash, zsh, fish/)
  }
})

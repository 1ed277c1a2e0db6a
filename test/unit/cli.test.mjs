// The command line as a user or a script meets it: output, exit codes, files.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { checkpoint } from '../helpers/cases.mjs'

const main = path.resolve(import.meta.dirname, '../../dist/cli/main.js')
const folder = mkdtempSync(path.join(tmpdir(), 'kandinsky-cli-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const decoder = checkpoint('kandinsky-2-2-decoder')
const small = ['-m', decoder, '--steps', '2', '--prior-steps', '2', '--width', '64', '--height', '64', '--threads', '1']

function kandinsky(...args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', cwd: folder })
  return {
    status,
    stdout,
    stderr,
    lines: () =>
      stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
  }
}

test('help and version are printed and end with 0', () => {
  for (const args of [
    ['--help'],
    ['generate', '--help'],
    ['convert', '-h'],
    ['inspect', '--help'],
    ['devices', '--help'],
  ]) {
    const { status, stdout } = kandinsky(...args)
    assert.equal(status, 0, args.join(' '))
    assert.match(stdout, /Usage: kandinsky/)
  }
  assert.match(kandinsky('--version').stdout, /^\d+\.\d+\.\d+\n$/)
})

test('wrong usage ends with 2 and says what was expected', () => {
  for (const [args, message] of [
    [[], /Usage/],
    [['paint'], /unknown command paint: expected one of generate/],
    [['generate'], /expected one prompt/],
    [['generate', 'a', 'b'], /expected one prompt/],
    [['generate', 'a', '--colour', 'red'], /Unknown option '--colour'/],
    [['generate', 'a', ...small, '--steps', 'many'], /expected a number for --steps but received many/],
    [['generate', 'a', ...small, '--steps=-3'], /numInferenceSteps/],
    [['generate', 'a', ...small, '--guidance', 'NaN'], /guidance/],
    [['generate', 'a', ...small, '--device', 'toaster'], /device/],
    [['generate', 'a', ...small, '--scheduler', 'magic'], /scheduler/],
    [['convert', decoder], /expected a source and an output file/],
    [['convert', decoder, 'x.gguf', '--type', 'q9'], /q8_0/],
    [['convert', decoder, 'x.gguf', '--rule', 'nonsense'], /regex=type/],
    [['inspect'], /expected one file or folder/],
  ]) {
    const { status, stdout, stderr } = kandinsky(...args)
    assert.equal(status, 2, `${args.join(' ')}: ${stderr}`)
    assert.match(stdout + stderr, message)
  }
  assert.deepEqual(readdirSync(folder), [], 'nothing was written')
})

test('what fails for another reason ends with 1, as JSON where JSON was asked for', () => {
  const missing = kandinsky('generate', 'a cat', '-m', './missing.gguf')
  assert.equal(missing.status, 1)
  assert.match(missing.stderr, /missing\.gguf/)
  writeFileSync(path.join(folder, 'text.gguf'), 'no model')
  const foreign = kandinsky('inspect', 'text.gguf', '--json')
  assert.equal(foreign.status, 1)
  const [error] = foreign.lines()
  assert.equal(error.type, 'error')
  assert.match(error.code, /BAD_FILE|UNSUPPORTED_MODEL/)
  rmSync(path.join(folder, 'text.gguf'))
})

test('generate writes the pictures, reports each step and the seed, and the picture tells how it was made', () => {
  const { status, stderr, lines } = kandinsky(
    'generate',
    'red cat',
    ...small,
    '--seed',
    '5',
    '--count',
    '2',
    '-o',
    'cat.png',
    '--json',
  )
  assert.equal(status, 0, stderr)
  const events = lines()
  assert.deepEqual(
    events.filter(({ type }) => type === 'step').map(({ stage, step }) => `${stage} ${step}`),
    ['prior 1', 'prior 2', 'decoder 1', 'decoder 2'],
  )
  const result = events.at(-1)
  assert.equal(result.type, 'result')
  assert.equal(result.seed, 5)
  assert.deepEqual(result.files, ['cat-1.png', 'cat-2.png'])

  const inspected = kandinsky('inspect', 'cat-2.png', '--json')
  assert.equal(inspected.status, 0, inspected.stderr)
  const [{ recipe }] = inspected.lines()
  assert.equal(recipe.prompt, 'red cat')
  assert.equal(recipe.seed, 5)
  assert.equal(recipe.index, 1)
  assert.equal(recipe.numInferenceSteps, 2)
  assert.equal(recipe.scheduler, 'DDPMScheduler')
  assert.match(recipe.modelHash, /^[0-9a-f]{10}$/)
  for (const file of result.files) rmSync(path.join(folder, file))
})

test('convert writes one file that inspect lists and generate uses', () => {
  const converted = kandinsky(
    'convert',
    decoder,
    'tiny.gguf',
    '--prior',
    checkpoint('kandinsky-2-2-prior'),
    '--type',
    'q8_0',
    '--rule',
    'unet\\.mid_block=f16',
  )
  assert.equal(converted.status, 0, converted.stderr)
  const { status, stdout } = kandinsky('inspect', 'tiny.gguf')
  assert.equal(status, 0)
  for (const name of ['unet', 'movq', 'prior', 'text_encoder', 'image_encoder'])
    assert.match(stdout, new RegExp(`^${name} `, 'm'))
  const generated = kandinsky('generate', 'a cat', ...small, '-m', 'tiny.gguf', '-o', 'tiny.png')
  assert.equal(generated.status, 0, generated.stderr)
  assert.match(generated.stdout, /^tiny\.png \(seed \d+/)
  assert.match(generated.stderr, /decoder 100%/)
  for (const file of ['tiny.gguf', 'tiny.png']) rmSync(path.join(folder, file))
})

test('Ctrl-C stops at the next step with 130 and leaves no file', async () => {
  const child = spawn(
    process.execPath,
    [main, 'generate', 'a cat', ...small, '--steps', '900', '-o', 'never.png', '--json'],
    {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  let output = ''
  child.stdout.on('data', (chunk) => {
    if (!output.includes('decoder') && String(chunk).includes('decoder')) child.kill('SIGINT')
    output += chunk
  })
  const status = await new Promise((resolve) => child.on('close', resolve))
  assert.equal(status, 130)
  assert.match(output.trim().split('\n').at(-1), /INTERRUPTED/)
  assert.ok(!existsSync(path.join(folder, 'never.png')))
})

test('devices lists the CPU', () => {
  const { status, lines } = kandinsky('devices', '--json')
  assert.equal(status, 0)
  assert.ok(lines()[0].devices.some(({ name, totalBytes }) => name === 'cpu' && totalBytes > 0))
})

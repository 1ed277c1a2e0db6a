// The command line as a user or a script meets it: output, exit codes, files.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { optionHelp } from '../../dist/cli/options.js'
import { fitted, formatShare, progressLine, table, wrap } from '../../dist/cli/terminal.js'
import { checkpoint, fixtures } from '../helpers/cases.mjs'
import { kandinskyIn, main, small } from '../helpers/cli.mjs'

const folder = mkdtempSync(path.join(tmpdir(), 'kandinsky-cli-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const decoder = checkpoint('kandinsky-2-2-decoder')

const kandinsky = (...args) => kandinskyIn(folder, args)

test('help and version are printed and end with 0', () => {
  for (const args of [
    ['--help'],
    ['generate', '--help'],
    ['convert', '-h'],
    ['inspect', '--help'],
    ['devices', '--help'],
    ['help', 'estimate'],
  ]) {
    const { status, stdout } = kandinsky(...args)
    assert.equal(status, 0, args.join(' '))
    assert.match(stdout, /Usage: kandinsky/)
  }
  for (const flag of ['--version', '-v']) assert.match(kandinsky(flag).stdout, /^\d+\.\d+\.\d+\n$/)
})

test('what can be checked is checked before the model is looked for', () => {
  const nowhere = ['generate', 'a', '-m', 'no-such-model.gguf']
  writeFileSync(path.join(folder, 'file'), '')
  for (const [args, message] of [
    [['--steps', 'ten'], /a whole number of at least 1 for --steps but received ten/],
    [['--steps', '2.5'], /--steps/],
    [['--count', '0'], /--count/],
    [['--width', '-64'], /--width/],
    [['--height', '1e400'], /--height/],
    [['--guidance', 'Infinity'], /--guidance/],
    [['--prior-steps', '0'], /--prior-steps/],
    [['--threads', '0'], /--threads/],
    [['--strength', '2'], /from 0 to 1 for --strength but received 2/],
    [['--scheduler', 'dpmpp'], /scheduler/],
    [['--weights', 'q9'], /--weights/],
    [['--device', 'toaster'], /--device/],
    [['--offload', 'all'], /--offload/],
    [['--tiling', 'perhaps'], /--tiling/],
    [['--image', 'nope.png'], /--image nope.png does not exist/],
    [['--image', folder], /--image .* is not a file but a folder/],
    [['--mask', 'nope.png', '--image', main], /--mask nope.png does not exist/],
    [['--hint', 'nope.png'], /--hint nope.png does not exist/],
    [['-o', 'x.xyz'], /a name that ends in .png.* for --output but received x.xyz/],
    [['-o', 'x'], /--output but received x/],
    [['-o', 'file/x.png'], /--output file\/x.png could not be written/],
    [['--preview', 'p.xyz'], /--preview/],
  ]) {
    const { status, stderr } = kandinsky(...nowhere, ...args)
    assert.notEqual(status, 0, args.join(' '))
    assert.match(stderr, message)
  }
  const missing = kandinsky('generate', '-m', 'no-such-model.gguf', '--mix', 'missing.png=0.5', '--mix', 'a cat=0.5')
  assert.match(missing.stderr, /--mix missing.png does not exist/)
  rmSync(path.join(folder, 'file'))
})

test('seeds have 64 bits, and -1 is a random one', () => {
  const seedOf = (...args) =>
    kandinsky('generate', 'a', ...small, '-o', 'seed.png', '--json', ...args)
      .lines()
      .at(-1).seed
  assert.equal(seedOf('--seed', '6687881544318117707'), '6687881544318117707')
  assert.equal(seedOf('--seed', '-2'), -2)
  assert.equal(seedOf('--seed', '42'), 42)
  const random = seedOf('--seed', '-1')
  assert.ok(Number.isSafeInteger(random) && random >= 0, random)
  for (const wrong of ['1.5', '18446744073709551616', 'x', '']) {
    const { status, stderr } = kandinsky('generate', 'a', ...small, '--seed', wrong)
    assert.equal(status, 2)
    assert.match(stderr, /a whole number from -2\^63 to 2\^64 - 1 for --seed/)
  }
  rmSync(path.join(folder, 'seed.png'))
})

test('a reader that has had enough ends the command quietly', async () => {
  const child = spawn(process.execPath, [main, 'generate', 'a', ...small, '-o', 'pipe.png', '--json'], { cwd: folder })
  let text = ''
  child.stderr.on('data', (chunk) => {
    text += chunk
  })
  child.stdout.once('data', () => child.stdout.destroy())
  const [code] = await once(child, 'close')
  assert.equal(text, '')
  assert.equal(code, 0)
  rmSync(path.join(folder, 'pipe.png'), { force: true })
})

test('texts fit a terminal, and stay as they are elsewhere', () => {
  const text = 'kandinsky: a message of several words\n  and a second line that is indented'
  assert.equal(fitted(text, {}), text)
  const lines = fitted(text, { isTTY: true, columns: 20 }).split('\n')
  assert.deepEqual(lines, ['kandinsky: a', 'message of several', 'words', '  and a second line', '  that is indented'])
})

test('what is there of how much has one unit', () => {
  assert.equal(formatShare(1_234_000_000, 3_300_000_000), '1.2/3.3 GB')
  assert.equal(formatShare(1_234_000_000, 16_000_000_000), '1.2/16 GB')
  assert.equal(formatShare(500, 627_000), '1/627 kB')
  assert.equal(formatShare(0, 12), '0/12 B')
})

test('misspelled commands and flags are guessed', () => {
  assert.match(
    kandinsky('geneate', 'a').stderr,
    /unknown command geneate: did you mean generate\?\nTry: kandinsky --help/,
  )
  const { status, stderr } = kandinsky('generate', 'a', '--sed=4')
  assert.equal(status, 2)
  assert.match(stderr, /Unknown option '--sed': did you mean --seed\?\nTry: kandinsky generate --help/)
})

test('a progress line fits the terminal', () => {
  for (const columns of [200, 80, 62, 40, 20, 5, 1]) {
    const line = progressLine('decoder', 0.5, '50/100, 12:30 min left', columns)
    assert.ok(line.length < Math.max(columns, 1), `${columns}: ${line}`)
  }
  assert.match(progressLine('decoder', 0.5, '50/100', 40), /^decoder {4}█+░+ {2}50% 50\/100$/)
  assert.match(progressLine('decoder', 0.5, '50/100'), /█{15}░{15}/)
})

test('help fits the terminal: in narrow ones descriptions stand below the names', () => {
  const rows = {
    steps: { type: 'string', value: 'N', description: 'a text of several words that is longer than one line' },
  }
  for (const columns of [100, 80, 62, 40, 30])
    for (const line of optionHelp(rows, columns).split('\n')) assert.ok(line.length < columns, `${columns}: ${line}`)
  assert.match(optionHelp(rows, 36), /^ {6}--steps N\n {10}a text of several words\n {10}that is longer/)
  assert.equal(
    table(
      [
        ['a', 'b c'],
        ['long', 'd'],
      ],
      80,
    ),
    'a     b c\nlong  d',
  )
  assert.equal(
    wrap('a https://example.com/longer-than-a-line b', 12, 1),
    'a\n https://example.com/longer-than-a-line\n b',
  )
})

test('output that cannot be written ends with 1 and a line', { skip: !existsSync('/dev/full') }, () => {
  for (const args of [['devices'], ['generate', 'a', ...small, '-q', '-o', '-']]) {
    const full = openSync('/dev/full', 'w')
    const { status, stderr } = kandinskyIn(folder, args, { stdio: ['ignore', full, 'pipe'] })
    closeSync(full)
    assert.equal(status, 1)
    assert.match(stderr, /^kandinsky: standard output cannot be written: ENOSPC.*\n$/)
  }
})

test('folders of outputs are made', () => {
  const { status, stderr } = kandinsky('generate', 'a', ...small, '-o', 'new/folder/x.png')
  assert.equal(status, 0, stderr)
  assert.ok(existsSync(path.join(folder, 'new', 'folder', 'x.png')))
  rmSync(path.join(folder, 'new'), { recursive: true })
})

test('a picture whose folder went away meanwhile is kept elsewhere, and that is said', async () => {
  const gone = path.join(folder, 'gone')
  const child = spawn(process.execPath, [main, 'generate', 'a', ...small, '-o', 'gone/x.png'], { cwd: folder })
  let text = ''
  child.stderr.setEncoding('utf8').on('data', (chunk) => {
    text += chunk
    if (text.includes('prior')) rmSync(gone, { recursive: true, force: true })
  })
  const [code] = await once(child, 'close')
  assert.equal(code, 1)
  const kept = /Could not write gone\/x.png: .*The picture is in (\S+\.png)/.exec(text)?.[1]
  assert.ok(kept && existsSync(kept), text)
  rmSync(kept)
})

test('wrong usage ends with 2 and says what was expected', () => {
  for (const [args, message] of [
    [[], /Usage/],
    [['paint'], /unknown command paint: expected one of generate/],
    [['generate'], /expected one prompt/],
    [['generate', 'a', 'b'], /expected one prompt/],
    [['generate', 'a', '--colour', 'red'], /Unknown option '--colour'/],
    [
      ['generate', 'a', ...small, '--steps', 'many'],
      /expected a whole number of at least 1 for --steps but received many/,
    ],
    [['generate', 'a', ...small, '--steps=-3'], /expected a whole number of at least 1 for --steps but received -3/],
    [['generate', 'a', ...small, '--guidance', 'NaN'], /guidance/],
    [['generate', 'a', ...small, '--device', 'toaster'], /device/],
    [['generate', 'a', ...small, '--scheduler', 'magic'], /scheduler/],
    [['convert', decoder], /expected a source and an output file/],
    [['convert', decoder, 'x.gguf', '--type', 'q9'], /q8_0/],
    [['convert', decoder, 'x.gguf', '--rule', 'nonsense'], /regex=type/],
    [['inspect'], /expected one file or folder/],
    [['devices', 'x'], /expected no more than options but received x/],
    [['list', 'x'], /expected no more than options/],
    [['rm'], /expected the name of a model/],
    [['pull'], /expected one repository or URL/],
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
  assert.equal(recipe.seed, 6, 'the second picture is that of seed 6 alone')
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
    'Q8_0',
    '--rule',
    'unet\\.mid_block=F16',
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

test('inspect tells what any picture is, and packaged models by their names', () => {
  const images = path.join(fixtures, 'images')
  const [file] = readdirSync(images).filter((name) => name.endsWith('.png'))
  const plain = kandinsky('inspect', path.join(images, file))
  assert.equal(plain.status, 0, plain.stderr)
  assert.match(plain.stdout, /\.png: PNG, \d+ x \d+ pixels\nIt does not say how it was made/)
  const { status } = kandinsky('generate', 'a', ...small, '-o', 'a.jpg')
  assert.equal(status, 0)
  const [jpeg] = kandinsky('inspect', 'a.jpg', '--json').lines()
  assert.deepEqual(jpeg, { type: 'picture', format: 'jpeg', width: 64, height: 64, recipe: null })
  renameSync(path.join(folder, 'a.jpg'), path.join(folder, 'a'))
  assert.match(kandinsky('inspect', 'a').stdout, /^a: JPEG, 64 x 64/)
  writeFileSync(path.join(folder, 'a'), 'a note')
  const note = kandinsky('inspect', 'a')
  assert.equal(note.status, 1)
  assert.match(note.stderr, /Expected a PNG, JPEG/)
  rmSync(path.join(folder, 'a'))
  assert.match(kandinsky('inspect', 'demo').stdout, /^unet /m)
  const missing = kandinsky('inspect', 'nothing')
  assert.equal(missing.status, 1)
  assert.match(missing.stderr, /nothing does not exist, and "nothing" is no hub id .* and no model that was pulled/)
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

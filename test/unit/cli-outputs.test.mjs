// Where `kandinsky generate` gets its prompts from, and under which names its pictures go.
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { parseRecipe } from '../../dist/images/recipe.js'
import { RawImage, readRecipe } from '../../dist/index.js'
import { kandinskyIn, small } from '../helpers/cli.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

test('without a name nothing is overwritten: pictures are numbered after those that are there', (t) => {
  const folder = temporaryFolder(t)
  const made = (...args) =>
    kandinskyIn(folder, ['generate', 'a', ...small, '--json', ...args])
      .lines()
      .at(-1).files
  assert.deepEqual(made(), ['out.png'])
  const first = readFileSync(path.join(folder, 'out.png'))
  assert.deepEqual(made(), ['out-2.png'])
  writeFileSync(path.join(folder, 'out-7.png'), '')
  assert.deepEqual(made('--count', '2'), ['out-8.png', 'out-9.png'])
  assert.deepEqual(readFileSync(path.join(folder, 'out.png')), first)
  assert.equal(statSync(path.join(folder, 'out-7.png')).size, 0)
})

test('several pictures under a chosen name are numbered from 1, and one has the name', (t) => {
  const folder = temporaryFolder(t)
  const made = (...args) =>
    kandinskyIn(folder, ['generate', 'a', ...small, '-o', 'cat.png', '--json', ...args])
      .lines()
      .at(-1).files
  assert.deepEqual(made(), ['cat.png'])
  assert.deepEqual(made('--count', '2'), ['cat-1.png', 'cat-2.png'])
})

test('every line of a file or of standard input is a prompt, drawn by a model that is loaded once', async (t) => {
  const folder = temporaryFolder(t)
  const text = '\ufeffa red cat\r\n\n  \nein Hündchen'
  writeFileSync(path.join(folder, 'prompts.txt'), text)
  for (const [args, input] of [
    [['--prompts', 'prompts.txt'], ''],
    [['-'], text],
    [['--prompts', '-'], text],
  ]) {
    const { status, stderr } = kandinskyIn(folder, ['generate', ...args, ...small, '--seed', '3', '-o', 'x.png'], {
      input,
    })
    assert.equal(status, 0, stderr)
    assert.deepEqual(
      stderr.match(/(?<=^load )\w+(?= 100%)/gm),
      ['unet', 'movq', 'text_encoder', 'prior'],
      'each network once',
    )
    const recipes = await Promise.all([1, 2].map((i) => readRecipe(path.join(folder, `x-${i}.png`))))
    assert.deepEqual(
      recipes.map(({ prompt, seed }) => [prompt, seed]),
      [
        ['a red cat', 3],
        ['ein Hündchen', 3],
      ],
    )
  }
  const events = kandinskyIn(folder, ['generate', '-', ...small, '-o', 'x.png', '--json'], { input: text }).lines()
  assert.deepEqual([...new Set(events.map(({ promptIndex }) => promptIndex))], [0, 1])
  assert.deepEqual(
    events.filter(({ type }) => type === 'result').map(({ prompt }) => prompt),
    ['a red cat', 'ein Hündchen'],
  )
  const one = kandinskyIn(folder, ['generate', '-', ...small, '-o', 'one.png'], { input: 'a cat\n' })
  assert.match(one.stdout, /^one\.png /)
})

test('prompts that are missing, doubled or no text are said before the model is looked for', (t) => {
  const folder = temporaryFolder(t)
  writeFileSync(path.join(folder, 'latin1.txt'), Buffer.from('ein H\xfcndchen', 'latin1'))
  const refuses = (args, message, input = '') => {
    const { status, stderr } = kandinskyIn(folder, ['generate', '-m', 'no-such-model.gguf', ...args], { input })
    assert.notEqual(status, 0)
    assert.match(stderr, message)
  }
  refuses(['-'], /a prompt on each line of standard input but it has none/)
  refuses(['a', '--prompts', 'latin1.txt'], /expected one prompt/)
  refuses(['--mix', 'a=1', '--prompts', 'latin1.txt'], /expected one prompt/)
  refuses(['--prompts', 'latin1.txt'], /Expected prompts as UTF-8 text in latin1.txt/)
  refuses(['--prompts', 'nope.txt'], /--prompts nope.txt does not exist/)
  refuses(['--prompts', folder], /is not a file but a folder/)
})

test('-o - writes a PNG file to standard output and nothing else', (t) => {
  const folder = temporaryFolder(t)
  const { status, bytes, stderr } = kandinskyIn(folder, ['generate', 'a cat', ...small, '-o', '-'])
  assert.equal(status, 0, stderr)
  assert.equal(parseRecipe(bytes).prompt, 'a cat')
  assert.match(stderr, /\(seed \d+, [\d.]+ s\)\n$/)
  assert.deepEqual(readdirSync(folder), [])
  const refuses = (args, message, input) => {
    const refused = kandinskyIn(folder, ['generate', ...args, '-m', 'none.gguf', '-o', '-'], { input })
    assert.equal(refused.status, 2)
    assert.match(refused.stdout + refused.stderr, message)
  }
  refuses(['a', '--json'], /exclude each other/)
  refuses(['a', '--count', '2'], /takes one picture but 2/)
  refuses(['-'], /takes one picture but 2/, 'a\nb')
})

test('--quality makes smaller files, of formats that have one', async (t) => {
  const folder = temporaryFolder(t)
  const size = (quality) => {
    const { status, stderr } = kandinskyIn(folder, [
      ...['generate', 'a cat', ...small, '--seed', '1', '-o', 'x.jpg', '--quality', quality],
    ])
    assert.equal(status, 0, stderr)
    return statSync(path.join(folder, 'x.jpg')).size
  }
  assert.ok(size('5') < size('95') / 2)
  for (const [args, message] of [
    [['-o', 'y.png', '--quality', '50'], /--quality needs a name in -o that ends in \.jpg/],
    [['--quality', '50'], /--quality needs/],
    [['-o', 'y.jpg', '--quality', '0'], /from 1 to 100 for --quality/],
  ]) {
    const { status, stderr } = kandinskyIn(folder, ['generate', 'a', '-m', 'none.gguf', ...args])
    assert.equal(status, 2)
    assert.match(stderr, message)
  }
  assert.ok(!existsSync(path.join(folder, 'y.jpg')))
  const image = new RawImage(new Uint8Array(3), 1, 1)
  await assert.rejects(image.toBuffer('png', { quality: 50 }), { code: 'INVALID_ARGUMENT', message: /quality/ })
  await assert.rejects(image.toBuffer('jpeg', { quality: 101 }), { code: 'INVALID_ARGUMENT', message: /1 to 100/ })
})

test('--quiet prints the names of the files and nothing else', (t) => {
  const folder = temporaryFolder(t)
  const { status, stdout, stderr } = kandinskyIn(folder, [
    'generate',
    'a',
    ...small,
    '--count',
    '2',
    '-q',
    '-o',
    'q.png',
  ])
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: 'q-1.png\nq-2.png\n', stderr: '' })
})

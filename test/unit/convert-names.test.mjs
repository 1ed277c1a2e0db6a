// Converting writes to no file but its output: temporary names belong to nobody, and two conversions never mix.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { copyFileSync, linkSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { convert } from '../../dist/convert.js'
import { checkpoint } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const decoder = checkpoint('kandinsky-2-2-decoder')
const prior = checkpoint('kandinsky-2-2-prior')

test("a source called like the output's temporary file survives", async (t) => {
  const folder = temporaryFolder(t)
  const [first, source, output] = ['first.gguf', 'm.gguf.partial', 'm.gguf'].map((name) => path.join(folder, name))
  await convert(decoder, first)
  copyFileSync(first, source)
  const before = readFileSync(source)
  await convert(source, output)
  assert.ok(readFileSync(source).equals(before))
  assert.equal(statSync(output).size, statSync((await convert(source, first)).path).size)
})

test('files of the user beside the output are neither written nor deleted', async (t) => {
  const folder = temporaryFolder(t)
  const output = path.join(folder, 'k.gguf')
  const precious = path.join(folder, 'precious')
  writeFileSync(precious, 'mine')
  for (const name of ['k.gguf.image_encoder', '.k.gguf.x.partial']) writeFileSync(path.join(folder, name), 'mine')
  linkSync(precious, path.join(folder, 'k.gguf.partial'))
  const before = readdirSync(folder)
  await convert(prior, output)
  assert.deepEqual(readdirSync(folder).sort(), [...before, 'k.gguf'].sort())
  for (const name of before) assert.equal(readFileSync(path.join(folder, name), 'utf8'), 'mine', name)
})

/** Converts in another process; gives what it says. */
function convertElsewhere(source, output) {
  const script = `
    import { convert } from ${JSON.stringify(path.resolve(import.meta.dirname, '../../dist/convert.js'))}
    await convert(${JSON.stringify(source)}, ${JSON.stringify(output)}).then(
      () => console.log('done'), (error) => console.log(error.message))`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  child.stdout.on('data', (text) => (said += text))
  return new Promise((resolve) => child.once('close', () => resolve(said.trim())))
}

test('of two conversions to one target, what is there is whole, and the other says so', async (t) => {
  const folder = temporaryFolder(t)
  const [a, b] = [decoder, prior].map((source, i) => convert(source, path.join(temporaryFolder(t), `${i}.gguf`)))
  const sizes = [(await a).bytes, (await b).bytes]
  for (let round = 0; round < 4; round++) {
    const output = path.join(folder, `${round}.gguf`)
    const said = await Promise.all([convertElsewhere(decoder, output), convertElsewhere(prior, output)])
    const refused = said.filter((words) => words !== 'done')
    assert.ok(said.includes('done'), said.join())
    for (const words of refused) assert.match(words, /cannot be written: (it is being|another process)/)
    assert.ok(sizes.some((size) => Math.abs(size - statSync(output).size) < 64))
  }
  assert.deepEqual(readdirSync(folder).sort(), ['0.gguf', '1.gguf', '2.gguf', '3.gguf'])
})

test('a target that another process wrote meanwhile stays', async (t) => {
  const output = path.join(temporaryFolder(t), 'out.gguf')
  const converting = convert(prior, output)
  converting.catch(() => {})
  // The image encoder runs first; its temporary folder shows that the conversion is under way.
  while (!readdirSync(path.dirname(output)).some((name) => name.startsWith('.kandinsky-')))
    await new Promise((resolve) => setTimeout(resolve, 1))
  writeFileSync(output, 'theirs')
  await assert.rejects(converting, { code: 'BAD_FILE', message: /another process wrote it meanwhile/ })
  assert.equal(readFileSync(output, 'utf8'), 'theirs')
  assert.deepEqual(readdirSync(path.dirname(output)), ['out.gguf'])
})

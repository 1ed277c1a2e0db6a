// Typed arrays, errors and our own objects are recognised by what they are, not by whose constructor made them.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import vm from 'node:vm'
import * as library from '../../dist/index.js'
import { firstOf } from '../../dist/realms.js'

const root = path.resolve(import.meta.dirname, '../..')
const folder = mkdtempSync(path.join(tmpdir(), 'kandinsky-realms-'))
after(() => rmSync(folder, { recursive: true, force: true }))

for (const [runner, options] of [
  ['a bare vm context, as in vmThreads', []],
  ['a context with the Uint8Array of Node, as in Jest', ['--jest']],
])
  test(`the library works inside ${runner}`, () => {
    const child = path.join(root, 'test/helpers/realm-child.mjs')
    const index = path.join(root, 'dist/index.js')
    const picture = path.join(folder, 'picture.png')
    const args = ['--no-warnings', '--experimental-vm-modules', child, index, picture, ...options]
    const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
  })

test('typed arrays, buffers, patterns and addresses of another realm are taken', async () => {
  const make = (source) => vm.runInNewContext(source, { URL })
  assert.equal(new library.Tensor(make('new Float32Array(6)'), [2, 3]).data.length, 6)
  assert.equal(library.Tensor.from(make('({ shape: [2], data: new Float32Array(2) })')).shape[0], 2)
  const picture = new library.RawImage(make('new Uint8Array(12)'), 2, 2)
  const png = await picture.toBuffer('png')
  const foreignBytes = make('(bytes) => Uint8Array.from(bytes)')(png)
  assert.equal((await library.loadImage(foreignBytes)).width, 2)
  assert.equal((await library.loadImage(foreignBytes.buffer)).width, 2)
  const { href, protocol } = new URL(`data:image/png;base64,${png.toString('base64')}`)
  assert.equal((await library.loadImage({ href, protocol, toString: () => href })).width, 2)
  const rules = [{ pattern: make('/no such weight/'), type: 'q8_0' }]
  const converted = library.convert(path.join(root, 'models/demo.gguf'), path.join(folder, 'out.gguf'), { rules })
  await assert.rejects(converted, /patterns that match the name of a matrix/)
})

test('what only looks like a typed array is refused', () => {
  for (const fake of [{ [Symbol.toStringTag]: 'Float32Array', length: 1 }, [1], new Float64Array(1)])
    assert.throws(() => new library.Tensor(fake, [1]), { code: 'INVALID_ARGUMENT' })
})

test("a second copy's tensors, pictures, generators and errors count as our own", async () => {
  for (const entry of ['package.json', 'node_modules', 'build', 'models'])
    symlinkSync(path.join(root, entry), path.join(folder, entry))
  cpSync(path.join(root, 'dist'), path.join(folder, 'dist'), { recursive: true })
  const copy = await import(pathToFileURL(path.join(folder, 'dist/index.js')).href)
  assert.notEqual(copy.Tensor, library.Tensor)

  const pipe = await library.AutoPipelineForImage2Image.fromPretrained('demo', { threads: 1 })
  const image = new copy.RawImage(new Uint8Array(128 * 128 * 3), 128, 128)
  const { images } = await pipe.generate({
    prompt: 'a cat',
    image,
    numInferenceSteps: 4,
    generator: new copy.Generator(5),
  })
  assert.equal(images[0].recipe.seed, 5)
  assert.ok(images[0] instanceof copy.RawImage)
  const tensor = new copy.Tensor(new Float32Array(3 * 128 * 128), [1, 3, 128, 128])
  await pipe.generate({ prompt: 'a cat', image: tensor, numInferenceSteps: 4, outputType: 'latent' })
  await pipe.dispose()
  assert.ok((await copy.loadImage('nowhere.png').catch((error) => error)) instanceof library.KandinskyError)
})

test('instanceof keeps its meaning for derived classes and for everything else', () => {
  class Named extends library.Tensor {}
  const named = new Named(new Float32Array(1), [1])
  const plain = new library.Tensor(new Float32Array(1), [1])
  assert.ok(named instanceof Named && named instanceof library.Tensor)
  assert.ok(!(plain instanceof Named))
  for (const other of [null, undefined, 1, {}, new library.Generator(1)]) assert.ok(!(other instanceof library.Tensor))
})

test("a signal that is not this realm's AbortSignal joins others", () => {
  const own = new AbortController()
  const listeners = []
  const foreign = { aborted: false, addEventListener: (_, listener) => listeners.push(listener), reason: undefined }
  const joined = firstOf([foreign, own.signal])
  assert.ok(!joined.aborted)
  foreign.reason = 'theirs'
  for (const listener of listeners) listener()
  assert.equal(joined.reason, 'theirs')
  assert.equal(firstOf([foreign, AbortSignal.abort('ours')]).reason, 'ours')
})

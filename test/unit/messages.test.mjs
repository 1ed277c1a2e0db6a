// What names from outside do to messages: nothing.
import assert from 'node:assert/strict'
import path from 'node:path'
import test from 'node:test'
import { AutoPipelineForText2Image, KandinskyError, loadImage, RawImage } from '../../dist/index.js'
import { temporaryFolder } from '../helpers/files.mjs'

test('control characters are escaped, and what is longer than any name is shortened', async () => {
  const { message } = new KandinskyError('BAD_FILE', `\u001b[31mred\u0007\u009b ${'a'.repeat(70000)} end\nnext line`)
  assert.match(message, /^\\u001b\[31mred\\u0007\\u009b a{200}…a{50} end\nnext line$/)
  for (const name of ['/tmp/\u001b[31mred\u0007', `/tmp/${'a'.repeat(5000)}`]) {
    const error = await AutoPipelineForText2Image.fromPretrained(name).catch((error) => error)
    assert.equal(error.code, 'FILE_NOT_FOUND')
    assert.doesNotMatch(error.message, /[^\P{Cc}\n]/u)
    assert.ok(error.message.length < 700, `${error.message.length} characters`)
  }
})

test('files that cannot be are errors of ours, when pictures are read and written', async (t) => {
  const folder = temporaryFolder(t)
  const picture = new RawImage(new Uint8Array(12), 2, 2)
  const file = path.join(folder, 'file.png')
  await picture.save(file)
  for (const wrong of [
    path.join(file, 'x.png'),
    path.join(folder, `${'b'.repeat(400)}.png`),
    path.join(folder, 'no', 'x.png'),
  ]) {
    await assert.rejects(picture.save(wrong), { name: 'KandinskyError', message: /Could not write/ })
    await assert.rejects(loadImage(wrong), { name: 'KandinskyError' })
  }
})

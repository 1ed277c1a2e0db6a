// What the native benchmark of networks reads, without Node, is what the others use.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import { publishedConfigs } from '../../scripts/published-configs.mjs'

test('configs.json holds the published configurations', () => {
  const { unet, movq } = publishedConfigs['kandinsky-2-2-decoder']
  const { prior } = publishedConfigs['kandinsky-2-2-prior']
  const file = new URL('../../native/bench/configs.json', import.meta.url)
  assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), { prior, unet, movq })
})

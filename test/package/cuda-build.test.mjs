// What of the CUDA build can be seen without CUDA: how ggml's backends are linked as libraries beside the addon.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'
import { definitions } from '../../scripts/cmake.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

const root = path.resolve(import.meta.dirname, '../..')

test('no library holds a source of ours twice', (t) => {
  const tree = temporaryFolder(t)
  const given = {
    ...definitions(),
    KANDINSKY_CUDA: 'OFF',
    KANDINSKY_DYNAMIC_BACKENDS: 'ON',
    CMAKE_BUILD_TYPE: 'Release',
  }
  const settings = Object.entries(given).map(([name, value]) => `-D${name}=${value}`)
  execFileSync('cmake', ['-S', root, '-B', tree, '-G', 'Unix Makefiles', ...settings], { stdio: 'pipe' })
  for (const library of ['ggml-base', 'ggml-cpu']) {
    const link = readFileSync(path.join(tree, `ggml/src/CMakeFiles/${library}.dir/link.txt`), 'utf8')
    assert.deepEqual(link.match(/ggml_memory\.cpp\.o/g), ['ggml_memory.cpp.o'], `${library}: ${link}`)
  }
})

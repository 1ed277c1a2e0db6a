// scripts/test-gpu.sh is run where there is a GPU; here only that it says so where there is none.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import test from 'node:test'

const hasGpu = spawnSync('nvidia-smi').status === 0

test('without a GPU the command for GPU machines says so at once', {
  skip: hasGpu || process.platform !== 'linux',
}, () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'kandinsky-gpu-'))
  const script = path.resolve(import.meta.dirname, '../../scripts/test-gpu.sh')
  const { status, stderr } = spawnSync('bash', [script, path.join(folder, 'report')], { encoding: 'utf8' })
  rmSync(folder, { recursive: true })
  assert.equal(status, 2)
  assert.match(stderr, /no GPU here .* --dry-run tries the rest/)
})

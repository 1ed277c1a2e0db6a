// Release binaries: what they may need of a system is looked at in their symbol tables (scripts/check-binary.mjs).
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { checkBinary, targets } from '../../scripts/check-binary.mjs'

const root = path.resolve(import.meta.dirname, '../..')
const local = path.join(root, 'build', 'Release', 'kandinsky.node')
const here = targets[`${process.platform}-${process.arch}`]
const isGlibc = here?.libc === 'glibc'

test('node-gyp-build takes the file of every target on the system that it is for', async () => {
  const { default: nodeGypBuild } = await import('node-gyp-build')
  for (const [name, { folder, file }] of Object.entries(targets)) {
    const [platform, arch, libc] = name.split('-')
    assert.ok(nodeGypBuild.matchTuple(platform, arch)(nodeGypBuild.parseTuple(folder)), name)
    const { napi, runtime, libc: tag } = nodeGypBuild.parseTags(file)
    assert.deepEqual({ napi, runtime, tag }, { napi: true, runtime: 'node', tag: tag && (libc ?? 'glibc') })
  }
})

test('a binary that needs the C++ library of its builder is not fit', { skip: !isGlibc && 'no glibc here' }, () => {
  const faults = checkBinary(local, here)
  assert.ok(
    faults.some((fault) => /libstdc\+\+/.test(fault)),
    faults.join('\n'),
  )
  assert.ok(
    faults.some((fault) => /GLIBCXX_/.test(fault)),
    faults.join('\n'),
  )
  assert.ok(!faults.some((fault) => /symbols/.test(fault)), 'but even that one shows nothing to other addons')
})

test('a binary for another processor or system is not fit', () => {
  const others = Object.entries(targets).filter(([, { folder }]) => folder !== `${process.platform}-${process.arch}`)
  for (const [name, target] of others) assert.match(checkBinary(local, target).join(), /not a binary for/, name)
})

for (const [name, target] of Object.entries(targets)) {
  const file = path.join(root, 'prebuilds', target.folder, target.file)
  test(`the prebuild for ${name} is fit`, { skip: !existsSync(file) && 'not made here' }, () => {
    assert.deepEqual(checkBinary(file, target), [])
  })
}

test('an unknown target is refused before anything is built', () => {
  const script = path.join(root, 'scripts', 'prebuild.mjs')
  const { status, stderr } = spawnSync(process.execPath, [script, '--target', 'linux-mips'], { encoding: 'utf8' })
  assert.equal(status, 1)
  assert.match(stderr, /no target linux-mips: expected one of linux-x64, linux-arm64/)
})

// Release binaries: what they may need of a system is looked at in their symbol tables (scripts/check-binary.mjs).
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { checkBinary, targets } from '../../scripts/check-binary.mjs'
import { temporaryFolder } from '../helpers/files.mjs'

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

/** A library for macOS, as far as checks look: what it needs, the oldest system, and its symbols. */
function macho({ library = '/usr/lib/libSystem.B.dylib', macos = 11, symbols }) {
  const words = (...values) => Buffer.from(Uint32Array.from(values).buffer)
  const padded = Buffer.from(`${library}\0`.padEnd(Math.ceil((library.length + 1) / 8) * 8, '\0'))
  const load = Buffer.concat([words(0xc, 24 + padded.length, 24, 0, 0, 0), padded])
  const build = words(0x32, 24, 1, macos << 16, macos << 16, 0)
  const after = 32 + load.length + build.length + 24
  const names = Buffer.from(`\0${symbols.map(({ name }) => `${name}\0`).join('')}`)
  let at = 1
  const table = symbols.map(({ name, kind, ordinal = 0 }) => {
    const entry = Buffer.alloc(16)
    entry.writeUInt32LE(at)
    at += name.length + 1
    entry[4] = kind
    entry.writeUInt16LE(ordinal << 8, 6)
    return entry
  })
  const symtab = words(2, 24, after, table.length, after + 16 * table.length, names.length)
  const header = words(0xfeedfacf, 0x0100000c, 0, 6, 3, load.length + build.length + 24, 0, 0)
  return Buffer.concat([header, load, build, symtab, ...table, names])
}

test('a binary for macOS is not fit if it is too new, shows more than its registration, or expects what nobody has', (t) => {
  const file = path.join(temporaryFolder(t), 'kandinsky.node')
  const faultsOf = (content) => {
    writeFileSync(file, macho(content))
    return checkBinary(file, targets['darwin-arm64'])
  }
  const [external, defined, local] = [0x01, 0x0f, 0x0e]
  const symbols = [
    { name: '_napi_register_module_v1', kind: defined },
    { name: '_napi_create_object', kind: external, ordinal: 0xfe },
    { name: '_malloc', kind: external, ordinal: 1 },
    { name: '_ggml_init', kind: local },
  ]
  assert.deepEqual(faultsOf({ symbols }), [])
  assert.deepEqual(faultsOf({ symbols, macos: 12 }), ['it needs macOS 12.0'])
  assert.deepEqual(faultsOf({ symbols, library: '/opt/local/lib/libc++.1.dylib' }), [
    'it needs /opt/local/lib/libc++.1.dylib',
  ])
  assert.match(faultsOf({ symbols: [...symbols, { name: '_ggml_free', kind: defined }] })[0], /shows 1 .*_ggml_free/)
  assert.match(faultsOf({ symbols: symbols.slice(1) })[0], /finds no registration/)
  const missing = { name: '_cblas_sgemm', kind: external, ordinal: 0xfe }
  assert.match(faultsOf({ symbols: [...symbols, missing] })[0], /of nobody, such as _cblas_sgemm/)
})

test('an unknown target is refused before anything is built', () => {
  const script = path.join(root, 'scripts', 'prebuild.mjs')
  const { status, stderr } = spawnSync(process.execPath, [script, '--target', 'linux-mips'], { encoding: 'utf8' })
  assert.equal(status, 1)
  assert.match(stderr, /no target linux-mips: expected one of linux-x64, linux-arm64/)
})

// `kandinsky doctor`: what it finds on this machine, and what it says where something is missing or broken.
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import * as library from '../../dist/index.js'
import { version } from '../../dist/version.js'
import { kandinskyIn } from '../helpers/cli.mjs'
import { temporaryFolder } from '../helpers/files.mjs'
import { addonPath } from '../helpers/native.mjs'

const doctor = (folder, environment = {}, ...flags) =>
  kandinskyIn(folder, ['doctor', ...flags], { env: { ...process.env, ...environment } })
const report = (folder, environment) => JSON.parse(doctor(folder, environment, '--json').stdout)

test('a working machine lacks nothing', (t) => {
  const folder = temporaryFolder(t)
  const { status, stdout } = doctor(folder, { HF_HUB_CACHE: folder })
  assert.equal(status, 0, stdout)
  assert.match(stdout, /Nothing is missing/)
  const { problems, devices, addon, cache, ...rest } = report(folder, { HF_HUB_CACHE: folder })
  assert.deepEqual(problems, [])
  assert.equal(rest.version, version)
  assert.equal(addon, addonPath)
  assert.deepEqual(
    devices.map(({ name }) => name),
    library.listDevices().map(({ name }) => name),
  )
  assert.deepEqual(rest.models, ['demo', 'demo-inpaint'])
  assert.equal(cache.folder, folder)
  assert.ok(cache.exists && cache.freeBytes > 0 && rest.memory.freeBytes > 0)
  if (process.platform === 'linux') assert.match(rest.libc, /^(glibc \d|musl)/)
})

test('the CPU kernels that KANDINSKY_CPU forces show in it', (t) => {
  const folder = temporaryFolder(t)
  assert.equal(report(folder, { KANDINSKY_CPU: 'portable' }).cpuVariant, 'portable')
})

test('a missing and a broken addon are problems with advice, and exit code 1', (t) => {
  const folder = temporaryFolder(t)
  const { status, stdout } = doctor(folder, { NODE_KANDINSKY_PREBUILD: folder })
  assert.equal(status, 1)
  assert.match(stdout, /addon +none/)
  assert.match(stdout, /Problem: No native addon was found/)
  assert.match(stdout, /docs\/building\.md/)

  mkdirSync(path.join(folder, 'build', 'Release'), { recursive: true })
  const broken = path.join(folder, 'build', 'Release', 'broken.node')
  writeFileSync(broken, 'no library')
  const { problems, addon, devices } = report(folder, { NODE_KANDINSKY_PREBUILD: folder })
  assert.equal(addon, broken)
  assert.deepEqual(devices, [])
  assert.match(problems[0].problem, /could not be loaded/)
})

test('a driver that ends the process ends only the probe', { skip: process.platform === 'win32' }, (t) => {
  const folder = temporaryFolder(t)
  const crash = path.join(folder, 'crash.cjs')
  writeFileSync(crash, `if (process.argv[2] === 'devices') process.kill(process.pid, 'SIGSEGV')`)
  const { problems, sharp } = report(folder, { NODE_OPTIONS: `--require "${crash}"` })
  assert.match(problems[0].problem, /ended the process with SIGSEGV/)
  assert.match(problems[0].advice, /driver/)
  assert.ok(sharp, 'the rest is reported all the same')
})

test('a cache folder that cannot be written to is a problem', (t) => {
  const folder = temporaryFolder(t)
  writeFileSync(path.join(folder, 'file'), '')
  const { problems } = report(folder, { HF_HUB_CACHE: path.join(folder, 'file', 'hub') })
  assert.match(problems[0].problem, /file cannot be written to/)
  assert.match(problems[0].advice, /HF_HUB_CACHE/)
})

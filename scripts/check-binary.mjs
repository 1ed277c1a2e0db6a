// The targets of release binaries, and whether a binary is fit for one: `node scripts/check-binary.mjs` checks prebuilds/.
//
// Looked at are the processor that it is for, what it needs of the system that it is loaded into (libraries, and of glibc
// which version), and what it shows to other addons in the process. Needs binutils: readelf for Linux' binaries, objdump for
// Windows'.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

/** Debian 10, Ubuntu 20.04, RHEL 8: the oldest that Node's own binaries run on. */
const OLDEST_GLIBC = [2, 28]
/** Big Sur, the oldest that Node 20's own binaries run on. */
const OLDEST_MACOS = 11
/** What an addon must show. */
const EXPORTS = /^(napi_register_module_v1|node_api_module_get_api_version_v1)$/
/**
 * What Zig's linker cannot hide and does no harm: its own two marks of each image, and C++'s new and delete of the library
 * linked in, weak as in every program: the loader takes the first in the process, the system's, and both are malloc and free.
 */
const UNHIDDEN = /^(__mh_dylib_header|___dso_handle|__Z(nw|na|dl|da)(m|Pv).*)$/
/** Mach-O's ordinal of symbols that whoever loads the binary has. */
const DYNAMIC_LOOKUP = 0xfe

/**
 * `zig`: the target triple; `folder` and `file`: where node-gyp-build looks in prebuilds/; `header`: the bytes that a
 * binary for it begins with, at their offset.
 */
export const targets = {
  'linux-x64': linux('x86_64-linux-gnu.2.28', 'x86_64', 'linux-x64', 'glibc', 62),
  'linux-arm64': linux('aarch64-linux-gnu.2.28', 'aarch64', 'linux-arm64', 'glibc', 183),
  'linux-x64-musl': linux('x86_64-linux-musl', 'x86_64', 'linux-x64', 'musl', 62),
  'linux-arm64-musl': linux('aarch64-linux-musl', 'aarch64', 'linux-arm64', 'musl', 183),
  // Mach-O of 64 bits, with the processor in the second word
  'darwin-arm64': {
    ...{ zig: 'aarch64-macos.11.0', system: 'Darwin', processor: 'arm64' },
    ...{ folder: 'darwin-arm64', file: 'node.napi.node' },
    header: [{ offset: 0, bytes: [0xcf, 0xfa, 0xed, 0xfe, 0x0c, 0, 0, 1] }],
  },
  'darwin-x64': {
    ...{ zig: 'x86_64-macos.11.0', system: 'Darwin', processor: 'x86_64' },
    ...{ folder: 'darwin-x64', file: 'node.napi.node' },
    header: [{ offset: 0, bytes: [0xcf, 0xfa, 0xed, 0xfe, 0x07, 0, 0, 1] }],
  },
  'win32-x64': {
    ...{ zig: 'x86_64-windows-gnu', system: 'Windows', processor: 'AMD64' },
    ...{ folder: 'win32-x64', file: 'node.napi.node' },
    header: [{ offset: 0, bytes: [0x4d, 0x5a] }],
  },
}

/** This machine's. */
export function thisTarget() {
  const isMusl = process.platform === 'linux' && !process.report.getReport().header.glibcVersionRuntime
  return `${process.platform}-${process.arch}${isMusl ? '-musl' : ''}`
}

function linux(zig, processor, folder, libc, machine) {
  const header = [{ offset: 18, bytes: [machine, 0] }]
  return { zig, system: 'Linux', processor, folder, file: `node.napi.${libc}.node`, libc, header }
}

/** What each system has at any rate; glibc consists of several, musl has one name. */
const LIBRARIES = {
  glibc: /^(libc\.so\.6|libm\.so\.6|libpthread\.so\.0|libdl\.so\.2|librt\.so\.1|ld-linux-[\w-]+\.so\.\d)$/,
  musl: /^libc\.so$/,
  Darwin: /^\/usr\/lib\/libSystem\.B\.dylib$/,
  // not node.exe: Electron, Bun and Deno are called otherwise
  Windows: /^(kernel32|advapi32|api-ms-win-crt-[\w-]+)\.dll$/i,
}

/**
 * @param {string} file
 * @param {typeof targets[string]} target
 * @returns {string[]} what is wrong with it; nothing if it is fit
 */
export function checkBinary(file, target) {
  const bytes = readFileSync(file)
  const isFor = target.header.every(({ offset, bytes: expected }) =>
    expected.every((byte, i) => bytes[offset + i] === byte),
  )
  if (!isFor) return [`it is not a binary for ${target.zig}`]
  if (target.system === 'Linux') return checkElf(file, target.libc)
  if (target.system === 'Darwin') return checkMacho(bytes)
  const needed = peLibraries(file)
  if (needed.length === 0) return ['it needs no library, which cannot be']
  return needed.filter((name) => !LIBRARIES[target.system].test(name)).map((name) => `it needs ${name}`)
}

function checkElf(file, libc) {
  const readelf = (option) =>
    execFileSync('readelf', [option, '--wide', file], { encoding: 'utf8', maxBuffer: 1 << 28 })
  const faults = []
  const needed = [...readelf('--dynamic').matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => name)
  for (const name of needed) if (!LIBRARIES[libc].test(name)) faults.push(`it needs ${name}`)
  if (libc === 'glibc') {
    const versions = [...readelf('--version-info').matchAll(/Name: (\w+?)_(\d+(?:\.\d+)*)/g)]
    for (const [, name, version] of versions)
      if (name !== 'GLIBC' || isNewer(version.split('.').map(Number))) faults.push(`it needs ${name}_${version}`)
  }
  const defined = readelf('--dyn-syms')
    .split('\n')
    .map((line) => /\b(?:GLOBAL|WEAK|UNIQUE)\s+DEFAULT\s+\d+\s+(\S+)/.exec(line)?.[1])
    .filter((name) => name !== undefined && !EXPORTS.test(name))
  if (defined.length > 0) faults.push(`it shows ${defined.length} symbols to other addons, such as ${defined[0]}`)
  return [...new Set(faults)]
}

/** What the load commands say: libraries, the oldest system, and what others in the process may see. */
function checkMacho(bytes) {
  const [LOAD_DYLIB, ID_DYLIB, LOAD_WEAK_DYLIB, SYMTAB, BUILD_VERSION] = [0xc, 0xd, 0x80000018, 0x2, 0x32]
  const faults = []
  const names = []
  let oldest
  let at = 32
  for (let command = 0; command < bytes.readUInt32LE(16); command++) {
    const kind = bytes.readUInt32LE(at)
    const text = (start) => bytes.toString('latin1', start, bytes.indexOf(0, start))
    const name = () => text(at + bytes.readUInt32LE(at + 8))
    if (kind === LOAD_DYLIB || kind === LOAD_WEAK_DYLIB) names.push(name())
    // Its own name, too, must be none of the builder's paths.
    if (kind === ID_DYLIB && !name().startsWith('@rpath/')) faults.push(`it is called ${name()}`)
    if (kind === BUILD_VERSION) oldest = bytes.readUInt32LE(at + 12)
    if (kind === SYMTAB) faults.push(...checkMachoSymbols(bytes, at, text))
    at += bytes.readUInt32LE(at + 4)
  }
  if (names.length === 0) faults.push('it needs no library, which cannot be')
  for (const name of names) if (!LIBRARIES.Darwin.test(name)) faults.push(`it needs ${name}`)
  const [major, minor] = [(oldest ?? 0) >> 16, ((oldest ?? 0) >> 8) & 0xff]
  if (oldest === undefined) faults.push('it does not say which macOS it needs')
  else if (oldest > OLDEST_MACOS << 16) faults.push(`it needs macOS ${major}.${minor}`)
  return faults
}

/** nlist_64: where its name is, kind, section, description, value. What is defined here and external others can see. */
function checkMachoSymbols(bytes, command, text) {
  const [EXTERNAL, PRIVATE_EXTERNAL, KIND, UNDEFINED, DEBUG] = [0x01, 0x10, 0x0e, 0x00, 0xe0]
  const [symbols, count, names] = [8, 12, 16].map((offset) => bytes.readUInt32LE(command + offset))
  const shown = []
  const missing = []
  for (let at = symbols; at < symbols + 16 * count; at += 16) {
    const kind = bytes[at + 4]
    if (kind & DEBUG || !(kind & EXTERNAL) || kind & PRIVATE_EXTERNAL) continue
    const name = text(names + bytes.readUInt32LE(at))
    if ((kind & KIND) !== UNDEFINED) shown.push(name)
    else if (bytes.readUInt16LE(at + 6) >> 8 === DYNAMIC_LOOKUP && !/^_napi_/.test(name)) missing.push(name)
  }
  const others = shown.filter((name) => !EXPORTS.test(name.slice(1)) && !UNHIDDEN.test(name))
  const faults = []
  if (!shown.some((name) => EXPORTS.test(name.slice(1)))) faults.push('Node finds no registration in it')
  if (others.length > 0) faults.push(`it shows ${others.length} symbols to other addons, such as ${others[0]}`)
  if (missing.length > 0) faults.push(`it expects ${missing.length} symbols of nobody, such as ${missing[0]}`)
  return faults
}

function peLibraries(file) {
  const text = execFileSync('objdump', ['-p', file], { encoding: 'utf8', maxBuffer: 1 << 28 })
  return [...text.matchAll(/DLL Name: (\S+)/g)].map(([, name]) => name)
}

function isNewer(version) {
  const [major, minor] = OLDEST_GLIBC
  return version[0] > major || (version[0] === major && version[1] > minor)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const prebuilds = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', 'prebuilds')
  for (const [name, target] of Object.entries(targets)) {
    const file = path.join(prebuilds, target.folder, target.file)
    const faults = existsSync(file) ? checkBinary(file, target) : ['it is missing']
    console.log(`${name}: ${faults.join(', ') || 'fit'}`)
    if (faults.length > 0) process.exitCode = 1
  }
}

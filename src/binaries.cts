// What lies on disk beside the code: the addon, sharp, the packaged models. CommonJS, and spelled as it is, because tracers
// (@vercel/nft in Next, Nitro, Vercel) find such files by reading these very expressions, without running them. Nothing is
// required while the module loads, as a bundle in ES module form cannot. Compiled twice like the rest, into dist/ and cjs/:
// `..` is the package's folder from both.
import type * as Fs from 'node:fs'
import type * as Path from 'node:path'

/** In an Electron app the package may lie in app.asar, but native code can only read what is unpacked beside it. */
function outsideArchive(file: string): string {
  return file.replace(/\.asar(?=[\\/])/, '.asar.unpacked')
}

/** The package of each platform is optional, and npm installs that of the machine; its `main` is the addon itself. */
const addonPackages: Record<string, (() => string)[]> = {
  'linux-x64': [
    () => require.resolve('@node-kandinsky/linux-x64'),
    () => require.resolve('@node-kandinsky/linux-x64-musl'),
  ],
  'linux-arm64': [
    () => require.resolve('@node-kandinsky/linux-arm64'),
    () => require.resolve('@node-kandinsky/linux-arm64-musl'),
  ],
  'darwin-arm64': [() => require.resolve('@node-kandinsky/darwin-arm64')],
  'darwin-x64': [() => require.resolve('@node-kandinsky/darwin-x64')],
  'win32-x64': [() => require.resolve('@node-kandinsky/win32-x64')],
}

/** True if there are binaries for this platform. */
function isPlatformServed(): boolean {
  return Object.hasOwn(addonPackages, `${process.platform}-${process.arch}`)
}

function resolved(resolve: (() => string) | undefined): string | undefined {
  try {
    return resolve && outsideArchive(resolve())
  } catch {
    return undefined
  }
}

/** The addon of the installed package for this platform and C library: some package managers install those of both. */
function installedAddon(): string | undefined {
  const path: typeof Path = require('node:path')
  const { matchTags, parseTags } = require('node-gyp-build')
  const isFit = matchTags('node', process.versions.modules)
  const files = (addonPackages[`${process.platform}-${process.arch}`] ?? []).map(resolved)
  return files.find((file) => file && isFit(parseTags(path.basename(file))))
}

/** The file that `loadAddon` requires: a checkout's build/Release or prebuilds/, else an installed package's. @throws where there is none */
function addonPath(): string {
  const path: typeof Path = require('node:path')
  try {
    return require('node-gyp-build').path(outsideArchive(path.join(__dirname, '..')))
  } catch (error) {
    const file = installedAddon()
    if (file) return file
    throw error
  }
}

/** Requires it; NODE_KANDINSKY_PREBUILD names another folder. */
function loadAddon(): unknown {
  return require(addonPath())
}

function loadSharp(): unknown {
  return require('sharp')
}

/** The file of a packaged model, in a checkout or in the package of its own; undefined where that is not installed. */
function modelPath(name: string): string | undefined {
  const fs: typeof Fs = require('node:fs')
  const path: typeof Path = require('node:path')
  const own = outsideArchive(path.join(__dirname, '..', 'models', `${name}.gguf`))
  return fs.existsSync(own) ? own : resolved(() => require('@node-kandinsky/demo-models')[name])
}

/** A file of the page that a server shows. */
function pagePath(name: string): string {
  const path: typeof Path = require('node:path')
  return path.join(__dirname, '..', 'page', name)
}

/** What a worker process runs. */
function workerPath(): string {
  const path: typeof Path = require('node:path')
  return path.join(__dirname, 'worker', 'main.js')
}

/** A module that only some hosts have, as Electron's own. Where it is named, tracers would look for it in vain. */
function loadHostModule(name: string): unknown {
  return require(name)
}

/** True once a bundler has moved this code away from the files that belong to it. */
function isBundled(): boolean {
  if (typeof __dirname === 'undefined') return true
  const fs: typeof Fs = require('node:fs')
  const path: typeof Path = require('node:path')
  return !fs.existsSync(path.join(__dirname, 'binaries.cjs'))
}

export = {
  loadAddon,
  addonPath,
  isPlatformServed,
  loadSharp,
  modelPath,
  pagePath,
  workerPath,
  loadHostModule,
  isBundled,
}

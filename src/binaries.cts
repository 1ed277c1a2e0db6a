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

/** Requires build/Release, then the prebuild of this platform; NODE_KANDINSKY_PREBUILD names another folder. */
function loadAddon(): unknown {
  const path: typeof Path = require('node:path')
  const root = path.join(__dirname, '..')
  if (outsideArchive(root) !== root) return require('node-gyp-build')(outsideArchive(root))
  return require('node-gyp-build')(path.join(__dirname, '..'))
}

/** The file that `loadAddon` requires. @throws where there is none */
function addonPath(): string {
  const path: typeof Path = require('node:path')
  return require('node-gyp-build').path(outsideArchive(path.join(__dirname, '..')))
}

function loadSharp(): unknown {
  return require('sharp')
}

/** The file of a packaged model. */
function modelPath(name: string): string {
  const path: typeof Path = require('node:path')
  return outsideArchive(path.join(__dirname, '..', 'models', `${name}.gguf`))
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

export = { loadAddon, addonPath, loadSharp, modelPath, pagePath, workerPath, loadHostModule, isBundled }

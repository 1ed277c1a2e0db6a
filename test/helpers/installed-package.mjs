// The package as a user has it: packed, then installed into an application by npm, offline and without any script.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { thisTarget } from '../../scripts/check-binary.mjs'
import { makePackages } from '../../scripts/packages.mjs'

const root = path.resolve(import.meta.dirname, '../..')
const readJson = (file) => JSON.parse(readFileSync(path.join(root, file), 'utf8'))
export const manifest = readJson('package.json')
const npm = (args, cwd) => spawnSync('npm', [...args, '--loglevel', 'silent'], { cwd, encoding: 'utf8' })

/** The packages that an install on this machine brings besides the main one. */
export const addonPackage = `@node-kandinsky/${thisTarget()}`
export const modelPackage = '@node-kandinsky/demo-models'

/**
 * @returns `folder` holds everything and is the caller's to remove, `app` is the application's in it, `installed` the main
 *   package's in that and `files` what is in it, `tarballs` that of each package; `byNpm` is false where npm's cache lacks a dependency, and links into this checkout stand for all of them
 */
export function installPackage() {
  const folder = mkdtempSync(path.join(tmpdir(), 'kandinsky-package-'))
  const packages = makePackages(path.join(folder, 'packages'), { here: true })
  const tarballs = Object.fromEntries(packages.map(({ name, tarball }) => [name, tarball]))
  const app = path.join(folder, 'app with spaces')
  mkdirSync(app)
  const byNpm = installByNpm(app, packages)
  if (!byNpm) installByHand(app, tarballs)
  const installed = path.join(app, 'node_modules', manifest.name)
  const files = readdirSync(installed, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(installed, path.join(entry.parentPath, entry.name)).replaceAll(path.sep, '/'))
  return { folder, app, installed, tarballs, files, byNpm }
}

/** From npm's cache alone, at the versions of our own lock file. */
function installByNpm(app, packages) {
  const main = packages.at(-1)
  const file = (name) => `file:../packages/${path.basename(name)}`
  const dependencies = { [manifest.name]: file(main.tarball) }
  const { '': own, ...others } = readJson('package-lock.json').packages
  const optional = Object.fromEntries(packages.slice(0, -1).map(({ name }) => [name, own.version]))
  const locked = {
    '': { name: 'app', dependencies },
    [`node_modules/${manifest.name}`]: {
      version: own.version,
      resolved: file(main.tarball),
      dependencies: own.dependencies,
      optionalDependencies: optional,
      bin: own.bin,
    },
    ...Object.fromEntries(
      packages.slice(0, -1).map(({ name, tarball }) => {
        const resolved = file(tarball)
        return [`node_modules/${name}`, { version: own.version, resolved, optional: true }]
      }),
    ),
    ...Object.fromEntries(Object.entries(others).filter(([, { dev }]) => !dev)),
  }
  writeFileSync(path.join(app, 'package.json'), JSON.stringify({ name: 'app', private: true, dependencies }))
  writeFileSync(
    path.join(app, 'package-lock.json'),
    JSON.stringify({ name: 'app', lockfileVersion: 3, requires: true, packages: locked }),
  )
  const { status } = npm(['ci', '--offline', '--ignore-scripts', '--no-audit', '--no-fund'], app)
  return status === 0
}

function installByHand(app, tarballs) {
  const modules = path.join(app, 'node_modules')
  for (const [name, tarball] of Object.entries(tarballs)) {
    mkdirSync(path.join(modules, name), { recursive: true })
    execFileSync('tar', ['-xzf', tarball, '--strip-components=1', '-C', path.join(modules, name)])
  }
  for (const dependency of Object.keys(manifest.dependencies)) {
    const link = path.join(modules, dependency)
    mkdirSync(path.dirname(link), { recursive: true })
    symlinkSync(path.join(root, 'node_modules', dependency), link)
  }
}

/** Runs a script of an application with nothing but Node on the PATH. */
export function runScript(app, file, source, ...nodeOptions) {
  const script = path.join(app, file)
  if (source !== undefined) writeFileSync(script, source)
  const env = { PATH: path.dirname(process.execPath), HOME: app }
  return spawnSync(process.execPath, [...nodeOptions, script], { cwd: app, encoding: 'utf8', env })
}

// The package as a user has it: packed, then installed into an application by npm, offline and without any script.
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

const root = path.resolve(import.meta.dirname, '../..')
const readJson = (file) => JSON.parse(readFileSync(path.join(root, file), 'utf8'))
export const manifest = readJson('package.json')
const npm = (args, cwd) => spawnSync('npm', [...args, '--loglevel', 'silent'], { cwd, encoding: 'utf8' })

/**
 * @returns {{ folder: string, app: string, installed: string, tarball: string, files: string[], byNpm: boolean }} `folder`
 *   holds everything and is the caller's to remove, `app` is the application's in it, `installed` the package's in that;
 *   `byNpm` is false where npm's cache lacks a dependency, and links into this checkout stand for all of them
 */
export function installPackage() {
  const folder = mkdtempSync(path.join(tmpdir(), 'kandinsky-package-'))
  const packed = npm(['pack', '--json', '--ignore-scripts', '--pack-destination', folder], root)
  const [{ filename, files }] = JSON.parse(packed.stdout)
  const app = path.join(folder, 'app with spaces')
  mkdirSync(app)
  const byNpm = installByNpm(app, filename)
  const installed = path.join(app, 'node_modules', manifest.name)
  if (!byNpm) installByHand(installed, path.join(folder, filename))

  // A release carries the binary as a prebuild; here it is the one that this checkout built.
  const prebuild = path.join(installed, 'prebuilds', `${process.platform}-${process.arch}`)
  rmSync(prebuild, { recursive: true, force: true })
  mkdirSync(prebuild, { recursive: true })
  cpSync(path.join(root, 'build', 'Release', 'kandinsky.node'), path.join(prebuild, 'node.napi.node'))
  return { folder, app, installed, tarball: path.join(folder, filename), files: files.map((file) => file.path), byNpm }
}

/** From npm's cache alone, at the versions of our own lock file. */
function installByNpm(app, filename) {
  const dependencies = { [manifest.name]: `file:../${filename}` }
  const { packages } = readJson('package-lock.json')
  const { '': own, ...others } = packages
  const locked = {
    '': { name: 'app', dependencies },
    [`node_modules/${manifest.name}`]: {
      version: own.version,
      resolved: `file:../${filename}`,
      dependencies: own.dependencies,
      bin: own.bin,
    },
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

function installByHand(installed, tarball) {
  mkdirSync(installed, { recursive: true })
  execFileSync('tar', ['-xzf', tarball, '--strip-components=1', '-C', installed])
  for (const dependency of Object.keys(manifest.dependencies)) {
    const link = path.join(path.dirname(installed), dependency)
    mkdirSync(path.dirname(link), { recursive: true })
    symlinkSync(path.join(root, 'node_modules', dependency), link)
  }
}

/** Runs a script of an application with nothing but Node on the PATH, and without the checkout's own build. */
export function runScript(app, file, source, ...nodeOptions) {
  const script = path.join(app, file)
  if (source !== undefined) writeFileSync(script, source)
  const env = { PATH: path.dirname(process.execPath), PREBUILDS_ONLY: '1', HOME: app }
  return spawnSync(process.execPath, [...nodeOptions, script], { cwd: app, encoding: 'utf8', env })
}

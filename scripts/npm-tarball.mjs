// Tarballs of npm packages that are not installed: only their files are wanted, at a pinned version with a pinned hash.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import path from 'node:path'

/**
 * @param {{ package: string, version: string, integrity: string }} pin
 * @param {string} directory where to
 * @returns the tarball's path
 */
export function fetchTarball(pin, directory) {
  const npm = process.env.npm_execpath
  const args = ['pack', `${pin.package}@${pin.version}`, '--silent', '--pack-destination', directory]
  if (npm?.endsWith('.js')) execFileSync(process.execPath, [npm, ...args], { cwd: directory, stdio: 'pipe' })
  else execFileSync('npm', args, { cwd: directory, stdio: 'pipe', shell: process.platform === 'win32' })
  const file = `${pin.package.replace(/^@/, '').replace('/', '-')}-${pin.version}.tgz`
  const tarball = path.join(directory, file)
  const integrity = `sha512-${createHash('sha512').update(readFileSync(tarball)).digest('base64')}`
  if (integrity !== pin.integrity)
    throw new Error(`${pin.package}@${pin.version}: expected integrity ${pin.integrity} but received ${integrity}`)
  return tarball
}

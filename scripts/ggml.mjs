// Brings ggml's source into native/ggml, at the version pinned in native/ggml.json. Idempotent.
//
// ggml has no npm package of its own; node-llama-cpp's tarball carries llama.cpp as a git bundle, ggml inside. Installing
// that package would also pull hundreds of megabytes of binaries, so only its tarball is fetched and its integrity checked.
// KANDINSKY_GGML=/path/to/ggml uses another checkout instead and leaves native/ggml alone.
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { fetchTarball } from './npm-tarball.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const target = path.join(root, 'native', 'ggml')
const pin = JSON.parse(readFileSync(path.join(root, 'native', 'ggml.json'), 'utf8'))

/** The other backends' directories: most of the checkout's bulk, and not built here. */
const unused = /^ggml\/src\/ggml-(?!cpu$|cuda$)[^/.]+$/

/** @returns the directory of the ggml source, fetched if it was not there */
export function ensureGgml() {
  const override = process.env.KANDINSKY_GGML
  if (override) {
    if (!existsSync(path.join(override, 'include', 'ggml.h')))
      throw new Error(`KANDINSKY_GGML=${override} holds no ggml checkout (include/ggml.h is missing)`)
    return path.resolve(override)
  }
  const stamp = path.join(target, 'version.txt')
  const wanted = `ggml ${pin.ggml} from ${pin.package}@${pin.version}\n`
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return target

  const work = mkdtempSync(path.join(tmpdir(), 'kandinsky-ggml-'))
  try {
    console.log(`fetching the source of ${wanted.trim()}`)
    const tarball = fetchTarball(pin, work)
    execFileSync('tar', ['-xzf', tarball, `package/${pin.bundle}`], { cwd: work })
    const checkout = path.join(work, 'checkout')
    execFileSync('git', ['clone', '--quiet', path.join(work, 'package', pin.bundle), checkout], { stdio: 'pipe' })
    const staged = `${target}.${process.pid}`
    copySource(checkout, staged)
    writeFileSync(path.join(staged, 'version.txt'), wanted)
    rmSync(target, { recursive: true, force: true })
    renameSync(staged, target)
  } catch (cause) {
    throw new Error(
      `could not fetch ggml's source (needs npm, tar and git, and access to an npm registry; ` +
        `or set KANDINSKY_GGML to a checkout of ggml ${pin.ggml}): ${cause.message}`,
      { cause },
    )
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return target
}

function copySource(checkout, destination) {
  cpSync(path.join(checkout, 'ggml'), destination, {
    recursive: true,
    filter: (file) => !unused.test(path.relative(checkout, file).split(path.sep).join('/')),
  })
  cpSync(path.join(checkout, 'LICENSE'), path.join(destination, 'LICENSE'))
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) console.log(ensureGgml())

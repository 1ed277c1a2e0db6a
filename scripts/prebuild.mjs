// Puts this platform's binaries into prebuilds/, built for any machine of its kind: `npm run make:prebuilds`.
//
// The name matters: Electron's rebuilders take a module for prebuilt only if the file is called node.napi.node.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import path from 'node:path'

const prebuildify = createRequire(import.meta.url).resolve('prebuildify/bin.js')
const { status } = spawnSync(
  process.execPath,
  [prebuildify, '--napi', '--strip', '--name', 'node.napi', ...process.argv.slice(2)],
  {
    cwd: path.join(import.meta.dirname, '..'),
    stdio: 'inherit',
    env: { ...process.env, KANDINSKY_PORTABLE: '1' },
  },
)
process.exit(status ?? 1)

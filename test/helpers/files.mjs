// Files that tests make: in a folder of their own that goes away with the test.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A temporary folder that is removed after the test `t`. */
export function temporaryFolder(t) {
  const folder = mkdtempSync(join(tmpdir(), 'kandinsky-test-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A safetensors file from a header (an object, or JSON text to bend the rules with) and its data section. */
export function safetensorsFile(header, data = Buffer.alloc(0)) {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([length, json, data])
}

/** Writes `bytes` to `folder`/`name` and returns the path. */
export function writeFileIn(folder, name, bytes) {
  const path = join(folder, name)
  writeFileSync(path, bytes)
  return path
}

// Models that come with the package, by name. They are small, draw emoji only, and are made by scripts/demo-model.
import { fileURLToPath } from 'node:url'
import { outsideArchive } from '../native.js'

const NAMES: readonly unknown[] = ['demo', 'demo-inpaint']

/** The file of a packaged model, or undefined for any other source: `./demo` is a file or folder of the user's. */
export function packagedModel(source: unknown): string | undefined {
  if (!NAMES.includes(source)) return undefined
  return outsideArchive(fileURLToPath(new URL(`../../models/${source}.gguf`, import.meta.url)))
}

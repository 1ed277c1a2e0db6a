// Models that come with the package, by name. They are small, draw emoji only, and are made by scripts/demo-model.
import binaries from '../binaries.cjs'

const NAMES: readonly unknown[] = ['demo', 'demo-inpaint']

export function isPackaged(source: unknown): boolean {
  return NAMES.includes(source)
}

/** The file of a packaged model, or undefined for any other source: `./demo` is a file or folder of the user's. */
export function packagedModel(source: unknown): string | undefined {
  return isPackaged(source) ? binaries.modelPath(source as string) : undefined
}

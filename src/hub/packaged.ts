// Models that come with the package, by name. They are small, draw emoji only, and are made by scripts/demo-model.
import binaries from '../binaries.cjs'
import { KandinskyError } from '../errors.js'
import { externalAdvice } from '../native.js'

export const packagedModels: readonly string[] = ['demo', 'demo-inpaint']

export function isPackaged(source: unknown): source is string {
  return packagedModels.includes(source as string)
}

/** The file of a packaged model, or undefined for any other source: `./demo` is a file or folder of the user's. */
export function packagedModel(source: unknown): string | undefined {
  if (!isPackaged(source)) return undefined
  if (binaries.isBundled()) throw new KandinskyError('FILE_NOT_FOUND', `The model '${source}': ${externalAdvice}`)
  return binaries.modelPath(source)
}

// Models that come with the package, by name, as an optional dependency. They are small, draw emoji only, and are made by scripts/demo-model.
import binaries from '../binaries.cjs'
import { KandinskyError } from '../errors.js'
import { externalAdvice } from '../native.js'
import { version } from '../version.js'

export const packagedModels: readonly string[] = ['demo', 'demo-inpaint']

export function isPackaged(source: unknown): source is string {
  return packagedModels.includes(source as string)
}

/** The file of a packaged model, or undefined for any other source: `./demo` is a file or folder of the user's. */
export function packagedModel(source: unknown): string | undefined {
  if (!isPackaged(source)) return undefined
  if (binaries.isBundled()) throw new KandinskyError('FILE_NOT_FOUND', `The model '${source}': ${externalAdvice}`)
  const file = binaries.modelPath(source)
  if (file) return file
  const name = '@node-kandinsky/demo-models'
  throw new KandinskyError(
    'FILE_NOT_FOUND',
    `The model '${source}' is in the package ${name}, which is not installed: npm install ${name}@${version}`,
  )
}

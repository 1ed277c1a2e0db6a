// What a command can know before it loads a model: that its pictures are there and that its results can be written. A
// model may take minutes to load, or hours to download.
import { access, constants, mkdir, stat } from 'node:fs/promises'
import path from 'node:path'
import { KandinskyError } from '../errors.js'
import { imageFormats } from '../images/image.js'
import { UsageError } from './options.js'

/** Checks the name of a picture to be written, and makes its folder. */
export async function prepareOutput(flag: string, file: string): Promise<void> {
  if (!imageFormats.includes(path.extname(file).toLowerCase()))
    throw new UsageError(`expected a name that ends in ${imageFormats.join(', ')} for --${flag} but received ${file}`)
  if ((await kindOf(file)) === 'folder') throw new UsageError(`expected a file for --${flag} but ${file} is a folder`)
  const folder = path.dirname(file)
  try {
    await mkdir(folder, { recursive: true })
    await access(folder, constants.W_OK)
  } catch (error) {
    throw new KandinskyError(
      'BAD_FILE',
      `--${flag} ${file} could not be written: ${(error as Error).message}; choose another place with --${flag}`,
      { cause: error },
    )
  }
}

/** Checks that a file is there. */
export async function expectFile(flag: string, file: string): Promise<void> {
  const kind = await kindOf(file)
  if (kind === undefined) throw new KandinskyError('FILE_NOT_FOUND', `--${flag} ${file} does not exist`)
  if (kind !== 'file') throw new KandinskyError('BAD_FILE', `--${flag} ${file} is not a file but a ${kind}`)
}

/** Checks that a picture is there. What lies behind other URLs is only known when it is read. */
export async function expectPicture(flag: string, source: string): Promise<void> {
  if (/^(https?|data|file):/i.test(source)) return
  await expectFile(flag, source)
}

async function kindOf(file: string): Promise<'file' | 'folder' | 'special file' | undefined> {
  try {
    const found = await stat(file)
    return found.isFile() ? 'file' : found.isDirectory() ? 'folder' : 'special file'
  } catch {
    return undefined
  }
}

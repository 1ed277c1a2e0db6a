// Where the pictures of one command go: a file, numbered files, or standard output.
import { randomUUID } from 'node:crypto'
import { open, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { KandinskyError } from '../errors.js'
import { qualityFormats, type RawImage } from '../images/image.js'
import { type Invocation, numberOption, textOption, UsageError } from './options.js'
import { prepareOutput } from './plan.js'

const DEFAULT = 'out.png'

export class Outputs {
  readonly toStandardOutput: boolean
  readonly #name: string | undefined
  readonly #count: number
  readonly #quality: number | undefined
  #made = 0

  /**
   * @param count pictures that will be made
   * @throws UsageError for what cannot be written as asked
   */
  constructor(values: Invocation['values'], count: number) {
    this.#name = textOption(values, 'output')
    this.#count = count
    this.#quality = numberOption(values, 'quality', { integer: true, min: 1, max: 100 })
    this.toStandardOutput = this.#name === '-'
    const extension = path.extname(this.#name ?? DEFAULT).toLowerCase()
    if (this.#quality !== undefined && !qualityFormats.includes(extension))
      throw new UsageError(`--quality needs a name in -o that ends in ${qualityFormats.join(', ')}`)
    if (!this.toStandardOutput) return
    if (values.json) throw new UsageError('-o - and --json exclude each other: both write to standard output')
    if (count > 1) throw new UsageError(`-o - takes one picture but ${count} would be made`)
    if (process.stdout.isTTY)
      throw new UsageError('-o - writes a PNG file to standard output, which is a terminal here')
  }

  /** Makes sure, before anything is computed, that the pictures can be written. */
  async prepare(): Promise<void> {
    if (!this.toStandardOutput) await prepareOutput('output', this.#name ?? DEFAULT)
  }

  /** Writes the next picture. @returns the file's name */
  async save(image: RawImage): Promise<string> {
    const number = ++this.#made
    if (this.toStandardOutput) {
      const bytes = await image.toBuffer('png')
      await new Promise((resolve) => process.stdout.write(bytes, resolve))
      return '-'
    }
    if (this.#name === undefined) return this.#saveUnderFreeName(image)
    const { dir, name, ext } = path.parse(this.#name)
    const file = this.#count === 1 ? this.#name : path.join(dir, `${name}-${number}${ext}`)
    await saveOrKeep(image, file, this.#quality)
    return file
  }

  /** A name that nobody chose overwrites nothing: out.png where there is none, else the number after the last. */
  async #saveUnderFreeName(image: RawImage): Promise<string> {
    const taken = await readdir('.').catch(() => [])
    for (let number = Math.max(0, ...taken.map(numberOf)) + 1; ; number++) {
      const file = number === 1 && this.#count === 1 ? DEFAULT : `out-${number}.png`
      if (!(await claim(file))) continue
      try {
        await saveOrKeep(image, file)
      } catch (error) {
        await rm(file, { force: true })
        throw error
      }
      return file
    }
  }
}

function numberOf(file: string): number {
  return file === DEFAULT ? 1 : Number(/^out-(\d{1,15})\.png$/.exec(file)?.[1] ?? 0)
}

/** Takes a file name that is free, also from processes that do the same at this moment. */
async function claim(file: string): Promise<boolean> {
  try {
    await (await open(file, 'wx')).close()
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    return true // the picture cannot be saved either, and saying that keeps it elsewhere
  }
}

/** A picture that cannot be saved where it was asked for, although it could before, is not lost. */
async function saveOrKeep(image: RawImage, file: string, quality?: number): Promise<void> {
  try {
    await image.save(file, { quality })
  } catch (error) {
    const kept = path.join(tmpdir(), `kandinsky-${randomUUID()}.png`)
    await image.save(kept)
    const { code, message } = error as KandinskyError
    throw new KandinskyError(code, `${message}. The picture is in ${kept}`, { cause: error })
  }
}

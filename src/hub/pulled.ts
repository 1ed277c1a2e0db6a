// Models that `kandinsky pull` has brought here, by name: one .gguf file each, in a folder of their own.
import { readdir, rm, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { invalid } from '../errors.js'
import { isPackaged } from './packaged.js'
import { withHome } from './paths.js'

const NAME = /^\w[\w.-]{0,99}$/
const ENDING = '.gguf'
/** Where pulls do their work, in a folder each; what is there is unfinished. */
const WORK = '.pulling'

export interface PulledModel {
  name: string
  /** absolute */
  path: string
  /** on the disk */
  bytes: number
  /** a pull that was interrupted; the same command continues it */
  unfinished: boolean
}

/** $KANDINSKY_MODELS, or where programs of this system keep their data. */
export function modelsFolder(): string {
  const { KANDINSKY_MODELS, XDG_DATA_HOME, LOCALAPPDATA } = process.env
  if (KANDINSKY_MODELS) return resolve(withHome(KANDINSKY_MODELS))
  const data = XDG_DATA_HOME || (process.platform === 'win32' && LOCALAPPDATA) || join(homedir(), '.local', 'share')
  return resolve(data, 'kandinsky', 'models')
}

/** @throws KandinskyError `INVALID_ARGUMENT` for what would not be a name, or is one that the package has taken */
export function checkModelName(name: string): string {
  if (!NAME.test(name) || name.endsWith(ENDING) || isPackaged(name))
    throw invalid('name', 'letters, digits, ".", "-" and "_" without .gguf, and not the name of a packaged model', name)
  return name
}

/** Where the model of a name is or would be; undefined for what cannot be a name. */
export function pulledModel(name: unknown): string | undefined {
  return typeof name === 'string' && NAME.test(name) ? join(modelsFolder(), name + ENDING) : undefined
}

/** Where the model of a name is being made. */
export function workFolder(name: string): string {
  return join(modelsFolder(), WORK, name)
}

/** In the order of their names. */
export async function listPulled(): Promise<PulledModel[]> {
  const folder = modelsFolder()
  const files = (await entries(folder)).filter((file) => file.endsWith(ENDING) && NAME.test(file))
  const models = files.map(async (file) => {
    const path = join(folder, file)
    return { name: file.slice(0, -ENDING.length), path, bytes: (await stat(path)).size, unfinished: false }
  })
  const unfinished = (await entries(join(folder, WORK))).filter((name) => NAME.test(name))
  const parts = unfinished.map(async (name) => {
    const path = workFolder(name)
    return { name, path, bytes: await bytesIn(path), unfinished: true }
  })
  const all = await Promise.all([...models, ...parts])
  return all.sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** Removes a model, finished or not. @returns bytes that are free again; undefined if there is none of that name */
export async function removePulled(name: string): Promise<number | undefined> {
  const found = (await listPulled()).filter((model) => model.name === name)
  for (const { path } of found) await rm(path, { recursive: true, force: true })
  return found.length > 0 ? found.reduce((sum, { bytes }) => sum + bytes, 0) : undefined
}

async function entries(folder: string): Promise<string[]> {
  return readdir(folder).catch(() => [])
}

/** What a folder takes on the disk: files with holes take less than their size. */
async function bytesIn(folder: string): Promise<number> {
  const files = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
  const sizes = files.map(async (file) => {
    if (!file.isFile()) return 0
    const { size, blocks } = await stat(join(file.parentPath, file.name))
    return Math.min(size, blocks * 512)
  })
  return (await Promise.all(sizes)).reduce((sum, bytes) => sum + bytes, 0)
}

// From what a user calls a LoRA to its file.
import { findLoraFile, LORA_FILES } from '../checkpoint/lora-file.js'
import { invalid, KandinskyError } from '../errors.js'
import type { HubOptions } from './api.js'
import { findModel, resolveSource } from './resolve.js'

/**
 * Finds a LoRA file, or downloads it.
 * @param source a file, a folder, or a hub id (`owner/name`, `owner/name:file`)
 * @param options.weightName the file in a folder or repository
 * @throws KandinskyError `FILE_NOT_FOUND`, `INVALID_ARGUMENT`
 */
export async function resolveLora(
  source: string,
  { weightName, subfolder, ...hub }: Omit<HubOptions, 'variant'> & { weightName?: string | undefined } = {},
): Promise<string> {
  if (typeof source !== 'string' || source === '') throw invalid('source', 'a path or hub id', source)
  const inside = (...names: (string | undefined)[]) => names.filter((name) => name !== undefined).join('/')
  const local = await findModel(source)
  if (local !== undefined) return findLoraFile(inside(local, subfolder), weightName)
  if (source.includes(':')) return (await resolveSource(source, hub)).path
  let missing: unknown
  for (const name of weightName === undefined ? LORA_FILES : [weightName])
    try {
      return (await resolveSource(`${source}:${inside(subfolder, name)}`, hub)).path
    } catch (error) {
      if (!(error instanceof KandinskyError) || error.code !== 'FILE_NOT_FOUND') throw error
      missing ??= error
    }
  throw missing
}

// Models to look at without loading them.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { openCheckpoint } from '../checkpoint/open.js'
import type { Checkpoint } from '../checkpoint/pipeline-files.js'
import { parseOrigin, stageHeaders } from '../hub/origin.js'
import { findModel, unknownModel } from '../hub/resolve.js'

export interface LookOptions {
  variant?: string | undefined
  revision?: string | undefined
  signal?: AbortSignal | undefined
}

/**
 * Hands `use` a function that opens models: those that are here, and of repositories the texts and the headers of weights,
 * which are here as long as `use` takes.
 */
export async function lookAt<T>(
  use: (open: (source: string, options?: LookOptions) => Promise<Checkpoint>) => Promise<T>,
): Promise<T> {
  const folders: string[] = []
  try {
    return await use(async (source, { variant, revision, signal } = {}) => {
      const here = await findModel(source)
      if (here !== undefined) return openCheckpoint(here, { variant })
      if (!source.includes('/')) throw unknownModel(source)
      const origin = parseOrigin(source, revision)
      const folder = await mkdtemp(path.join(tmpdir(), 'kandinsky-look-'))
      folders.push(folder)
      await stageHeaders(origin, folder, { variant, signal })
      return openCheckpoint(folder, { variant })
    })
  } finally {
    for (const folder of folders) await rm(folder, { recursive: true, force: true })
  }
}

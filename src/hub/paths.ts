// What the files of hub/ share about paths and switches.
import { stat } from 'node:fs/promises'
import { homedir } from 'node:os'

/** Environment variables and programs that start this one without a shell pass `~` as it is. */
export function withHome(path: string): string {
  return /^~(?=$|[/\\])/.test(path) ? homedir() + path.slice(1) : path
}

export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

/** A relative path with forward slashes that stays below its root on every operating system. */
export function isSafePath(path: unknown): path is string {
  return (
    typeof path === 'string' &&
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not occur
    !/[\\:\x00-\x1f]/.test(path) &&
    path.split('/').every((part) => part !== '' && part !== '.' && part !== '..')
  )
}

/** As Python's library reads its switches. */
export function isSet(variable: string): boolean {
  return /^(1|on|yes|true)$/i.test(process.env[variable] ?? '')
}

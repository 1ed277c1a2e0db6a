// The examples' command line: `--name value` for each of an example's settings.
import { parseArgs } from 'node:util'

/** The settings, with what the command line says instead of the defaults. */
export function settings<Defaults extends Record<string, string | number>>(defaults: Defaults): Defaults {
  const options = Object.fromEntries(Object.keys(defaults).map((name) => [name, { type: 'string' as const }]))
  const { values } = parseArgs({ options })
  const given = Object.entries(values).map(([name, value]) => [
    name,
    typeof defaults[name] === 'number' ? Number(value) : value,
  ])
  return { ...defaults, ...Object.fromEntries(given) }
}

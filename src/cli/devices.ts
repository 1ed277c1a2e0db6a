import { listDevices } from '../networks/devices.js'
import { type CliOption, expectNothing, type Invocation, shared } from './options.js'
import { formatBytes, say } from './terminal.js'

export const summary = 'list the devices that networks can run on'
export const usage = 'Usage: kandinsky devices [--json]'
export const options: Record<string, CliOption> = { json: shared.json }

export async function run({ positionals, json }: Invocation): Promise<void> {
  expectNothing(positionals)
  const devices = listDevices()
  if (json) console.log(JSON.stringify({ type: 'devices', devices }))
  else
    for (const { name, description, freeBytes, totalBytes } of devices)
      say(`${name.padEnd(8)} ${description}, ${formatBytes(freeBytes)} of ${formatBytes(totalBytes)} free`)
}

import { listDevices } from '../networks/devices.js'
import { type CliOption, formatBytes, type Invocation } from './terminal.js'

export const summary = 'list the devices that networks can run on'
export const usage = 'Usage: kandinsky devices [--json]'
export const options: Record<string, CliOption> = {
  json: { type: 'boolean', description: 'print JSON' },
}

export async function run({ json }: Invocation): Promise<void> {
  const devices = listDevices()
  if (json) console.log(JSON.stringify({ type: 'devices', devices }))
  else
    for (const { name, description, freeBytes, totalBytes } of devices)
      console.log(`${name.padEnd(8)} ${description}, ${formatBytes(freeBytes)} of ${formatBytes(totalBytes)} free`)
}

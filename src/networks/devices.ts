// Devices and threads: what the options of networks may name.
import { invalid, KandinskyError } from '../errors.js'
import { binding, type DeviceInfo } from '../native.js'

/** The devices that networks can run on. */
export function listDevices(): DeviceInfo[] {
  return binding().devices()
}

/** The device that a `device` option stands for. @throws KandinskyError `DEVICE_UNAVAILABLE`, `INVALID_ARGUMENT` */
export function resolveDevice(device: string = 'auto'): string {
  const expected = "'auto', 'cpu', 'cuda' or 'cuda:N'"
  if (typeof device !== 'string' || !/^(auto|cpu|cuda(:\d+)?)$/.test(device)) throw invalid('device', expected, device)
  const devices = listDevices()
  const gpu = devices.find(({ kind }) => kind === 'cuda')?.name
  const found = device === 'cuda' ? gpu : devices.find(({ name }) => name === device)?.name
  const name = device === 'auto' ? (gpu ?? 'cpu') : found
  if (name) return name
  const names = devices.map((available) => available.name).join(', ')
  throw new KandinskyError('DEVICE_UNAVAILABLE', `Expected one of ${names} for device but received "${device}"`)
}

/** Checks a `threads` option; 0 stands for the addon's own choice. */
export function checkThreads(threads: number | undefined): number {
  if (threads === undefined) return 0
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024)
    throw invalid('threads', 'an integer from 1 to 1024', threads)
  return threads
}

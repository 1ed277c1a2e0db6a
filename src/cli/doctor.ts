// Looks at what the package needs of the machine, and says what to do about what is missing.
import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { access, stat, statfs } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import binaries from '../binaries.cjs'
import { repositoryOf } from '../hub/api.js'
import { packagedModels } from '../hub/packaged.js'
import { exists } from '../hub/paths.js'
import { sharpVersion } from '../images/image.js'
import { addonPath, binding, type DeviceInfo, libcVersion } from '../native.js'
import { version } from '../version.js'
import { type CliOption, expectNothing, type Invocation, shared } from './options.js'
import { columnsOf, formatBytes, say, table } from './terminal.js'

export const summary = 'look at what this machine has and lacks, and say what to do'
export const usage = 'Usage: kandinsky doctor [--json]'
export const options: Record<string, CliOption> = { json: shared.json }

const PROBE_MS = 60_000

interface Problem {
  problem: string
  /** what to do */
  advice: string
}

/** Exit code 1 if there is a problem. */
export async function run({ positionals, json, signal }: Invocation): Promise<void> {
  expectNothing(positionals)
  const problems: Problem[] = []
  const report = {
    version,
    node: process.versions.node,
    platform: process.platform,
    arch: process.arch,
    libc: libcVersion(),
    addon: addonPath(),
    ...(await engine(problems, signal)),
    memory: { totalBytes: os.totalmem(), freeBytes: process.availableMemory() },
    sharp: imageCodecs(problems),
    models: models(),
    cache: await cache(problems),
  }
  if (json) console.log(JSON.stringify({ type: 'doctor', ...report, problems }))
  else print(report, problems)
  if (problems.length > 0) process.exitCode = 1
}

/** What computes. The addon is first loaded by another process, which a broken one or a driver's fault may end. */
async function engine(problems: Problem[], signal: AbortSignal) {
  const outcome = await probe(signal)
  if ('problem' in outcome) {
    problems.push(outcome)
    return { devices: [] }
  }
  const { ggml, cpuVariant, cuda } = binding().info()
  return { ggml, cpuVariant, cuda, devices: outcome.devices }
}

/** Lists the devices as `kandinsky devices` does, in a process of its own. */
async function probe(signal: AbortSignal): Promise<{ devices: DeviceInfo[] } | Problem> {
  const child = spawn(process.execPath, [process.argv[1]!, 'devices', '--json'], {
    stdio: ['ignore', 'pipe', 'ignore'],
    signal,
    timeout: PROBE_MS,
  })
  child.on('error', () => {}) // an abort; `close` follows
  let output = ''
  child.stdout.on('data', (text) => {
    output += text
  })
  const killed = await new Promise<NodeJS.Signals | null>((resolve) => child.on('close', (_, name) => resolve(name)))
  signal.throwIfAborted()
  if (killed === 'SIGTERM')
    return {
      problem: `listing the devices took more than ${PROBE_MS / 1000} s`,
      advice: 'a graphics driver may hang: see whether its own tools (nvidia-smi) answer',
    }
  if (killed)
    return {
      problem: `listing the devices ended the process with ${killed}`,
      advice: 'update the graphics driver; if that does not help, report it with the output of this command',
    }
  const answer = JSON.parse(output.trim().split('\n').at(-1) || '{}') as { devices?: DeviceInfo[]; message?: string }
  if (answer.devices) return { devices: answer.devices }
  const [what = 'the addon says nothing', why = '', ...advice] = (answer.message ?? '')
    .split('\n')
    .map((line) => line.trim())
  return { problem: `${what} ${why}`.trim(), advice: advice.filter((line) => !line.includes('doctor')).join('\n  ') }
}

function imageCodecs(problems: Problem[]): string | undefined {
  try {
    return sharpVersion()
  } catch (error) {
    problems.push({
      problem: (error as Error).message.split('\n')[0]!,
      advice: 'npm install --include=optional sharp (pictures can only be taken as raw pixels without it)',
    })
    return undefined
  }
}

/** The demo models that are there: an install may leave them out. */
function models(): string[] {
  return packagedModels.filter((name) => binaries.modelPath(name) !== undefined)
}

/** Where downloads go, or would go. */
async function cache(problems: Problem[]) {
  const folder = path.dirname((await repositoryOf('owner/name', {})).folder)
  let existing = folder
  while (!(await exists(existing)) && path.dirname(existing) !== existing) existing = path.dirname(existing)
  const canWrite = await Promise.all([stat(existing), access(existing, constants.W_OK)]).then(
    ([found]) => found.isDirectory(),
    () => false,
  )
  if (!canWrite)
    problems.push({
      problem: `${existing} cannot be written to, so nothing can be downloaded to ${folder}`,
      advice: 'set HF_HUB_CACHE to a folder of yours',
    })
  const { bavail, bsize } = await statfs(existing)
  return { folder, exists: existing === folder, freeBytes: bavail * bsize }
}

type Report = {
  libc: string | undefined
  addon: string | undefined
  ggml?: string
  cpuVariant?: string
  cuda?: boolean
  devices: DeviceInfo[]
  memory: { totalBytes: number; freeBytes: number }
  sharp: string | undefined
  models: string[]
  cache: { folder: string; exists: boolean; freeBytes: number }
}

function print(report: Report, problems: Problem[]): void {
  const { libc, addon, ggml, cpuVariant, devices, memory, sharp, models: names, cache: downloads } = report
  const gpus = devices.filter(({ kind }) => kind !== 'cpu')
  const origin = addon && /\b(prebuilds|@node-kandinsky)\b/.test(addon) ? 'prebuilt' : 'built here'
  const rows: [string, string][] = [
    ['package', `node-kandinsky ${version}`],
    ['system', `${process.platform}-${process.arch}${libc ? `, ${libc}` : ''}, Node ${process.versions.node}`],
    ['addon', addon ? `${addon}, ${origin}` : 'none for this system'],
    ...(ggml ? ([['engine', `ggml ${ggml}, CPU kernels ${cpuVariant}`]] as [string, string][]) : []),
    ...devices.map(({ name, description }): [string, string] => [name, description]),
    ...(gpus.length === 0 ? ([['cuda', report.cuda === undefined ? 'unknown' : 'none']] as [string, string][]) : []),
    ['memory', `${formatBytes(memory.freeBytes)} of ${formatBytes(memory.totalBytes)} free`],
    ['pictures', sharp ? `sharp ${sharp}` : 'no sharp'],
    ['models', names.join(', ') || 'none: @node-kandinsky/demo-models is not installed'],
    [
      'downloads',
      `${downloads.folder}${downloads.exists ? '' : ' (not there yet)'}, ${formatBytes(downloads.freeBytes)} free`,
    ],
  ]
  const columns = columnsOf(process.stdout)
  console.log(table(rows, columns))
  for (const { problem, advice } of problems) say(`\nProblem: ${problem}\n  ${advice}`)
  console.log(problems.length === 0 ? '\nNothing is missing.' : '')
}

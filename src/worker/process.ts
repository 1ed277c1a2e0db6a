// A process to work in: a child of Node's, or in Electron's main process a utility process, which is what Electron offers
// for native code beside the application.
import { type ChildProcess, fork } from 'node:child_process'
import binaries from '../binaries.cjs'

export interface WorkerProcess {
  readonly pid: number | undefined
  post(bytes: Uint8Array): void
  onMessage(listener: (bytes: Uint8Array) => void): void
  /** once, however it ends; `how` is for messages: `signal SIGSEGV`, `exit code 1` */
  onEnd(listener: (how: string) => void): void
  /** whether the program shall stay alive for it */
  hold(wanted: boolean): void
  kill(): void
}

export interface ProcessOptions {
  /** added to the program's own environment variables */
  env?: Record<string, string> | undefined
  /** options of Node, e.g. `--max-old-space-size=4096` */
  execArgv?: readonly string[] | undefined
  /** the Node to run; default: the program's own, which a single executable application is not */
  execPath?: string | undefined
}

/** The part of Electron that is used here. */
interface UtilityProcess {
  fork(
    path: string,
    args: string[],
    options: { serviceName: string; env: Record<string, string | undefined>; execArgv: string[] },
  ): {
    postMessage(message: unknown): void
    on(event: 'message', listener: (message: Uint8Array) => void): void
    on(event: 'exit', listener: (code: number) => void): void
    kill(): boolean
    readonly pid: number | undefined
  }
}

export function startProcess({ env = {}, execArgv = [], execPath }: ProcessOptions): WorkerProcess {
  const settings = { env: { ...process.env, ...env }, execArgv: [...execArgv] }
  const isElectronMain = process.versions.electron !== undefined && (process as { type?: string }).type === 'browser'
  return isElectronMain
    ? startUtility(settings)
    : startChild(execPath === undefined ? settings : { ...settings, execPath })
}

function startChild(settings: { env: NodeJS.ProcessEnv; execArgv: string[]; execPath?: string }): WorkerProcess {
  const child: ChildProcess = fork(binaries.workerPath(), [], { ...settings, serialization: 'advanced' })
  return {
    get pid() {
      return child.pid
    },
    // a channel that is gone is told by `exit`
    post: (bytes) => void child.send(bytes, () => {}),
    onMessage: (listener) => child.on('message', (bytes) => listener(bytes as Uint8Array)),
    onEnd(listener) {
      child.once('error', (error) => listener(error.message))
      child.once('exit', (code, signal) => listener(signal ? `signal ${signal}` : `exit code ${code}`))
    },
    hold(wanted) {
      const change = wanted ? 'ref' : 'unref'
      child[change]()
      child.channel?.[change]?.() // Bun has none
    },
    kill: () => void child.kill('SIGKILL'),
  }
}

function startUtility(settings: { env: NodeJS.ProcessEnv; execArgv: string[] }): WorkerProcess {
  const { utilityProcess } = binaries.loadHostModule('electron') as { utilityProcess: UtilityProcess }
  const child = utilityProcess.fork(binaries.workerPath(), [], { serviceName: 'node-kandinsky', ...settings })
  return {
    get pid() {
      return child.pid
    },
    post: (bytes) => child.postMessage(bytes),
    onMessage: (listener) => child.on('message', listener),
    onEnd: (listener) => child.on('exit', (code) => listener(`exit code ${code}`)),
    hold() {}, // an Electron application ends when it says so
    kill: () => void child.kill(),
  }
}

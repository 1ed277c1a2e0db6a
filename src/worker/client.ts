// Pipelines in a process of their own, with the API that they have in this one.
import binaries from '../binaries.cjs'
import { invalid, KandinskyError } from '../errors.js'
import { externalAdvice } from '../native.js'
import { expectOptions } from '../pipelines/call/options.js'
import { streamCall } from '../pipelines/call/progress.js'
import {
  errorFrom,
  fromBytes,
  type Held,
  nothingHeld,
  pack,
  plainError,
  type Reply,
  type Request,
  toBytes,
  unpack,
} from './messages.js'
import { loraMethods, type PipelineName, pipelineNames, type RemoteClasses, remoteMethods } from './pipelines.js'
import { type ProcessOptions, startProcess, type WorkerProcess } from './process.js'

/** How the worker process is started and watched. */
export interface WorkerOptions extends ProcessOptions {
  /** called after the process died, with what the calls that were under way rejected with */
  onCrash?: ((error: KandinskyError) => void) | undefined
}

/** The pipelines' classes, whose `fromPretrained` loads into the worker process. */
export type KandinskyWorker = RemoteClasses & {
  /** the worker's process; undefined while there is none */
  readonly pid: number | undefined
  /** Ends the process. Calls under way and later ones reject with `DISPOSED`. Idempotent. */
  dispose(): Promise<void>
} & AsyncDisposable

/**
 * Pipelines in a process of their own, so that a fault in native code or a graphics driver, or too little memory, does not
 * end this one:
 *
 *     const worker = createWorker()
 *     const pipe = await worker.AutoPipelineForText2Image.fromPretrained('demo')
 *     const { images } = await pipe.generate({ prompt: 'a red apple', signal, onStep })
 *     await worker.dispose()
 *
 * Calls, events, errors, aborting and generators are those of the pipelines themselves; pictures and tensors are copied as
 * bytes. If the process dies, what it was doing rejects with `WORKER_DIED`; the next call starts another one and loads the
 * pipeline into it again. The process starts with the first `fromPretrained`, ends with this one, and does not keep it
 * alive between calls. In Electron's main process it is a utility process.
 *
 * @throws KandinskyError `INVALID_ARGUMENT`, `FILE_NOT_FOUND` in a bundle
 */
export function createWorker(options: WorkerOptions = {}): KandinskyWorker {
  expectOptions(options, ['env', 'execArgv', 'execPath', 'onCrash'])
  // It would start itself, again and again.
  if (options.execPath === undefined && process.getBuiltinModule?.('node:sea')?.isSea?.())
    throw invalid('execPath', 'a Node to run the worker with, as this is a single executable application,', undefined)
  if (binaries.isBundled()) throw new KandinskyError('FILE_NOT_FOUND', `The code of the worker: ${externalAdvice}`)
  const worker = new Worker(options)
  const classes = Object.fromEntries(
    pipelineNames.map((name) => [
      name,
      { fromPretrained: (source: string, given?: object) => RemoteInstance.load(worker, name, source, given) },
    ]),
  )
  return {
    ...(classes as unknown as RemoteClasses),
    get pid() {
      return worker.pid
    },
    dispose: () => worker.dispose(),
    [Symbol.asyncDispose]: () => worker.dispose(),
  }
}

interface Call {
  held: Held
  resolve(value: unknown): void
  reject(error: unknown): void
  /** removes what listens to signals */
  release(): void
  /** what a callback of the program's threw */
  thrown?: { error: unknown }
}

class Worker {
  readonly #options: WorkerOptions
  readonly #calls = new Map<number, Call>()
  #process: WorkerProcess | undefined
  /** before the process has said that it listens */
  #waiting: Uint8Array[] | undefined
  #ids = 0
  #disposed = false
  /** how many processes there have been: what was loaded into an earlier one is gone */
  generation = 0

  constructor(options: WorkerOptions) {
    this.#options = options
  }

  get pid(): number | undefined {
    return this.#process?.pid
  }

  get isRunning(): boolean {
    return this.#process !== undefined
  }

  /** @returns the call's id, which for a `fromPretrained` stands for the pipeline */
  call(target: string | number, method: string, args: unknown[]): { id: number; result: Promise<unknown> } {
    const id = this.#ids++
    const result = new Promise((resolve, reject) => {
      if (this.#disposed) throw new KandinskyError('DISPOSED', 'The worker was disposed')
      const held = nothingHeld()
      // All is copied here and now, as the caller may go on to change it.
      const bytes = toBytes({ type: 'call', id, target, method, args: args.map((arg) => pack(arg, held)) })
      const abort = () => {
        const reason = held.signals.find((signal) => signal.aborted)?.reason
        this.#send({ type: 'abort', id, reason: String(reason) })
      }
      const release = () => {
        for (const signal of held.signals) signal.removeEventListener('abort', abort)
      }
      this.#calls.set(id, { held, resolve, reject, release })
      this.#process ??= this.#start()
      this.#process.hold(true)
      this.#post(bytes)
      for (const signal of held.signals) signal.addEventListener('abort', abort, { once: true })
    })
    return { id, result }
  }

  async dispose(): Promise<void> {
    this.#disposed = true
    this.#process?.kill()
    this.#end(new KandinskyError('DISPOSED', 'The worker was disposed'))
  }

  #start(): WorkerProcess {
    const started = startProcess(this.#options)
    this.#waiting = []
    this.generation++
    started.onMessage((bytes) => this.#receive(fromBytes(bytes)))
    started.onEnd((how) => {
      if (this.#process !== started) return
      const error = new KandinskyError('WORKER_DIED', `The worker process ended with ${how}`)
      this.#end(error)
      this.#options.onCrash?.(error)
    })
    return started
  }

  #end(error: KandinskyError): void {
    this.#process = undefined
    this.#waiting = undefined
    const calls = [...this.#calls.values()]
    this.#calls.clear()
    for (const { reject, release } of calls) {
      release()
      reject(error)
    }
  }

  #send(request: Request): void {
    if (this.#process) this.#post(toBytes(request))
  }

  #post(bytes: Uint8Array): void {
    if (this.#waiting) this.#waiting.push(bytes)
    else this.#process?.post(bytes)
  }

  #receive(reply: Reply): void {
    if (reply.type === 'ready') {
      const waiting = this.#waiting ?? []
      this.#waiting = undefined
      for (const bytes of waiting) this.#post(bytes)
    } else if (reply.type === 'event') void this.#callback(reply)
    else this.#settle(reply)
  }

  async #callback({ id, callback, question, args }: Extract<Reply, { type: 'event' }>): Promise<void> {
    const call = this.#calls.get(id)
    if (!call || call.thrown) return
    try {
      const value = await call.held.functions[callback]?.(...args.map((arg) => unpack(arg, [], noStand)))
      if (question !== undefined)
        this.#send({ type: 'answer', question, value: pack(value, nothingHeld(), 'callbackOnStepEnd') })
    } catch (error) {
      // As in one process, what a callback throws ends the call and is what it rejects with.
      call.thrown = { error }
      if (question !== undefined) this.#send({ type: 'answer', question, value: undefined, error: plainError(error) })
      else this.#send({ type: 'abort', id, reason: 'a callback threw' })
    }
  }

  #settle({ id, value, error, generators }: Extract<Reply, { type: 'done' }>): void {
    const call = this.#calls.get(id)
    this.#calls.delete(id)
    if (this.#calls.size === 0) this.#process?.hold(false)
    if (!call) return
    call.release()
    for (const [i, generator] of call.held.generators.entries())
      generator.position = generators[i] ?? generator.position
    const aborted = call.held.signals.find((signal) => signal.aborted)
    if (call.thrown) call.reject(call.thrown.error)
    else if (error) call.reject(aborted ? aborted.reason : errorFrom(error))
    else call.resolve(unpack(value, [], noStand))
  }
}

/** Results hold neither functions nor signals. */
const noStand = {
  forFunction: () => undefined,
  forSignal: () => new AbortController().signal,
}

/** One pipeline in the worker; loaded again where the process that had it is gone. */
class RemoteInstance {
  readonly #worker: Worker
  readonly #name: PipelineName
  readonly #args: unknown[]
  /** calls that LoRAs are as they are by: [method, arguments] */
  #loras: [string, unknown[]][] = []
  #id = -1
  #generation = -1
  #disposed = false

  static async load(worker: Worker, name: PipelineName, source: string, options?: object): Promise<RemoteInstance> {
    const instance = new RemoteInstance(worker, name, options === undefined ? [source] : [source, options])
    await instance.#load(instance.#args)
    return instance
  }

  private constructor(worker: Worker, name: PipelineName, args: unknown[]) {
    this.#worker = worker
    this.#name = name
    this.#args = args
    for (const method of remoteMethods)
      if (method !== 'dispose') Object.assign(this, { [method]: (...given: unknown[]) => this.#call(method, given) })
  }

  stream(options: object) {
    const { generate } = this as unknown as { generate(options: object): Promise<object> }
    return streamCall(generate, options)
  }

  async dispose(): Promise<void> {
    const isThere = !this.#disposed && this.#worker.isRunning && this.#generation === this.#worker.generation
    this.#disposed = true
    if (isThere) await this.#worker.call(this.#id, 'dispose', []).result
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  async #load(args: unknown[]): Promise<void> {
    const { id, result } = this.#worker.call(this.#name, 'fromPretrained', args)
    this.#id = id
    this.#generation = this.#worker.generation
    await result
  }

  async #call(method: string, args: unknown[]): Promise<unknown> {
    if (this.#disposed) throw new KandinskyError('DISPOSED', 'The pipeline was disposed')
    if (!this.#worker.isRunning || this.#generation !== this.#worker.generation) {
      // What follows waits for it in the worker; why it failed is what that rejects with.
      this.#load([...withoutListeners(this.#args), this.#loras]).catch(() => {
        this.#generation = -1
      })
    }
    const { result } = this.#worker.call(this.#id, method, args)
    if (!(loraMethods as readonly string[]).includes(method)) return result
    const given = structuredClone(withoutListeners(args))
    const value = await result
    this.#remember(method, given)
    return value
  }

  #remember(method: string, args: unknown[]): void {
    if (method === 'unloadLoraWeights') this.#loras = []
    // Somebody may drag a slider.
    else if (method === 'setAdapters' && this.#loras.at(-1)?.[0] === method) this.#loras.splice(-1, 1, [method, args])
    else this.#loras.push([method, args])
  }
}

/** Arguments of a call that is over, to be sent again. */
function withoutListeners([first, second, ...others]: unknown[]): unknown[] {
  if (typeof second !== 'object' || second === null || Array.isArray(second)) return [first, second, ...others]
  const { signal, onProgress, ...options } = second as Record<string, unknown>
  return [first, options, ...others]
}

// The worker process: loads pipelines and runs their calls for the program that started it (client.ts).
import { KandinskyError } from '../errors.js'
import type { Generator } from '../random.js'
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
import { type PipelineName, pipelineClasses, remoteMethods } from './pipelines.js'

/** The two kinds of parent: Node's `child_process.fork` and Electron's `utilityProcess.fork`. */
interface ParentPort {
  on(event: 'message', listener: (message: { data: Uint8Array }) => void): void
  postMessage(bytes: Uint8Array): void
}
const { parentPort } = process as NodeJS.Process & { parentPort?: ParentPort }

const pipelines = new Map<number, Promise<RemoteMethods>>()
const running = new Map<number, AbortController>()
const questions = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>()
let asked = 0

function post(reply: Reply): void {
  if (parentPort) parentPort.postMessage(toBytes(reply))
  else process.send?.(toBytes(reply))
}

function receive(bytes: Uint8Array): void {
  const request = fromBytes<Request>(bytes)
  if (request.type === 'call') void answer(request)
  else if (request.type === 'abort') running.get(request.id)?.abort(new DOMException(request.reason, 'AbortError'))
  else {
    const question = questions.get(request.question)
    questions.delete(request.question)
    if (request.error) question?.reject(errorFrom(request.error))
    else question?.resolve(unpackValue(request.value))
  }
}

async function answer({ id, target, method, args }: Extract<Request, { type: 'call' }>): Promise<void> {
  const generators: Generator[] = []
  const abort = new AbortController()
  running.set(id, abort)
  const stand = {
    forSignal(aborted: boolean) {
      if (aborted) abort.abort()
      return abort.signal
    },
    forFunction: (index: number, name: string) => callback(id, index, name),
  }
  let value: unknown
  let error: unknown
  try {
    const given = args.map((arg) => unpack(arg, generators, stand))
    value = await (typeof target === 'string' ? load(id, target as PipelineName, given) : call(target, method, given))
  } catch (cause) {
    error = cause ?? new KandinskyError('INTERNAL', 'The call failed without a reason')
  }
  running.delete(id)
  const positions = generators.map(({ position }) => position)
  if (error !== undefined) post({ type: 'done', id, error: plainError(error), generators: positions })
  else post({ type: 'done', id, value: pack(value, nothingHeld()), generators: positions })
}

type RemoteMethods = Record<string, (...args: unknown[]) => unknown>

/** @param loras calls that follow where it was loaded before */
async function load(id: number, name: PipelineName, [source, options, loras]: unknown[]): Promise<void> {
  const Class = pipelineClasses[name] as { fromPretrained(...args: unknown[]): Promise<RemoteMethods> }
  const loading = (async () => {
    const pipeline = await Class.fromPretrained(source, options)
    for (const [method, args] of (loras ?? []) as [string, unknown[]][]) await pipeline[method]!(...args)
    return pipeline
  })()
  pipelines.set(id, loading)
  await loading
}

async function call(target: number, method: string, args: unknown[]): Promise<unknown> {
  const pipeline = await pipelines.get(target)
  if (method === 'dispose') pipelines.delete(target)
  if (!pipeline && method === 'dispose') return undefined
  if (!pipeline) throw new KandinskyError('DISPOSED', 'The pipeline was disposed')
  if (!remoteMethods.includes(method as (typeof remoteMethods)[number]) || typeof pipeline[method] !== 'function')
    throw new KandinskyError('INVALID_ARGUMENT', `Expected a method of the pipeline but received ${method}`)
  return pipeline[method](...args)
}

/** A function of the program's. Only what `callbackOnStepEnd` returns is waited for, as in the same process. */
function callback(id: number, index: number, name: string) {
  return (...args: unknown[]): unknown => {
    const packed = args.map((arg) => pack(arg, nothingHeld()))
    if (name !== 'callbackOnStepEnd') return post({ type: 'event', id, callback: index, args: packed })
    const question = asked++
    post({ type: 'event', id, callback: index, question, args: packed })
    return new Promise((resolve, reject) => questions.set(question, { resolve, reject }))
  }
}

function unpackValue(value: unknown): unknown {
  const held: Held = nothingHeld()
  const refuse = () => {
    throw new KandinskyError('INVALID_ARGUMENT', 'Expected no functions and signals in what callbackOnStepEnd returns')
  }
  return unpack(value, held.generators, { forFunction: refuse, forSignal: refuse })
}

if (parentPort) parentPort.on('message', ({ data }) => receive(data))
else {
  process.on('message', (bytes: Uint8Array) => receive(bytes))
  // Nobody is left to work for.
  process.on('disconnect', () => process.exit())
}
post({ type: 'ready' })

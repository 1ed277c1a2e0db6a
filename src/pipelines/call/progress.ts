// Progress events, cancelling and the two forms of every call: a promise with callbacks, or a stream of events.
import { invalid } from '../../errors.js'
import type { RawImage } from '../../images/image.js'
import { firstOf } from '../../realms.js'
import type { Tensor } from '../../tensor.js'
import { expectOptions, expectTensor } from './options.js'

/** One finished denoising step. */
export interface StepEvent {
  type: 'step'
  /** which loop: `prior` (image embedding) or `decoder` (latents) */
  stage: 'prior' | 'decoder'
  /** 1 .. steps */
  step: number
  steps: number
  timestep: number
  /** estimated milliseconds until this stage ends */
  etaMs: number
  /** the current sample: [n, 4, h, w] in the decoder, [n, embeddingDim] in the prior */
  latents: Tensor
  /** with `preview: true`, in the decoder: what the pictures look like so far, one pixel per latent cell */
  preview?: RawImage[]
}

/** Called after every denoising step; nothing waits for what it returns. */
export type OnStep = (event: StepEvent) => void

/**
 * diffusers' `callback_on_step_end`: sees the latents after a step and may return others of the same shape, with which
 * the loop goes on. `step` counts from 1 here.
 */
// biome-ignore lint/suspicious/noConfusingVoidType: callbacks that only look return nothing
export type CallbackOnStepEnd = (event: StepEvent) => StepReplacement | void | Promise<StepReplacement | void>

/** What a `callbackOnStepEnd` may return: the sample to go on with. */
export interface StepReplacement {
  latents?: Tensor | undefined
}

/** Options that every generating call has. */
export interface CallOptions {
  /** aborts within one step; the promise rejects with `signal.reason` and the pipeline stays usable */
  signal?: AbortSignal | undefined
  onStep?: OnStep | undefined
  callbackOnStepEnd?: CallbackOnStepEnd | undefined
}

export const callOptionNames = ['signal', 'onStep', 'callbackOnStepEnd'] as const

/** The options of a call that concern its steps, each checked to be a function where given. */
export function checkCallOptions({ signal, onStep, callbackOnStepEnd }: CallOptions): CallOptions {
  for (const [name, value] of Object.entries({ onStep, callbackOnStepEnd }))
    if (value !== undefined && typeof value !== 'function') throw invalid(name, 'a function', value)
  if (signal !== undefined && typeof signal?.throwIfAborted !== 'function')
    throw invalid('signal', 'an AbortSignal', signal)
  return { signal, onStep, callbackOnStepEnd }
}

/** Steps of other loops in the same stage, which events count with a loop's own. */
export interface StepsBeside {
  before: number
  after: number
  /** of a later step, when one of the loop's own costs 1 */
  cost: number
}

/** Reports the steps of one loop; checks the signal before and after each. */
export class StepReporter {
  readonly #started = performance.now()

  constructor(
    private readonly stage: StepEvent['stage'],
    private readonly steps: number,
    private readonly options: CallOptions,
    private readonly beside: StepsBeside = { before: 0, after: 0, cost: 0 },
  ) {}

  check(): void {
    this.options.signal?.throwIfAborted()
  }

  /** @returns the latents to go on with: those given, or the ones that the callback put in their place */
  async report(index: number, timestep: number, latents: Tensor, preview?: RawImage[]): Promise<Tensor> {
    const { onStep, callbackOnStepEnd } = this.options
    const { before, after, cost } = this.beside
    const perStep = (performance.now() - this.#started) / (index + 1)
    const event: StepEvent = {
      type: 'step',
      stage: this.stage,
      step: before + index + 1,
      steps: before + this.steps + after,
      timestep,
      etaMs: Math.round(perStep * (this.steps - index - 1 + after * cost)),
      latents,
      ...(preview && { preview }),
    }
    onStep?.(event)
    const replacement = await callbackOnStepEnd?.(event)
    this.check()
    return replaced(latents, replacement ?? {})
  }
}

function replaced(latents: Tensor, replacement: StepReplacement): Tensor {
  expectOptions(replacement, ['latents'])
  if (replacement.latents === undefined) return latents
  return expectTensor('latents from callbackOnStepEnd', replacement.latents, latents.shape)
}

/**
 * Turns a call with `onStep` into an async iterable of its steps followed by one `result` event. Leaving the loop early
 * aborts the call; its error, if any, is thrown from the iteration.
 */
export async function* streamCall<Options extends CallOptions, Result extends object>(
  call: (options: Options) => Promise<Result>,
  options: Options,
): AsyncGenerator<StepEvent | ({ type: 'result' } & Result), void, undefined> {
  const leaving = new AbortController()
  const signal = options.signal ? firstOf([options.signal, leaving.signal]) : leaving.signal
  const events: StepEvent[] = []
  let wake: () => void = () => {}
  const onStep: OnStep = (event) => {
    options.onStep?.(event)
    events.push(event)
    wake()
  }
  let outcome: { result: Result } | { error: unknown } | undefined
  const done = call({ ...options, signal, onStep }).then(
    (result) => {
      outcome = { result }
      wake()
    },
    (error: unknown) => {
      outcome = { error }
      wake()
    },
  )
  try {
    while (true) {
      while (events.length > 0) yield events.shift()!
      if (outcome) break
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
    if ('error' in outcome) throw outcome.error
    yield { type: 'result', ...outcome.result }
  } finally {
    leaving.abort()
    await done
  }
}

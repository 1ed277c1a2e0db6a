// Progress events, cancelling and the two forms of every call: a promise with callbacks, or a stream of events.
import type { Tensor } from '../tensor.js'

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
}

export type OnStep = (event: StepEvent) => void

/** Options that every generating call has. */
export interface CallOptions {
  /** aborts within one step; the promise rejects with `signal.reason` and the pipeline stays usable */
  signal?: AbortSignal | undefined
  onStep?: OnStep | undefined
}

/** Reports the steps of one loop; checks the signal before each. */
export class StepReporter {
  readonly #started = performance.now()

  constructor(
    private readonly stage: StepEvent['stage'],
    private readonly steps: number,
    private readonly options: CallOptions,
  ) {}

  check(): void {
    this.options.signal?.throwIfAborted()
  }

  report(index: number, timestep: number, latents: Tensor): void {
    const perStep = (performance.now() - this.#started) / (index + 1)
    this.options.onStep?.({
      type: 'step',
      stage: this.stage,
      step: index + 1,
      steps: this.steps,
      timestep,
      etaMs: Math.round(perStep * (this.steps - index - 1)),
      latents,
    })
    this.check()
  }
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
  const signal = options.signal ? AbortSignal.any([options.signal, leaving.signal]) : leaving.signal
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

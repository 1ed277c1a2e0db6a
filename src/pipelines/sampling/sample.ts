// The one sampling loop: priors, UNets and transformers differ in what predicts, not in how it is repeated.
import { KandinskyError } from '../../errors.js'
import type { RawImage } from '../../images/image.js'
import type { RandomSource } from '../../random.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import type { Tensor } from '../../tensor.js'
import { type CallOptions, type StepEvent, StepReporter, type StepsBeside } from '../call/progress.js'

/** Where a loop stands when it asks for a prediction. */
export interface Moment {
  timestep: number
  /** of the loop's calls of the model, from 0 on, and how many there are in all */
  index: number
  count: number
  /** the sample as the scheduler has it, before `scaleModelInput` */
  latents: Tensor
}

/** What a model, guided or not, makes of a sample: what the scheduler's `step` takes. */
export type Predict = (sample: Tensor, moment: Moment) => Promise<Tensor>

/** Where a run begins. */
export interface Start {
  /** the part of the scheduler's timesteps to run */
  timesteps: readonly number[]
  /** one row per result */
  latents: Tensor
  /** may replace the latents after a step (inpainting blends the known region in); applying it twice changes nothing */
  afterStep?: ((latents: Tensor, index: number) => Tensor) | undefined
}

export interface SampleOptions extends CallOptions, Start {
  /** which loop, for events */
  stage: StepEvent['stage']
  /** this run's own */
  scheduler: Scheduler
  predict: Predict
  generator: RandomSource | readonly RandomSource[]
  /**
   * The scheduler is told which timestep follows. UnCLIP's otherwise goes to the training timestep below; others know
   * their own, which beyond the last step of the run need not be the clean sample.
   */
  namesNextTimestep?: boolean
  /** of other runs that this one belongs with */
  beside?: StepsBeside | undefined
  /** makes small pictures of the clean latents as the scheduler foresees them */
  preview?: ((predicted: Tensor) => RawImage[]) | undefined
}

/** Runs the scheduler's loop: scale, predict, step. @returns the latents after the last step */
export async function sample(options: SampleOptions): Promise<Tensor> {
  const { stage, scheduler, timesteps, predict, generator, afterStep, preview, namesNextTimestep } = options
  const reporter = new StepReporter(stage, timesteps.length, options, options.beside)
  let latents = options.latents
  for (const [index, timestep] of timesteps.entries()) {
    reporter.check()
    const moment = { timestep, index, count: timesteps.length, latents }
    const prediction = await predict(scheduler.scaleModelInput(latents, timestep), moment)
    const prevTimestep = namesNextTimestep ? timesteps[index + 1] : undefined
    const step = scheduler.step(prediction, timestep, latents, { generator, prevTimestep })
    latents = afterStep?.(step.prevSample, index) ?? step.prevSample
    if (!latents.data.every(Number.isFinite)) throw notFinite(stage, index + 1, prediction)
    latents = await reporter.report(index, timestep, latents, preview?.(step.predOriginalSample))
  }
  // The callback of the last step may have painted over what afterStep put there.
  return afterStep?.(latents, timesteps.length - 1) ?? latents
}

/** Said at the step where it happens: everything after it would be NaN, and so would the picture. */
function notFinite(stage: StepEvent['stage'], step: number, prediction: Tensor): KandinskyError {
  const source = prediction.data.every(Number.isFinite)
    ? 'the scheduler made them of a finite prediction'
    : 'the prediction itself is not finite'
  return new KandinskyError(
    'INVALID_ARGUMENT',
    `The latents of the ${stage} became NaN or infinite at step ${step}: ${source}. ` +
      'Expected a smaller guidanceScale, or weights that fit the model',
  )
}

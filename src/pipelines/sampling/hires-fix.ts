// Large pictures in two runs, as web UIs' "hires. fix" makes them: a network draws best at about the size it was trained on
// and repeats things on a larger canvas, so the picture is composed small, enlarged, and gone over at full size as
// image-to-image does. The small run costs little: the work grows faster than the area.
//
// The picture is enlarged between its pixels, not between its latents: enlarged latents are blurred ones, which need more
// strength, and with it more steps and less of the composition, than the two passes through MoVQ cost.
import { invalid, KandinskyError } from '../../errors.js'
import { preprocessImage } from '../../images/processing.js'
import type { Recipe } from '../../images/recipe.js'
import type { Tensor } from '../../tensor.js'
import { expectNumber, expectOptions } from '../call/options.js'
import type { StepsBeside } from '../call/progress.js'
import { type Autoencoder, decodeImages, encodeImages, latentSide, type Movq, movqScaleFactor } from './autoencoder.js'
import type { CheckedCall } from './decoding.js'
import { type NoiseLevel, noisedStart } from './image-start.js'
import type { Start } from './sample.js'

/** How a picture is made small first. */
export interface HiresFix {
  /** how many times smaller the sides of the first picture are (rounded up to multiples of 64), above 1 to 8; default 2 */
  scale?: number | undefined
  /** how far to go from the enlarged picture, 0 to 1: the share of the steps that run again; default 0.3 */
  strength?: number | undefined
}

/** Text-to-image pipelines that can make large pictures in two runs; see `HiresFix`. */
export interface HiresFixOption {
  /**
   * Makes the picture small, enlarges it and goes over it at full size, for pictures larger than the model was trained on.
   * `latents` are those of the small one. Default: one run at full size
   */
  hiresFix?: HiresFix | undefined
}

/** The run at full size, which goes on from the latents of the small one. */
interface SecondRun {
  call: CheckedCall
  steps: number
  begin(latents: Tensor): Promise<Start>
}

/** A call of one run or of two. */
export interface Runs {
  second?: SecondRun | undefined
}

/**
 * Makes of a call at full size the one that begins.
 * @param noiseLevel as in `imageStart`
 * @throws KandinskyError `INVALID_ARGUMENT`
 */
export function withHiresFix(
  movq: Autoencoder,
  { hiresFix }: HiresFixOption,
  call: CheckedCall,
  noiseLevel?: (strength: number) => NoiseLevel,
): CheckedCall & Runs & { recipe?: Recipe } {
  if (hiresFix === undefined) return call
  if (hiresFix === null || typeof hiresFix !== 'object') throw invalid('hiresFix', 'an object', hiresFix)
  expectOptions(hiresFix, ['scale', 'strength'])
  const scale = expectNumber('hiresFix.scale', hiresFix.scale ?? 2, 1, 8)
  const strength = hiresFix.strength ?? 0.3
  const factor = movqScaleFactor(movq)
  const [h, w] = [latentSide(call.height / scale, factor), latentSide(call.width / scale, factor)]
  const small = { height: h * factor, width: w * factor }
  if (small.height === call.height && small.width === call.width)
    throw new KandinskyError(
      'INVALID_ARGUMENT',
      `Expected a hiresFix.scale that makes ${call.width}x${call.height} pixels smaller but received ${scale}`,
    )
  const [rows, channels] = call.latentShape as [number, number]
  const first = { ...call, ...small, latentShape: [rows, channels, h, w], scheduler: call.scheduler.clone() }
  first.scheduler.setTimesteps(call.steps)
  const start = noisedStart(call, strength, noiseLevel, 'hiresFix.strength')
  const begin = async (latents: Tensor) => {
    const { height, width, signal } = call
    const pictures = await decodeImages(movq, latents, 'image', signal)
    const images = await preprocessImage(pictures as Exclude<typeof pictures, Tensor>, { height, width, signal })
    return start.begin(await encodeImages(movq as Movq, [images], signal))
  }
  return { ...first, second: { call, steps: start.timesteps.length, begin }, recipe: { hiresFix: { scale, strength } } }
}

/** Runs what a call consists of, one after the other. @returns the latents of the last */
export async function inRuns(
  job: CheckedCall & Runs,
  start: Start,
  run: (call: CheckedCall, start: Start, beside?: StepsBeside) => Promise<Tensor>,
): Promise<Tensor> {
  const { second } = job
  if (!second) return run(job, start)
  const { call, steps } = second
  const cost = (call.height * call.width) / (job.height * job.width)
  const latents = await run(job, start, { before: 0, after: steps, cost })
  return run(call, await second.begin(latents), { before: start.timesteps.length, after: 0, cost })
}

// What the ways to begin a run share.
import { invalid } from '../../errors.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import { repeatRows, Tensor } from '../../tensor.js'
import { expectNumber, expectOneOrEach } from '../call/options.js'

/** Noise as strong as the scheduler wants it at its first timestep. */
export function scaledNoise(noise: Tensor, { initNoiseSigma: sigma }: Scheduler): Tensor {
  if (sigma === 1) return noise
  return new Tensor(
    noise.data.map((value) => value * sigma),
    noise.shape,
  )
}

/**
 * Where a run that starts from an image begins: the index into the scheduler's timesteps that leaves
 * floor(steps * strength) steps.
 * @throws KandinskyError `INVALID_ARGUMENT` for a strength outside 0 to 1, or one that leaves no step
 */
export function startAt(steps: number, strength: number, scheduler: Scheduler, name = 'strength'): number {
  expectNumber(name, strength, 0, 1)
  const run = Math.floor(steps * strength)
  if (run < 1) throw invalid(name, `at least ${1 / steps}, which leaves one of ${steps} steps,`, strength)
  // Kandinsky 3's own samplers may have fewer timesteps than were asked for.
  return Math.min(scheduler.firstCall(steps - run), scheduler.timesteps.length - 1)
}

/** Rows for so many embeddings: one serves all. @throws KandinskyError `SHAPE_MISMATCH` for any other number */
export function onePerEmbedding(name: string, rows: Tensor, embeddings: number): Tensor {
  expectOneOrEach(name, rows.shape[0]!, 'embedding', embeddings)
  return repeatRows(rows, embeddings / rows.shape[0]!)
}

// How text-to-image begins, and with it every task that starts from nothing but noise.
import { type RandomSource, randnTensor } from '../../random.js'
import { Tensor } from '../../tensor.js'
import { expectTensor } from '../call/options.js'
import type { CheckedCall } from './decoding.js'
import type { Start } from './sample.js'
import { scaledNoise } from './start.js'

export interface LatentsOption {
  /** initial noise [rows, 4, height / 8, width / 8] instead of a drawn one */
  latents?: Tensor | undefined
}

/** The noise that a run starts from, given (checked and copied) or to be drawn when it begins. */
export function initialNoise(
  { latentShape, generator }: { latentShape: readonly number[]; generator: RandomSource | RandomSource[] },
  { latents }: LatentsOption,
): () => Tensor {
  if (latents === undefined) return () => randnTensor(latentShape, generator)
  const { data, shape } = expectTensor('latents', latents, latentShape)
  const copy = new Tensor(data.slice(), shape)
  return () => copy
}

/** Checks the initial noise of a call; the result begins a run over all timesteps. */
export function noiseStart(call: CheckedCall, options: LatentsOption): () => Promise<Start> {
  const { scheduler } = call
  const noise = initialNoise(call, options)
  return async () => {
    const drawn = noise()
    const latents = scheduler.startFrom?.(drawn, call.generator) ?? scaledNoise(drawn, scheduler)
    return { timesteps: scheduler.timesteps, latents }
  }
}

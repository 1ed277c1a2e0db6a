// The denoising loop that the 2.x decoder pipelines share, and what goes in and comes out of it.
import { invalid, KandinskyError } from '../../errors.js'
import type { RawImage } from '../../images/image.js'
import type { Model } from '../../networks/network.js'
import type { RandomSource } from '../../random.js'
import type { Scheduler } from '../../schedulers/scheduler.js'
import { concatChannels, concatRows, sliceRows, splitChannels, Tensor } from '../../tensor.js'
import { expectNumber } from '../call/options.js'
import { type CallOptions, StepReporter } from '../call/progress.js'

/** uncond + g (cond - uncond) on a batch [uncond; cond], in float32 like the reference. */
export function guide(batch: Tensor, guidanceScale: number): Tensor {
  const rows = batch.shape[0]! / 2
  const uncond = sliceRows(batch, 0, rows)
  const cond = sliceRows(batch, rows, 2 * rows)
  const scale = Math.fround(guidanceScale)
  const data = uncond.data.map((u, i) => u + Math.fround(scale * Math.fround(cond.data[i]! - u)))
  return new Tensor(data, uncond.shape)
}

/**
 * Side of the latents for a picture side in pixels: rounded up to a whole number of the UNet's coarsest cells, so 513
 * pixels become 576 (diffusers' downscale_height_and_width; `factor` is MoVQ's, 8 in all published checkpoints).
 */
export function latentSide(pixels: number, factor: number): number {
  return Math.ceil(pixels / factor ** 2) * factor
}

/** MoVQ halves the picture once per level but the last. */
export function movqScaleFactor(movq: Model): number {
  const levels = movq.config.block_out_channels
  return 2 ** ((Array.isArray(levels) ? levels.length : 1) - 1)
}

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
export function startAt(steps: number, strength: number, scheduler: Scheduler): number {
  expectNumber('strength', strength, 0, 1)
  const run = Math.floor(steps * strength)
  if (run < 1) throw invalid('strength', `at least ${1 / steps}, which leaves one of ${steps} steps,`, strength)
  return (steps - run) * scheduler.order
}

export interface DenoiseOptions extends CallOptions {
  unet: Model
  scheduler: Scheduler
  /** the part of the scheduler's timesteps to run */
  timesteps: readonly number[]
  /** [n, c, h, w] */
  latents: Tensor
  /** further UNet inputs, already [negative; positive] along the batch when guidance is on */
  conditioning: Readonly<Record<string, Tensor>>
  /** channels that the UNet sees behind the latents (inpainting), batched like `conditioning` */
  extraChannels?: Tensor | undefined
  guidanceScale: number
  generator: RandomSource | RandomSource[]
  /** may replace the latents after a step (inpainting blends the known region in); applying it twice changes nothing */
  afterStep?: ((latents: Tensor, index: number) => Tensor) | undefined
  /** makes small pictures of the clean latents as the scheduler foresees them */
  preview?: ((predicted: Tensor) => RawImage[]) | undefined
}

/**
 * Runs the scheduler's loop: UNet, guidance, step.
 *
 * Guidance acts on the predicted noise only; the variance half comes from the conditional branch, and is dropped unless
 * the scheduler learned to use it (diffusers' pipeline_kandinsky2_2.py). Schedulers whose samples need scaling get it,
 * which the reference omits.
 */
export async function denoise(options: DenoiseOptions): Promise<Tensor> {
  const { unet, scheduler, timesteps, guidanceScale } = options
  const guided = guidanceScale > 1
  const channels = options.latents.shape[1]!
  const reporter = new StepReporter('decoder', timesteps.length, options)
  let latents = options.latents
  for (const [index, timestep] of timesteps.entries()) {
    reporter.check()
    let sample = scheduler.scaleModelInput(latents, timestep)
    if (guided) sample = concatRows([sample, sample])
    if (options.extraChannels) sample = concatChannels([sample, options.extraChannels])
    const inputs = { ...options.conditioning, sample, timestep: new Tensor(new Float32Array([timestep]), [1]) }
    const output = (await unet.run('forward', inputs, { signal: options.signal })).sample!
    const modelOutput = predictedNoise(output, channels, guided ? guidanceScale : undefined, scheduler)
    const step = scheduler.step(modelOutput, timestep, latents, { generator: options.generator })
    latents = options.afterStep?.(step.prevSample, index) ?? step.prevSample
    latents = await reporter.report(index, timestep, latents, options.preview?.(step.predOriginalSample))
  }
  // The callback of the last step may have painted over the known region.
  return options.afterStep?.(latents, timesteps.length - 1) ?? latents
}

function predictedNoise(
  output: Tensor,
  channels: number,
  guidanceScale: number | undefined,
  scheduler: Scheduler,
): Tensor {
  const all = output.shape[1]!
  if (all !== channels && all !== 2 * channels)
    throw new KandinskyError(
      'UNSUPPORTED_MODEL',
      `Expected a UNet with ${channels} or ${2 * channels} output channels but this one has ${all}`,
    )
  const [noise, variance] = splitChannels(output, channels)
  const guidedNoise = guidanceScale === undefined ? noise : guide(noise, guidanceScale)
  if (all === channels || !scheduler.learnsVariance) return guidedNoise
  const rows = guidedNoise.shape[0]!
  return concatChannels([guidedNoise, sliceRows(variance, variance.shape[0]! - rows, variance.shape[0]!)])
}

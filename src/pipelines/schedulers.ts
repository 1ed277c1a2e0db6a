// The schedulers as the package exports them: the pure classes, able to read their config from a checkpoint.
import { openCheckpoint } from '../checkpoint/open.js'
import { resolveSource } from '../hub/resolve.js'
import { DDIMScheduler as DDIM } from '../schedulers/ddim.js'
import { DDPMScheduler as DDPM } from '../schedulers/ddpm.js'
import { DPMSolverMultistepScheduler as DPMSolverMultistep } from '../schedulers/dpmsolver-multistep.js'
import { EulerDiscreteScheduler as EulerDiscrete } from '../schedulers/euler.js'
import { EulerAncestralDiscreteScheduler as EulerAncestralDiscrete } from '../schedulers/euler-ancestral.js'
import { FlowMatchEulerDiscreteScheduler as FlowMatchEuler } from '../schedulers/flow-match-euler.js'
import { HeunDiscreteScheduler as HeunDiscrete } from '../schedulers/heun.js'
import {
  Kandinsky3Scheduler as Kandinsky3,
  Kandinsky3FlashScheduler as Kandinsky3Flash,
} from '../schedulers/kandinsky3.js'
import { LCMScheduler as LCM } from '../schedulers/lcm.js'
import { PNDMScheduler as PNDM } from '../schedulers/pndm.js'
import type { Scheduler } from '../schedulers/scheduler.js'
import { UnCLIPScheduler as UnCLIP } from '../schedulers/unclip.js'
import { UniPCMultistepScheduler as UniPCMultistep } from '../schedulers/unipc-multistep.js'
import { type PretrainedOptions, schedulerConfig } from './loading/parts.js'

type SchedulerSource = Pick<PretrainedOptions, 'subfolder' | 'cacheDir' | 'revision' | 'token' | 'signal'>

function withFromPretrained<Class extends { fromConfig(config: object): Scheduler }>(schedulerClass: Class) {
  return Object.assign(schedulerClass, {
    /**
     * The scheduler with what applies of the settings that a checkpoint stores for its own, of whatever class.
     * @param source as for pipelines
     * @param options.subfolder folder of the scheduler_config.json, default `scheduler`
     */
    async fromPretrained(source: string, options: SchedulerSource = {}): Promise<ReturnType<Class['fromConfig']>> {
      const { subfolder = 'scheduler', ...rest } = options
      const { path } = await resolveSource(source, rest)
      const config = await schedulerConfig(await openCheckpoint(path), subfolder)
      return schedulerClass.fromConfig(config) as ReturnType<Class['fromConfig']>
    },
  })
}

/** Song et al., "Denoising Diffusion Implicit Models", 2020. */
export const DDIMScheduler = withFromPretrained(DDIM)
/** An object of the class of this name. */
export type DDIMScheduler = DDIM
/** Ho et al., "Denoising Diffusion Probabilistic Models", 2020. */
export const DDPMScheduler = withFromPretrained(DDPM)
/** An object of the class of this name. */
export type DDPMScheduler = DDPM
/** the priors' own: Ramesh et al., "Hierarchical Text-Conditional Image Generation with CLIP Latents", 2022. */
export const UnCLIPScheduler = withFromPretrained(UnCLIP)
/** An object of the class of this name. */
export type UnCLIPScheduler = UnCLIP
/** Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, algorithm 2 without its second order. */
export const EulerDiscreteScheduler = withFromPretrained(EulerDiscrete)
/** An object of the class of this name. */
export type EulerDiscreteScheduler = EulerDiscrete
/** Euler steps that add noise anew (k-diffusion). */
export const EulerAncestralDiscreteScheduler = withFromPretrained(EulerAncestralDiscrete)
/** An object of the class of this name. */
export type EulerAncestralDiscreteScheduler = EulerAncestralDiscrete
/** Lu et al., "DPM-Solver++", 2022. */
export const DPMSolverMultistepScheduler = withFromPretrained(DPMSolverMultistep)
/** An object of the class of this name. */
export type DPMSolverMultistepScheduler = DPMSolverMultistep
/** Zhao et al., "UniPC", 2023. */
export const UniPCMultistepScheduler = withFromPretrained(UniPCMultistep)
/** An object of the class of this name. */
export type UniPCMultistepScheduler = UniPCMultistep
/** Karras et al., 2022, algorithm 1; two model calls a step. */
export const HeunDiscreteScheduler = withFromPretrained(HeunDiscrete)
/** An object of the class of this name. */
export type HeunDiscreteScheduler = HeunDiscrete
/** Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", 2022. */
export const PNDMScheduler = withFromPretrained(PNDM)
/** An object of the class of this name. */
export type PNDMScheduler = PNDM
/** Luo et al., "Latent Consistency Models", 2023, for networks distilled for it. */
export const LCMScheduler = withFromPretrained(LCM)
/** An object of the class of this name. */
export type LCMScheduler = LCM
/** Euler steps along a flow: Esser et al., 2024; Kandinsky 5's. */
export const FlowMatchEulerDiscreteScheduler = withFromPretrained(FlowMatchEuler)
/** An object of the class of this name. */
export type FlowMatchEulerDiscreteScheduler = FlowMatchEuler
/** What the authors of Kandinsky 3 sample with: DDPM over every n-th timestep, with dynamic thresholding. */
export const Kandinsky3Scheduler = withFromPretrained(Kandinsky3)
/** An object of the class of this name. */
export type Kandinsky3Scheduler = Kandinsky3
/** For Kandinsky 3.1 Flash: a clean sample at each of four steps. */
export const Kandinsky3FlashScheduler = withFromPretrained(Kandinsky3Flash)
/** An object of the class of this name. */
export type Kandinsky3FlashScheduler = Kandinsky3Flash

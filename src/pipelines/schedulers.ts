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

export const DDIMScheduler = withFromPretrained(DDIM)
export type DDIMScheduler = DDIM
export const DDPMScheduler = withFromPretrained(DDPM)
export type DDPMScheduler = DDPM
export const UnCLIPScheduler = withFromPretrained(UnCLIP)
export type UnCLIPScheduler = UnCLIP
export const EulerDiscreteScheduler = withFromPretrained(EulerDiscrete)
export type EulerDiscreteScheduler = EulerDiscrete
export const EulerAncestralDiscreteScheduler = withFromPretrained(EulerAncestralDiscrete)
export type EulerAncestralDiscreteScheduler = EulerAncestralDiscrete
export const DPMSolverMultistepScheduler = withFromPretrained(DPMSolverMultistep)
export type DPMSolverMultistepScheduler = DPMSolverMultistep
export const UniPCMultistepScheduler = withFromPretrained(UniPCMultistep)
export type UniPCMultistepScheduler = UniPCMultistep
export const HeunDiscreteScheduler = withFromPretrained(HeunDiscrete)
export type HeunDiscreteScheduler = HeunDiscrete
export const PNDMScheduler = withFromPretrained(PNDM)
export type PNDMScheduler = PNDM
export const LCMScheduler = withFromPretrained(LCM)
export type LCMScheduler = LCM
export const FlowMatchEulerDiscreteScheduler = withFromPretrained(FlowMatchEuler)
export type FlowMatchEulerDiscreteScheduler = FlowMatchEuler

// The schedulers as the package exports them: the pure classes, able to read their config from a checkpoint.
import { openCheckpoint } from '../checkpoint.js'
import { resolveSource } from '../hub.js'
import { DDIMScheduler as DDIM } from '../schedulers/ddim.js'
import { DDPMScheduler as DDPM } from '../schedulers/ddpm.js'
import type { Scheduler } from '../schedulers/scheduler.js'
import { UnCLIPScheduler as UnCLIP } from '../schedulers/unclip.js'
import { loadScheduler, type PretrainedOptions } from './load.js'

type SchedulerSource = Pick<PretrainedOptions, 'subfolder' | 'cacheDir' | 'revision' | 'token' | 'signal'>

function withFromPretrained<Class extends { fromConfig(config: object): Scheduler }>(schedulerClass: Class) {
  return Object.assign(schedulerClass, {
    /**
     * The scheduler with the settings that a checkpoint stores for it.
     * @param source as for pipelines
     * @param options.subfolder folder of the scheduler_config.json, default `scheduler`
     */
    async fromPretrained(source: string, options: SchedulerSource = {}): Promise<ReturnType<Class['fromConfig']>> {
      const { subfolder = 'scheduler', ...rest } = options
      const { path } = await resolveSource(source, rest)
      const stored = await loadScheduler(await openCheckpoint(path), subfolder)
      return schedulerClass.fromConfig(stored.config) as ReturnType<Class['fromConfig']>
    },
  })
}

export const DDIMScheduler = withFromPretrained(DDIM)
export type DDIMScheduler = DDIM
export const DDPMScheduler = withFromPretrained(DDPM)
export type DDPMScheduler = DDPM
export const UnCLIPScheduler = withFromPretrained(UnCLIP)
export type UnCLIPScheduler = UnCLIP

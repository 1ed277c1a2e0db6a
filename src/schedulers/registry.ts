// The only list of schedulers and of their short names.
import { invalid } from '../errors.js'
import { DDIMScheduler } from './ddim.js'
import { DDPMScheduler } from './ddpm.js'
import { DPMSolverMultistepScheduler } from './dpmsolver-multistep.js'
import { EulerDiscreteScheduler } from './euler.js'
import { EulerAncestralDiscreteScheduler } from './euler-ancestral.js'
import { FlowMatchEulerDiscreteScheduler } from './flow-match-euler.js'
import { HeunDiscreteScheduler } from './heun.js'
import { Kandinsky3FlashScheduler, Kandinsky3Scheduler } from './kandinsky3.js'
import { LCMScheduler } from './lcm.js'
import { PNDMScheduler } from './pndm.js'
import type { Scheduler } from './scheduler.js'
import { UnCLIPScheduler } from './unclip.js'
import { UniPCMultistepScheduler } from './unipc-multistep.js'

interface SchedulerClass {
  readonly name: string
  fromConfig(config: object): Scheduler
}

/** Each class with what people type for it; messages list the first name. */
const schedulers: readonly (readonly [SchedulerClass, string, ...string[]])[] = [
  [DDIMScheduler, 'ddim'],
  [DDPMScheduler, 'ddpm'],
  [UnCLIPScheduler, 'unclip'],
  [EulerDiscreteScheduler, 'euler'],
  [EulerAncestralDiscreteScheduler, 'euler_a', 'eulerancestral'],
  [DPMSolverMultistepScheduler, 'dpm++', 'dpmpp_2m', 'dpmsolver++'],
  [UniPCMultistepScheduler, 'unipc'],
  [HeunDiscreteScheduler, 'heun'],
  [PNDMScheduler, 'pndm'],
  [LCMScheduler, 'lcm'],
  [FlowMatchEulerDiscreteScheduler, 'flow_match'],
  [Kandinsky3Scheduler, 'kandinsky3'],
  [Kandinsky3FlashScheduler, 'kandinsky3_flash'],
]

/** Class names of all schedulers, diffusers' where it has them. */
export const schedulerNames: readonly string[] = Object.freeze(schedulers.map(([{ name }]) => name))

/** The short name of each. */
export const schedulerShortNames: readonly string[] = Object.freeze(schedulers.map(([, shortName]) => shortName))

/**
 * The scheduler that a `scheduler_config.json` describes.
 *
 * @throws KandinskyError `INVALID_ARGUMENT` for an unknown `_class_name` or a value that its class does not know
 */
export function schedulerFromConfig(config: object): Scheduler {
  const name = (config as { _class_name?: unknown } | null)?._class_name
  const found = schedulers.find(([schedulerClass]) => schedulerClass.name === name)
  if (found === undefined)
    throw invalid('_class_name of the scheduler config', `one of ${schedulerNames.join(', ')}`, name)
  return found[0].fromConfig(config)
}

/**
 * The scheduler of that name with what applies of another one's config.
 *
 * @param name in upper or lower case a class name, with or without "Scheduler", or a short name:
 *   `EulerAncestralDiscreteScheduler`, `EulerAncestralDiscrete`, `euler_a`
 * @throws KandinskyError `INVALID_ARGUMENT`
 */
export function schedulerByName(name: string, config: object): Scheduler {
  const wanted = name.toLowerCase()
  const found = schedulers.find(([schedulerClass, ...shortNames]) => {
    const className = schedulerClass.name.toLowerCase()
    return [className, className.replace(/scheduler$/, ''), ...shortNames].includes(wanted)
  })
  if (found === undefined) throw invalid('scheduler', schedulerShortNames.join(', '), name)
  return found[0].fromConfig(config)
}

// The only list of schedulers.
import { invalid } from '../errors.js'
import { DDIMScheduler } from './ddim.js'
import { DDPMScheduler } from './ddpm.js'
import type { Scheduler } from './scheduler.js'
import { UnCLIPScheduler } from './unclip.js'

const classes: Readonly<Record<string, { fromConfig(config: object): Scheduler }>> = {
  DDIMScheduler,
  DDPMScheduler,
  UnCLIPScheduler,
}

/** diffusers' class names of all schedulers. */
export const schedulerNames: readonly string[] = Object.freeze(Object.keys(classes))

/**
 * The scheduler that a `scheduler_config.json` describes.
 *
 * @throws KandinskyError `INVALID_ARGUMENT` for an unknown `_class_name` or a value that its class does not know
 */
export function schedulerFromConfig(config: object): Scheduler {
  const name = (config as { _class_name?: unknown } | null)?._class_name
  if (typeof name !== 'string' || !Object.hasOwn(classes, name))
    throw invalid('_class_name of the scheduler config', `one of ${schedulerNames.join(', ')}`, name)
  return classes[name]!.fromConfig(config)
}

/**
 * The scheduler of that name with what applies of another one's config.
 *
 * @param name a class name, or its short form as people type it: `DDIMScheduler` or `ddim`
 * @throws KandinskyError `INVALID_ARGUMENT`
 */
export function schedulerByName(name: string, config: object): Scheduler {
  const className = schedulerNames.find((known) => known === name || shortName(known) === name.toLowerCase())
  if (className === undefined) throw invalid('scheduler', schedulerNames.map(shortName).join(', '), name)
  return classes[className]!.fromConfig(config)
}

function shortName(className: string): string {
  return className.replace(/Scheduler$/, '').toLowerCase()
}

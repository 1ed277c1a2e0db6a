// A pipeline that samples: it has a scheduler, which can be swapped.

import type { Scheduler } from '../../schedulers/scheduler.js'
import { expectScheduler } from '../loading/parts.js'
import { Pipeline } from '../loading/pipeline.js'

export abstract class SamplingPipeline<Components extends { scheduler: Scheduler }> extends Pipeline<Components> {
  #scheduler: Scheduler

  constructor(components: Components) {
    super(components)
    this.#scheduler = expectScheduler(components.scheduler)
  }

  /** Each call works on a clone of it. @throws KandinskyError `INVALID_ARGUMENT` when set to anything else */
  get scheduler(): Scheduler {
    return this.#scheduler
  }
  set scheduler(scheduler: Scheduler) {
    this.#scheduler = expectScheduler(scheduler)
  }
}

// Picks the pipeline that fits a task and a checkpoint, as diffusers' AutoPipeline does (pipelines/auto_pipeline.py).

import { networkOptionNames } from '../networks/network.js'
import { expectOneOf, expectOptions } from './call/options.js'
import { classFor, families, type PromptPipeline, type Task, type TaskOptions } from './families.js'
import type { CombinedPretrainedOptions } from './kandinsky2/combined.js'
import { openSource, sourceOptionNames } from './loading/open.js'
import { checkPretrainedOptions } from './loading/parts.js'

export interface AutoPretrainedOptions<Name extends Task> extends CombinedPretrainedOptions {
  /** what the pipeline shall do; `taskFor` tells it from the inputs. Default `text-to-image` */
  task?: Name | undefined
}

/** Of all families; a pipeline refuses those that are not its own once it is known which one it is. */
const optionNames = [...sourceOptionNames, ...networkOptionNames, 'scheduler', 'offload', 'unet', 'prior', 'task']

/** Whatever family the checkpoint belongs to, whatever the task. */
export const AutoPipeline = {
  /**
   * @param source a checkpoint; for families with a prior a decoder, or one file or folder that holds both
   * @throws KandinskyError `UNSUPPORTED_MODEL` if no pipeline of this package fits the task and the checkpoint, and those
   *   of the pipeline's own `fromPretrained`
   */
  async fromPretrained<Name extends Task = 'text-to-image'>(
    source: string,
    options: AutoPretrainedOptions<Name> = {},
  ): Promise<PromptPipeline<TaskOptions[Name]>> {
    expectOptions(options, optionNames)
    const { task = 'text-to-image', ...rest } = options
    const tasks = [...new Set(families.flatMap((family) => Object.keys(family.tasks)))] as Task[]
    expectOneOf('task', task, tasks)
    checkPretrainedOptions(rest)
    const checkpoint = await openSource(source, rest)
    const Class = await classFor(task as Name, checkpoint)
    return Class.fromCheckpoint(checkpoint, rest)
  },
}

function forTask<Name extends Task>(task: Name) {
  return {
    /** `AutoPipeline.fromPretrained` for this task */
    fromPretrained(
      source: string,
      options: CombinedPretrainedOptions = {},
    ): Promise<PromptPipeline<TaskOptions[Name]>> {
      return AutoPipeline.fromPretrained(source, { ...options, task })
    },
  }
}

/** Text to picture with whatever family the checkpoint belongs to. */
export const AutoPipelineForText2Image = forTask('text-to-image')

/** Text and picture to picture with whatever family the checkpoint belongs to. */
export const AutoPipelineForImage2Image = forTask('image-to-image')

/** Repaints part of a picture with whatever family the checkpoint belongs to. */
export const AutoPipelineForInpainting = forTask('inpainting')

// The pipelines that a worker process can run, and what of them: the names are those of the package itself.
import {
  AutoPipeline,
  AutoPipelineForImage2Image,
  AutoPipelineForInpainting,
  AutoPipelineForText2Image,
  type AutoPretrainedOptions,
} from '../pipelines/auto.js'
import { DepthEstimator } from '../pipelines/depth-estimator.js'
import type { PromptPipeline, Task, TaskOptions } from '../pipelines/families.js'
import * as kandinsky2 from '../pipelines/kandinsky2/index.js'
import * as kandinsky3 from '../pipelines/kandinsky3/index.js'
import * as kandinsky5 from '../pipelines/kandinsky5/index.js'

const { makeHint: _, ...kandinsky2Classes } = kandinsky2

export const pipelineClasses = {
  AutoPipeline,
  AutoPipelineForText2Image,
  AutoPipelineForImage2Image,
  AutoPipelineForInpainting,
  DepthEstimator,
  ...kandinsky2Classes,
  ...kandinsky3,
  ...kandinsky5,
}
export type PipelineName = keyof typeof pipelineClasses
export const pipelineNames = Object.keys(pipelineClasses) as PipelineName[]

/** What they change of a pipeline is to be there again where it is loaded again. */
export const loraMethods = [
  'loadLoraWeights',
  'setAdapters',
  'deleteAdapters',
  'fuseLora',
  'unfuseLora',
  'unloadLoraWeights',
] as const

/** `stream` is made of `generate` on the program's side. */
export const remoteMethods = [
  'generate',
  'interpolate',
  'encodeImage',
  'encodePrompt',
  'zeroImageEmbeds',
  'estimate',
  ...loraMethods,
  'dispose',
] as const

/** A pipeline that runs in a worker process: the same calls. Its parts (`scheduler`, `components`) are not at hand. */
export type RemotePipeline<Pipeline> = {
  [Name in keyof Pipeline as Name extends (typeof remoteMethods)[number] | 'stream' ? Name : never]: Pipeline[Name]
} & AsyncDisposable

type OptionsOf<Load> = Load extends (source: string, options?: infer Options) => unknown ? Options : never

/** `fromPretrained` of each class, with the class's own options. */
export type RemoteClasses = {
  [Name in Exclude<PipelineName, 'AutoPipeline'>]: (typeof pipelineClasses)[Name] extends new (
    ...args: never[]
  ) => infer Pipeline
    ? {
        fromPretrained(
          source: string,
          options?: OptionsOf<(typeof pipelineClasses)[Name]['fromPretrained']>,
        ): Promise<RemotePipeline<Pipeline>>
      }
    : (typeof pipelineClasses)[Name] extends {
          fromPretrained(source: string, options?: infer Options): Promise<infer Pipeline>
        }
      ? { fromPretrained(source: string, options?: Options): Promise<RemotePipeline<Pipeline>> }
      : never
} & {
  AutoPipeline: {
    fromPretrained<Name extends Task = 'text-to-image'>(
      source: string,
      options?: AutoPretrainedOptions<Name>,
    ): Promise<RemotePipeline<PromptPipeline<TaskOptions[Name]>>>
  }
}

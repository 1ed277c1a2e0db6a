// Text to CLIP image embedding with the Kandinsky 2.1 prior, after diffusers' pipeline_kandinsky_prior.py.
import { type PriorJob, type PriorOptions, PriorPipeline } from './prior.js'

/** Text to image embedding, after diffusers' KandinskyPriorPipeline (unCLIP: Ramesh et al., 2022). */
export class KandinskyPriorPipeline extends PriorPipeline<PriorOptions> {
  check(options: PriorOptions): PriorJob {
    return this.checkText(options)
  }
}

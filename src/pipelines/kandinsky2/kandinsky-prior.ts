// Text to CLIP image embedding with the Kandinsky 2.1 prior, after diffusers' pipeline_kandinsky_prior.py.

import { streamCall } from '../call/progress.js'
import { type PriorOptions, PriorPipeline, type PriorResult } from './prior.js'

export class KandinskyPriorPipeline extends PriorPipeline {
  /**
   * Image embeddings for prompts.
   *
   * Rows are ordered prompt by prompt; all noise is drawn from `generator` in diffusers' order.
   * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH` before anything is computed
   */
  generate(options: PriorOptions): Promise<PriorResult> {
    return this.embedText(options)
  }

  /** `generate` as an async iterable of steps that ends with one `{ type: 'result', ... }` event. */
  stream(options: PriorOptions) {
    return streamCall((withEvents: PriorOptions) => this.generate(withEvents), options)
  }

  /** Checks the options of `generate` and resolves its defaults. */
  check(options: PriorOptions) {
    return this.checkText(options)
  }
}

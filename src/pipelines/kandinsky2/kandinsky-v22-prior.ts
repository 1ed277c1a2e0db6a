// Text to CLIP image embedding with the Kandinsky 2.2 prior, after diffusers' pipeline_kandinsky2_2_prior.py.
import { KandinskyPriorPipeline } from './kandinsky-prior.js'

/** The prior of 2.1 with a larger CLIP, which its config tells. */
export class KandinskyV22PriorPipeline extends KandinskyPriorPipeline {}

// Ancestral Euler: an Euler step beyond the next sigma, and fresh noise that leads back to it. The reference is
// diffusers' scheduling_euler_ancestral_discrete.py, after k-diffusion.
//
// Easy to get wrong: the last step draws noise too, though none is added; leaving the draw out would shift every later
// draw of the generator.
import { Tensor } from '../tensor.js'
import { betaFields } from './betas.js'
import { type ConfigOf, oneOf } from './config.js'
import { addNoiseTerm } from './posterior.js'
import { splitModelOutput } from './prediction.js'
import { fromConfigOf, type Scheduler, type StepOptions, type StepOutput, sqrt32 } from './scheduler.js'
import { follow, KarrasScheduler, slopeOf } from './sigma-scheduler.js'
import { sigmaAt } from './sigmas.js'
import { fractionalTimesteps, linspaceFields } from './timesteps.js'

const FIELDS = {
  ...betaFields,
  beta_schedule: oneOf('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2']),
  prediction_type: oneOf('epsilon', ['epsilon', 'v_prediction']),
  ...linspaceFields,
}

export type EulerAncestralDiscreteSchedulerConfig = ConfigOf<typeof FIELDS>

export class EulerAncestralDiscreteScheduler
  extends KarrasScheduler<EulerAncestralDiscreteSchedulerConfig>
  implements Scheduler
{
  static readonly fields = FIELDS
  static readonly fromConfig = fromConfigOf<EulerAncestralDiscreteScheduler, EulerAncestralDiscreteSchedulerConfig>(
    () => EulerAncestralDiscreteScheduler,
  )

  setTimesteps(numInferenceSteps: number): void {
    const timesteps = fractionalTimesteps(this.config, numInferenceSteps)
    this.sigmas = Float32Array.of(...timesteps.map((timestep) => sigmaAt(timestep, this.trainSigmas)), 0)
    this.timesteps = timesteps
  }

  step(modelOutput: Tensor, timestep: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const index = this.beginStep(timestep, options)
    const { prediction } = splitModelOutput(modelOutput, sample, this.learnsVariance)
    const [sigma, sigmaNext] = [this.sigmas[index]!, this.sigmas[index + 1]!]
    const original = this.predictOriginal(prediction, sample.data, sigma)
    const [variance, varianceNext] = [Math.fround(sigma * sigma), Math.fround(sigmaNext * sigmaNext)]
    const sigmaUp = sqrt32(Math.fround(Math.fround(varianceNext * Math.fround(variance - varianceNext)) / variance))
    const sigmaDown = sqrt32(Math.max(Math.fround(varianceNext - Math.fround(sigmaUp * sigmaUp)), 0))
    const prevSample = follow(sample.data, slopeOf(sample.data, original, sigma), sigmaDown - sigma)
    addNoiseTerm(prevSample, sigmaUp, sample.shape, options)
    this.advance(index)
    return {
      prevSample: new Tensor(prevSample, sample.shape),
      predOriginalSample: new Tensor(original, sample.shape),
    }
  }
}

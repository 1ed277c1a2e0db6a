// Text and image to CLIP image embedding, after diffusers' pipeline_kandinsky2_2_prior_emb2emb.py: the prior starts
// from the image's embedding with noise instead of from noise.
//
// Easy to get wrong: the embedding is noised as it is, although the prior works on embeddings normalised by its
// clip_mean and clip_std; one image serves several prompts by tiling, so that prompts and their negatives share it.
import type { ImageInput } from '../../images/image.js'
import { countImages, resolveImages } from '../../images/processing.js'
import { randnTensor } from '../../random.js'
import { concatRows, repeatRows, Tensor, tileRows } from '../../tensor.js'
import { expectOneOrEach, expectOptions, expectTensor } from '../call/options.js'
import { startAt } from '../sampling/start.js'
import {
  type PriorCall,
  type PriorCallOptions,
  type PriorJob,
  type PriorOptions,
  PriorPipeline,
  priorCallOptionNames,
} from './prior.js'

/** A call of a prior that begins at the embedding of a picture. */
export interface PriorEmb2EmbOptions extends PriorCallOptions {
  /**
   * Where to start: a picture, preprocessed pixels [n, 3, size, size] or embeddings [n, embeddingDim], or an array of
   * these; one for all prompts, or one per prompt
   */
  image: ImageInput | Tensor | readonly (ImageInput | Tensor)[]
  /** how far to go from the image, 0 to 1: the share of the steps that run; default 0.3 */
  strength?: number | undefined
}

/** Text and a picture to an image embedding between both, after diffusers' KandinskyV22PriorEmb2EmbPipeline. */
export class KandinskyV22PriorEmb2EmbPipeline extends PriorPipeline<PriorEmb2EmbOptions> {
  async check(options: PriorEmb2EmbOptions): Promise<PriorJob> {
    expectOptions(options, [...priorCallOptionNames, 'image', 'strength'])
    const call = this.checkCall(options)
    const { scheduler, steps, generator } = call
    const index = startAt(steps, options.strength ?? 0.3, scheduler)
    const images = await this.#resolve(options.image, call)
    const timesteps = scheduler.timesteps.slice(index)
    scheduler.setBeginIndex(index)
    const begin = async () => {
      const embeds = await this.#embed(images, call)
      const noise = randnTensor(embeds.shape, generator)
      return { timesteps, latents: scheduler.addNoise(embeds, noise, [timesteps[0]!]) }
    }
    return { ...call, begin }
  }

  /**
   * As `KandinskyV22PriorPipeline.interpolate`, which makes real negative embeddings. Here, without a `negativePrompt`
   * they are noise from the generator, as in the reference; pass `''` for those of an all-zero image.
   */
  protected override async negativeEmbeds(
    negativePrompt: string | undefined,
    call: Omit<PriorOptions, 'prompt'>,
    shape: readonly number[],
  ): Promise<Tensor> {
    if (negativePrompt === undefined) return randnTensor(shape, call.generator!)
    return super.negativeEmbeds(negativePrompt, call, shape)
  }

  /** Pictures loaded and counted, tensors checked: what can be wrong shows before a network runs. */
  async #resolve(image: PriorEmb2EmbOptions['image'], { prompts, signal }: PriorCall) {
    const list = Array.isArray(image) ? (image as readonly (ImageInput | Tensor)[]) : [image as ImageInput | Tensor]
    const tensors = list.filter((item) => item instanceof Tensor)
    for (const tensor of tensors)
      if (tensor.shape.length === 2) expectTensor('image', tensor, [null, this.dimensions])
      else expectTensor('image', tensor, [null, 3, null, null])
    const images = await resolveImages(list, { signal, tensorShape: (shape) => shape })
    expectOneOrEach('image', countImages(images), 'prompt', prompts.length)
    return images
  }

  /** One embedding per row of the run. */
  async #embed(images: Awaited<ReturnType<typeof resolveImages>>, { count, rows, signal }: PriorCall): Promise<Tensor> {
    const embeds: Tensor[] = []
    for (const image of images)
      embeds.push(image instanceof Tensor && image.shape.length === 2 ? image : await this.encodeImage(image, signal))
    const perImage = repeatRows(concatRows(embeds), count)
    return tileRows(perImage, rows / perImage.shape[0]!)
  }
}

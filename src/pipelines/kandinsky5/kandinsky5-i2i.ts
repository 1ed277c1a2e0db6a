// Prompt and picture to picture with Kandinsky 5 Image, after diffusers' pipeline_kandinsky_i2i.py.
//
// Easy to get wrong:
// - Nothing starts from the picture, and there is no strength: all steps run from noise. The transformer sees the picture's
//   latents behind its own, and a channel of ones; both prompts are read with it in sight.
// - Two draws from one generator: the noise, channels last, then the one that the picture's latents are sampled with.
import { invalid } from '../../errors.js'
import type { ImageInput, RawImage } from '../../images/image.js'
import { preprocessImage, resolveImages } from '../../images/processing.js'
import { qwenPreprocess } from '../../images/processing-qwen.js'
import { Tensor, tileRows } from '../../tensor.js'
import { expectOneOrEach, expectOptions, expectTensor } from '../call/options.js'
import { hashesOf } from '../call/provenance.js'
import { sampleLatents } from '../sampling/autoencoder.js'
import { type CheckedCall, type DecodingOptions, decodingOptionNames } from '../sampling/decoding.js'
import { isGuided } from '../sampling/guidance.js'
import { noiseStart } from '../sampling/noise-start.js'
import {
  channelsBeside,
  channelsLast,
  channelsOf,
  Kandinsky5Base,
  type Kandinsky5Job,
  type Kandinsky5Start,
  kandinsky5Parts,
  scalingFactor,
} from './pipeline.js'
import {
  type CheckedPrompts,
  checkPrompts,
  type EncodedPrompts,
  type PromptOptions,
  promptOptionNames,
  readsTexts,
  type TextOptions,
  textOptionNames,
  tokensForPicture,
} from './prompts.js'

export interface EditOption {
  /** the picture to change, or one for each prompt */
  image: ImageInput | readonly ImageInput[]
}

/**
 * `height` and `width` are by default those of the first picture and become those of `resolutions` whose ratio is nearest;
 * the picture is stretched to them. `numInferenceSteps` is 50, `guidanceScale` 3.5, `maxSequenceLength` 1024, which counts
 * the picture's tokens, too. `latents`: [n, 1, height / 8, width / 8, 2 * channels + 1], noise, the picture's latents and
 * ones.
 */
export interface Kandinsky5I2IOptions extends DecodingOptions, PromptOptions, EditOption {
  latents?: Tensor | undefined
}

const MAX_LENGTH = 1024

/** Changes a picture as a text says with Kandinsky 5 Image, after diffusers' Kandinsky5I2IPipeline. */
export class Kandinsky5I2IPipeline extends Kandinsky5Base<Kandinsky5I2IOptions> {
  static readonly parts = kandinsky5Parts('image-to-image', true)
  readonly optionNames = [...promptOptionNames, ...decodingOptionNames, 'image', 'latents']

  async check(options: Kandinsky5I2IOptions): Promise<Kandinsky5Job> {
    const prompts = checkPrompts(options, this.textWidths, MAX_LENGTH)
    const pictures = await this.#pictures(options, prompts)
    const call = this.checkCall(options, prompts.count, { height: pictures[0]!.height, width: pictures[0]!.width })
    const seen = this.#seen(prompts, pictures, isGuided(call.guidanceScale))
    const { latents } = options
    const begin = latents === undefined ? () => this.#begin(call, pictures) : this.#givenStart(call, latents)
    return { ...call, prompts: seen, begin, inputs: { image: hashesOf(pictures) } }
  }

  /**
   * Prompts with the picture in sight as `generate` takes them in place of texts; it still needs the picture.
   * @throws KandinskyError `INVALID_ARGUMENT`, and those of `loadImage`
   */
  async encodePrompt(
    options: TextOptions & EditOption & { signal?: AbortSignal | undefined },
  ): Promise<EncodedPrompts> {
    expectOptions(options, [...textOptionNames, 'image', 'signal'])
    const prompts = checkPrompts(options, this.textWidths, MAX_LENGTH)
    return this.encode(this.#seen(prompts, await this.#pictures(options, prompts), true), options.signal)
  }

  async #pictures(
    options: EditOption & { signal?: AbortSignal | undefined },
    { count }: CheckedPrompts,
  ): Promise<RawImage[]> {
    const pictures = (await resolveImages(options.image, { signal: options.signal })).map((image) => {
      if (image instanceof Tensor)
        throw invalid('image', 'a picture (path, URL, bytes, sharp object or RawImage)', image)
      return image
    })
    expectOneOrEach('image', pictures.length, 'prompt', count)
    return pictures
  }

  /** With the pictures as Qwen sees them, where it has to read at all. */
  #seen(prompts: CheckedPrompts, pictures: RawImage[], guided: boolean): CheckedPrompts {
    if (!readsTexts(prompts, guided)) return prompts
    const { tokenizer, textEncoder, processor = {} } = this.components
    const { config } = textEncoder
    const sizes = {
      patch: Number(config['vision_config.patch_size'] ?? 14),
      merge: Number(config['vision_config.spatial_merge_size'] ?? 2),
      frames: Number(config['vision_config.temporal_patch_size'] ?? 2),
    }
    const imageToken = Number(config.image_token_id ?? 151655)
    const most = tokensForPicture(tokenizer, prompts, imageToken, guided)
    return {
      ...prompts,
      seen: { imageToken, pictures: pictures.map((one) => qwenPreprocess(one, processor, sizes, most)) },
    }
  }

  async #begin(call: CheckedCall, pictures: RawImage[]): Promise<Kandinsky5Start> {
    const { vae } = this.components
    const { height, width, count, embeddings } = call
    const start = await noiseStart(call, {})()
    const sized = pictures.map((picture) => picture.resize(width, height, 'lanczos'))
    const samples = await Promise.all(sized.map((picture) => preprocessImage(picture, { height, width })))
    // With a generator for each picture, each has its own draw.
    const own = Array.isArray(call.generator) && call.generator.length > 1
    const all = own && samples.length < embeddings ? Array<Tensor>(embeddings).fill(samples[0]!) : samples
    const drawn = await sampleLatents(vae, all, { ...call, count })
    const latents = tileRows(drawn, (embeddings * count) / drawn.shape[0]!)
    const scale = scalingFactor(vae)
    const scaled = new Tensor(
      latents.data.map((value) => value * scale),
      latents.shape,
    )
    const last = channelsLast(scaled)
    const ones = new Tensor(new Float32Array(last.data.length / last.shape.at(-1)!).fill(1), [
      ...last.shape.slice(0, -1),
      1,
    ])
    return { ...start, condition: channelsBeside(last, ones) }
  }

  #givenStart(call: CheckedCall, latents: Tensor): () => Promise<Kandinsky5Start> {
    const channels = call.latentShape.at(-1)!
    const all = 2 * channels + 1
    const given = expectTensor('latents', latents, [...call.latentShape.slice(0, -1), all])
    const begin = noiseStart(call, { latents: channelsOf(given, 0, channels) })
    const condition = channelsOf(given, channels, all)
    return async () => ({ ...(await begin()), condition })
  }
}

// How the 2.1 decoders read their prompts: MultilingualCLIP's hidden states are conditioning tokens of the UNet, its
// pooled embedding is added to the time embedding (diffusers' KandinskyPipeline._encode_prompt).
//
// Easy to get wrong: rows are filled up to 77 tokens and the UNet attends to the padding, too.
import { invalid } from '../../errors.js'
import type { UNetConditioning } from '../../networks/calls.js'
import type { Network } from '../../networks/network.js'
import { repeatRows, type Tensor } from '../../tensor.js'
import { XlmRobertaTokenizer } from '../../tokenizers/xlm-roberta.js'
import { expectOneOrEach, expectPrompts } from '../call/options.js'
import { integers, warnTruncated } from '../call/prompts.js'
import { Recent } from '../call/recent.js'
import { loraRecipe } from '../loading/lora.js'
import { type ComponentsOf, network, tokenizer } from '../loading/parts.js'
import { isGuided } from '../sampling/guidance.js'
import { type DecoderJob, decoderParts } from './decoder.js'

export interface PromptOptions {
  /** one prompt for all embeddings, or one per embedding */
  prompt: string | string[]
  /** what the picture should not show; as many as prompts, default `''`. Not read where guidance is off */
  negativePrompt?: string | string[] | undefined
}

export const promptOptionNames = ['prompt', 'negativePrompt']

/** The parts of a decoder that reads prompts: `decoderParts` for 2.1. */
export function textDecoderParts(purpose: string, inChannels: number) {
  return {
    ...decoderParts(purpose, { addition_embed_type: 'text_image', in_channels: inChannels }),
    textEncoder: network('MultilingualCLIP'),
    tokenizer: tokenizer(XlmRobertaTokenizer),
  }
}
export type TextDecoderComponents = ComponentsOf<ReturnType<typeof textDecoderParts>>

/** Pipelines of one checkpoint share its text encoder, and what it read last. */
const readings = new WeakMap<Network, Recent<{ text_embeds: Tensor; last_hidden_state: Tensor }>>()

/**
 * The job with its prompts, which are encoded before anything else.
 * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH` for other numbers of prompts
 */
export function withPrompts(
  { textEncoder, tokenizer }: TextDecoderComponents,
  { prompt, negativePrompt }: PromptOptions,
  job: DecoderJob,
): DecoderJob {
  const prompts = expectPrompts('prompt', prompt)
  const negatives = negativePrompt === undefined ? undefined : expectPrompts('negativePrompt', negativePrompt)
  expectOneOrEach('prompt', prompts.length, 'embedding', job.embeddings)
  if (negatives && negatives.length !== prompts.length)
    throw invalid('negativePrompt', `as many negative prompts as prompts (${prompts.length})`, negativePrompt)

  const recent = readings.get(textEncoder) ?? new Recent()
  readings.set(textEncoder, recent)
  const encode = async (texts: string[], warn: boolean): Promise<UNetConditioning> => {
    const { text_embeds, last_hidden_state } = await recent.get([texts, loraRecipe([textEncoder])], () => {
      const { inputIds, attentionMask, truncated } = tokenizer.encode(texts)
      if (warn) warnTruncated('MultilingualCLIP', tokenizer, truncated)
      const inputs = { input_ids: integers(inputIds), attention_mask: integers(attentionMask) }
      return textEncoder.run('forward', inputs, { signal: job.signal })
    })
    const perPicture = (tensor: Tensor) => repeatRows(tensor, job.latentShape[0]! / texts.length)
    return { text_embeds: perPicture(text_embeds), encoder_hidden_states: perPicture(last_hidden_state) }
  }
  return {
    ...job,
    prompts: prompts.map((text, i) => ({ prompt: text, negativePrompt: negatives?.[i] })),
    begin: async () => {
      const conditioning = await encode(prompts, true)
      const uncond = negatives ?? prompts.map(() => '')
      const negativeConditioning = isGuided(job.guidanceScale) ? await encode(uncond, false) : {}
      return { ...(await job.begin()), conditioning, negativeConditioning }
    },
  }
}

// How Kandinsky 3 reads prompts, after diffusers' Kandinsky3Pipeline.encode_prompt: T5's states of 128 tokens, cut behind
// the longest prompt of the call.
//
// Easy to get wrong:
// - One token of padding stays behind the longest prompt; the states of all padding are zero, and masked.
// - Without a negative prompt the unconditional half is zeros, all of it masked. T5 does not run for it.
// - A negative prompt is cut to the prompts' length: what is beyond is lost.
// - With several prompts and several pictures of each the reference repeats states and masks in different orders, which
//   pairs masks with the wrong prompts. Here both follow the prompts.
import { invalid, KandinskyError } from '../../errors.js'
import type { Integers } from '../../networks/calls.js'
import type { Network } from '../../networks/network.js'
import { concatRows, repeatRows, Tensor } from '../../tensor.js'
import type { T5Tokenizer } from '../../tokenizers/t5.js'
import { expectPrompts, expectTensor } from '../call/options.js'
import { integers, warnTruncated } from '../call/prompts.js'

/** Texts of a Kandinsky 3 call, or their embeddings. */
export interface PromptOptions {
  /** one prompt or a batch; left out where `promptEmbeds` are given */
  prompt?: string | string[] | undefined
  /** what the picture should not show; as many as prompts. Not read where guidance is off */
  negativePrompt?: string | string[] | undefined
  /** T5's states [n, tokens, width] with `attentionMask`, e.g. from `encodePrompt`, instead of prompts */
  promptEmbeds?: Tensor | undefined
  /** [n, tokens], 1 for tokens of the prompt, 0 for nothing */
  attentionMask?: Tensor | undefined
  /** of the shape of `promptEmbeds`, with `negativeAttentionMask`; default: what `negativePrompt` says */
  negativePromptEmbeds?: Tensor | undefined
  negativeAttentionMask?: Tensor | undefined
}

export const promptOptionNames = Object.keys({
  prompt: true,
  negativePrompt: true,
  promptEmbeds: true,
  attentionMask: true,
  negativePromptEmbeds: true,
  negativeAttentionMask: true,
} satisfies Record<keyof PromptOptions, true>)

/** Prompts as the UNet takes them; `JSON.stringify` and `Tensor.from` take them to a file and back without loss. */
export interface EncodedPrompts {
  /** [n, tokens, width] */
  promptEmbeds: Tensor
  /** [n, tokens], 1 for tokens of a prompt */
  attentionMask: Tensor
  negativePromptEmbeds: Tensor
  negativeAttentionMask: Tensor
}

/** Texts and embeddings of a call, checked. */
export interface CheckedPrompts {
  prompts: string[] | undefined
  negatives: string[] | undefined
  given: { embeds: Tensor; mask: Tensor } | undefined
  negativeGiven: { embeds: Tensor; mask: Tensor } | undefined
  /** prompts, or rows of the embeddings */
  count: number
}

interface Encoder {
  tokenizer: T5Tokenizer
  textEncoder: Network<'T5EncoderModel'>
}

/** @param width of the text encoder's states */
export function checkPrompts(options: PromptOptions, width: number): CheckedPrompts {
  const { prompt, negativePrompt, promptEmbeds, attentionMask, negativePromptEmbeds, negativeAttentionMask } = options
  if (promptEmbeds === undefined && prompt === undefined) throw invalid('prompt', 'a string or promptEmbeds', prompt)
  if (promptEmbeds !== undefined && prompt !== undefined) throw invalid('prompt', 'nothing beside promptEmbeds', prompt)
  if (negativePromptEmbeds !== undefined && negativePrompt !== undefined)
    throw invalid('negativePrompt', 'nothing beside negativePromptEmbeds', negativePrompt)
  const prompts = prompt === undefined ? undefined : expectPrompts('prompt', prompt)
  const given = embeddingOf('promptEmbeds', promptEmbeds, 'attentionMask', attentionMask, [null, null, width])
  const count = prompts?.length ?? given!.embeds.shape[0]!
  const negatives = negativePrompt === undefined ? undefined : expectPrompts('negativePrompt', negativePrompt)
  if (negatives && negatives.length !== count)
    throw invalid('negativePrompt', `as many negative prompts as prompts (${count})`, negativePrompt)
  const negativeGiven = embeddingOf(
    ...(['negativePromptEmbeds', negativePromptEmbeds, 'negativeAttentionMask', negativeAttentionMask] as const),
    given ? given.embeds.shape : [count, null, width],
  )
  return { prompts, negatives, given, negativeGiven, count }
}

function embeddingOf(
  name: string,
  embeds: Tensor | undefined,
  maskName: string,
  mask: Tensor | undefined,
  shape: readonly (number | null)[],
) {
  if (embeds === undefined) {
    if (mask !== undefined) throw invalid(maskName, `nothing without ${name}`, mask)
    return undefined
  }
  const checked = expectTensor(name, embeds, shape)
  const flags = expectTensor(maskName, mask, checked.shape.slice(0, 2))
  if (!flags.data.every((value) => value === 0 || value === 1))
    throw new KandinskyError('INVALID_ARGUMENT', `Expected zeros and ones in ${maskName}`)
  return { embeds: checked, mask: flags }
}

/**
 * Runs the text encoder for what is not given, and frees it: with billions of parameters it must make room for the UNet.
 * @param guided whether the unconditional half is needed
 */
export async function encodePrompts(
  { tokenizer, textEncoder }: Encoder,
  { prompts, negatives, given, negativeGiven }: CheckedPrompts,
  guided: boolean,
  signal?: AbortSignal,
): Promise<EncodedPrompts> {
  const read = async (texts: string[], warn: boolean) => {
    const { inputIds, attentionMask, truncated } = tokenizer.encode(texts)
    if (warn) warnTruncated('T5', tokenizer, truncated)
    // Masked keys count nothing and states of padding are dropped: without the padding behind all texts T5 computes the
    // same for those that stay.
    const longest = longestOf(attentionMask)
    const [input_ids, attention_mask] = [inputIds, attentionMask].map((rows) =>
      integers(rows.map((row) => row.subarray(0, longest))),
    ) as [Integers, Integers]
    const { last_hidden_state } = await textEncoder.run('forward', { input_ids, attention_mask }, { signal })
    return { embeds: last_hidden_state, masks: attentionMask }
  }
  try {
    const positive = given ?? cut(await read(prompts!, true))
    const tokens = positive.embeds.shape[1]!
    const negative =
      negativeGiven ?? (guided && negatives ? cut(await read(negatives, false), tokens) : zerosLike(positive))
    return {
      promptEmbeds: positive.embeds,
      attentionMask: positive.mask,
      negativePromptEmbeds: negative.embeds,
      negativeAttentionMask: negative.mask,
    }
  } finally {
    if (prompts || negatives) await textEncoder.unload()
  }
}

/** How many tokens the longest text has. */
function longestOf(masks: Int32Array[]): number {
  return Math.max(...masks.map((row) => row.reduce((sum, value) => sum + value, 0)))
}

/** The first `tokens` states, by default those of the longest text and one more; zero where nothing was read. */
function cut({ embeds, masks }: { embeds: Tensor; masks: Int32Array[] }, tokens?: number) {
  const [rows, computed, width] = embeds.shape as [number, number, number]
  const kept = Math.min(masks[0]!.length, tokens ?? longestOf(masks) + 1)
  const data = new Float32Array(rows * kept * width)
  const mask = new Float32Array(rows * kept)
  for (let row = 0; row < rows; row++)
    for (let token = 0; token < kept; token++) {
      if (masks[row]![token] === 0) continue
      mask[row * kept + token] = 1
      const start = (row * computed + token) * width
      data.set(embeds.data.subarray(start, start + width), (row * kept + token) * width)
    }
  return { embeds: new Tensor(data, [rows, kept, width]), mask: new Tensor(mask, [rows, kept]) }
}

function zerosLike({ embeds, mask }: { embeds: Tensor; mask: Tensor }) {
  const zeros = ({ data, shape }: Tensor) => new Tensor(new Float32Array(data.length), shape)
  return { embeds: zeros(embeds), mask: zeros(mask) }
}

/** What the UNet's `forward` takes of a text. */
export type TextInputs = { encoder_attention_mask: Integers } & (
  | { encoder_hidden_states: Tensor }
  | { context: Tensor }
)

/** Prompts as the UNet is to see them. */
interface UNetText extends EncodedPrompts {
  input: 'encoder_hidden_states' | 'context'
}

/**
 * What the UNet gets of the prompts. The checkpoints of the authors' own code (their config has `null_embedding`) want the
 * states projected, then zero where nothing was read; no text is not all masked there but one token, their null embedding.
 * @param isGuided false: the negative half is not made, the positive one stands in its place
 */
export async function unetText(
  unet: Network<'Kandinsky3UNet'>,
  encoded: EncodedPrompts,
  isGuided: boolean,
  signal?: AbortSignal,
): Promise<UNetText> {
  if (unet.config.null_embedding !== true) return { ...encoded, input: 'encoder_hidden_states' }
  const project = async (states: Tensor, mask: Tensor) => {
    const { context, null_embedding } = await unet.run('project', { encoder_hidden_states: states }, { signal })
    const [rows, tokens, width] = context.shape as [number, number, number]
    const [data, kept] = [new Float32Array(context.data.length), mask.data.slice()]
    for (let row = 0; row < rows; row++) {
      const read = kept.subarray(row * tokens, (row + 1) * tokens)
      const isEmpty = read.every((value) => value === 0)
      for (let token = 0; token < tokens; token++) {
        const at = (row * tokens + token) * width
        if (read[token] === 1) data.set(context.data.subarray(at, at + width), at)
        else if (isEmpty && token === 0) data.set(null_embedding!.data, at)
      }
      if (isEmpty) read[0] = 1
    }
    return { states: new Tensor(data, context.shape), mask: new Tensor(kept, mask.shape) }
  }
  const positive = await project(encoded.promptEmbeds, encoded.attentionMask)
  // Nothing reads the negative half without guidance.
  const negative = isGuided ? await project(encoded.negativePromptEmbeds, encoded.negativeAttentionMask) : positive
  return {
    input: 'context',
    promptEmbeds: positive.states,
    attentionMask: positive.mask,
    negativePromptEmbeds: negative.states,
    negativeAttentionMask: negative.mask,
  }
}

/** The UNet's inputs, `times` rows per prompt; with guidance the unconditional ones in front. */
export function textConditioning(text: UNetText, times: number, guided: boolean): TextInputs {
  const batched = (positive: Tensor, negative: Tensor) => {
    const rows = repeatRows(positive, times)
    return guided ? concatRows([repeatRows(negative, times), rows]) : rows
  }
  const states = batched(text.promptEmbeds, text.negativePromptEmbeds)
  const mask = batched(text.attentionMask, text.negativeAttentionMask)
  const encoder_attention_mask: Integers = { data: Int32Array.from(mask.data), shape: mask.shape }
  return text.input === 'context'
    ? { context: states, encoder_attention_mask }
    : { encoder_hidden_states: states, encoder_attention_mask }
}

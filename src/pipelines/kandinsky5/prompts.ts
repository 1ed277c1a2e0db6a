// How Kandinsky 5 reads prompts, after diffusers' Kandinsky5T2IPipeline: Qwen2.5-VL's states of a text in a template, behind
// the template's own tokens, and CLIP's pooled state.
//
// Easy to get wrong:
// - The template's misspelling is as trained. Its 41 tokens are cut off after they were read, by number; its end stays.
// - A prompt that is too long loses as many characters as its surplus tokens have, from the end of the whole text: the
//   template's end goes first.
// - In the reference prompts of a batch are padded to the longest, and nothing masks the padding: a picture differs from
//   the one that its prompt gives alone. Here each prompt is read by itself unless `padPrompts` is set.
import { decodeHTML } from 'entities'
import { invalid } from '../../errors.js'
import type { Network } from '../../networks/network.js'
import { sliceRows, Tensor } from '../../tensor.js'
import type { ClipTokenizer } from '../../tokenizers/clip.js'
import type { Qwen2Tokenizer } from '../../tokenizers/qwen2.js'
import { expectBoolean, expectInteger, expectPrompts, expectTensor } from '../call/options.js'
import { integers } from '../call/prompts.js'

/** Texts of a Kandinsky 5 call, or their embeddings. */
export interface PromptOptions {
  /** one prompt or a batch; left out where embeddings are given */
  prompt?: string | string[] | undefined
  /** what the picture should not show: one for all prompts, or as many as prompts. Not read where guidance is off; default "" */
  negativePrompt?: string | string[] | undefined
  /** most tokens of a prompt that are read, 1 to 1024; default 512 */
  maxSequenceLength?: number | undefined
  /** fill shorter prompts of a batch up to the longest, as the reference does; default false */
  padPrompts?: boolean | undefined
  /** Qwen's states [n, tokens, width] with `promptEmbedsClip`, instead of prompts */
  promptEmbedsQwen?: Tensor | undefined
  /** CLIP's pooled states [n, width] */
  promptEmbedsClip?: Tensor | undefined
  /** [n + 1], where each row's tokens begin if they are laid end to end; default: rows have no padding */
  promptCuSeqlens?: Tensor | undefined
  /** likewise; one row for all or one each. Default: what `negativePrompt` says */
  negativePromptEmbedsQwen?: Tensor | undefined
  negativePromptEmbedsClip?: Tensor | undefined
  negativePromptCuSeqlens?: Tensor | undefined
}

export const promptOptionNames = Object.keys({
  prompt: true,
  negativePrompt: true,
  maxSequenceLength: true,
  padPrompts: true,
  promptEmbedsQwen: true,
  promptEmbedsClip: true,
  promptCuSeqlens: true,
  negativePromptEmbedsQwen: true,
  negativePromptEmbedsClip: true,
  negativePromptCuSeqlens: true,
} satisfies Record<keyof PromptOptions, true>)

/** What the transformer knows of one prompt. */
export interface TextCondition {
  /** [1, tokens, width] */
  encoder_hidden_states: Tensor
  /** [1, width] */
  pooled_projections: Tensor
}

export interface CheckedPrompts {
  prompts: string[] | undefined
  negatives: string[]
  given: TextCondition[] | undefined
  negativeGiven: TextCondition[] | undefined
  /** prompts, or rows of the embeddings */
  count: number
  maxLength: number
  padPrompts: boolean
}

interface Encoder {
  tokenizer: Qwen2Tokenizer
  tokenizer2: ClipTokenizer
  textEncoder: Network<'Qwen2_5_VLForConditionalGeneration'>
  textEncoder2: Network<'CLIPTextModel'>
}

const TEMPLATE_START =
  '<|im_start|>system\nYou are a promt engineer. Describe the image by detailing the color, shape, size, texture, ' +
  'quantity, text, spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n'
const TEMPLATE_END = '<|im_end|>'
const TEMPLATE_TOKENS = 41

/** @param widths of the states that the transformer takes */
export function checkPrompts(options: PromptOptions, widths: { qwen: number; clip: number }): CheckedPrompts {
  const { prompt, negativePrompt, promptEmbedsQwen, promptEmbedsClip, promptCuSeqlens } = options
  const prompts = prompt === undefined ? undefined : expectPrompts('prompt', prompt)
  const given = conditionsOf('prompt', [promptEmbedsQwen, promptEmbedsClip, promptCuSeqlens], widths)
  if (!prompts && !given) throw invalid('prompt', 'a string or promptEmbedsQwen and promptEmbedsClip', prompt)
  if (prompts && given) throw invalid('prompt', 'nothing beside promptEmbedsQwen', prompt)
  const count = prompts?.length ?? given!.length
  const negativeGiven = conditionsOf(
    'negativePrompt',
    [options.negativePromptEmbedsQwen, options.negativePromptEmbedsClip, options.negativePromptCuSeqlens],
    widths,
  )
  if (negativeGiven && negativePrompt !== undefined)
    throw invalid('negativePrompt', 'nothing beside negativePromptEmbedsQwen', negativePrompt)
  if (negativeGiven && negativeGiven.length !== 1 && negativeGiven.length !== count)
    throw invalid('negativePromptEmbedsQwen', `1 or ${count} rows`, options.negativePromptEmbedsQwen)
  const negatives = expectPrompts('negativePrompt', negativePrompt ?? '')
  if (Array.isArray(negativePrompt) && negatives.length !== count)
    throw invalid('negativePrompt', `a string, or as many negative prompts as prompts (${count})`, negativePrompt)
  return {
    ...{ prompts, negatives, given, negativeGiven, count },
    maxLength: expectInteger('maxSequenceLength', options.maxSequenceLength ?? 512, 1, 1024),
    padPrompts: expectBoolean('padPrompts', options.padPrompts ?? false),
  }
}

function conditionsOf(
  name: 'prompt' | 'negativePrompt',
  [qwen, clip, starts]: [Tensor | undefined, Tensor | undefined, Tensor | undefined],
  widths: { qwen: number; clip: number },
): TextCondition[] | undefined {
  if (qwen === undefined && clip === undefined && starts === undefined) return undefined
  const states = expectTensor(`${name}EmbedsQwen`, qwen, [null, null, widths.qwen])
  const [rows, tokens] = states.shape as [number, number]
  const pooled = expectTensor(`${name}EmbedsClip`, clip, [rows, widths.clip])
  const lengths = lengthsOf(`${name}CuSeqlens`, starts, rows, tokens)
  return lengths.map((length, row) => ({
    encoder_hidden_states: tokensOf(sliceRows(states, row, row + 1), 0, length),
    pooled_projections: sliceRows(pooled, row, row + 1),
  }))
}

function lengthsOf(name: string, starts: Tensor | undefined, rows: number, tokens: number): number[] {
  if (starts === undefined) return new Array(rows).fill(tokens)
  const { data } = expectTensor(name, starts, [rows + 1])
  const lengths = Array.from({ length: rows }, (_, row) => data[row + 1]! - data[row]!)
  if (!lengths.every((length) => Number.isInteger(length) && length >= 1 && length <= tokens))
    throw invalid(name, `numbers that grow by 1 to ${tokens} from row to row`, starts)
  return lengths
}

/** Tokens `start` to `end` of states [1, tokens, width]. */
function tokensOf({ data, shape }: Tensor, start: number, end: number): Tensor {
  const width = shape[2]!
  return new Tensor(data.slice(start * width, end * width), [1, end - start, width])
}

/**
 * Runs the text encoders for what is not given, and frees them: they must make room for the transformer.
 * @param guided whether negative prompts are needed
 */
export async function encodePrompts(
  encoder: Encoder,
  { prompts, negatives, given, negativeGiven, maxLength, padPrompts }: CheckedPrompts,
  guided: boolean,
  signal?: AbortSignal,
): Promise<{ positive: TextCondition[]; negative: TextCondition[] | undefined }> {
  const read = (texts: string[]) => readPrompts(encoder, texts.map(cleaned), maxLength, padPrompts, signal)
  try {
    return {
      positive: given ?? (await read(prompts!)),
      negative: guided ? (negativeGiven ?? (await read(negatives))) : undefined,
    }
  } finally {
    await encoder.textEncoder.unload()
    await encoder.textEncoder2.unload()
  }
}

/** Entities are resolved twice, and white space becomes single spaces. */
function cleaned(prompt: string): string {
  return decodeHTML(decodeHTML(prompt))
    .replace(/\p{White_Space}+/gu, ' ')
    .trim()
}

async function readPrompts(
  { tokenizer, tokenizer2, textEncoder, textEncoder2 }: Encoder,
  texts: string[],
  maxLength: number,
  padPrompts: boolean,
  signal?: AbortSignal,
): Promise<TextCondition[]> {
  const rows = texts.map((text) => idsOf(tokenizer, text, maxLength))
  const longest = Math.max(...rows.map((row) => row.length))
  const { inputIds } = tokenizer2.encode(texts)
  const conditions: TextCondition[] = []
  for (const [i, row] of rows.entries()) {
    const ids = new Int32Array(padPrompts ? longest : row.length).fill(tokenizer.padTokenId)
    ids.set(row)
    const { last_hidden_state } = await textEncoder.run('forward', { input_ids: integers([ids]) }, { signal })
    const { pooler_output } = await textEncoder2.run('forward', { input_ids: integers([inputIds[i]!]) }, { signal })
    const encoder_hidden_states = tokensOf(last_hidden_state, TEMPLATE_TOKENS, ids.length)
    conditions.push({ encoder_hidden_states, pooled_projections: pooler_output })
  }
  return conditions
}

function idsOf(tokenizer: Qwen2Tokenizer, prompt: string, maxLength: number): Int32Array {
  const text = TEMPLATE_START + prompt + TEMPLATE_END
  const encode = (value: string) => tokenizer.encode([value], { truncation: false, padding: 'do_not_pad' }).inputIds[0]!
  const ids = encode(text)
  const most = TEMPLATE_TOKENS + maxLength
  if (ids.length <= most) return ids
  const cut = TEMPLATE_TOKENS + Math.max(0, maxLength - 2)
  // Decoded with a token before them, since decoding drops the space that a text begins with.
  const removed =
    characters(tokenizer.decode([...ids.subarray(cut - 1, -2)])) -
    characters(tokenizer.decode([...ids.subarray(cut - 1, cut)]))
  process.emitWarning(
    `Qwen reads ${maxLength} tokens; this part of a prompt was cut off: ${tokenizer.decode([...ids.subarray(cut, -1)])}`,
    'KandinskyWarning',
  )
  return encode([...text].slice(0, -removed).join('')).subarray(0, most)
}

function characters(text: string): number {
  return [...text].length
}

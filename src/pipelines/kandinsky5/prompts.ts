// How Kandinsky 5 reads prompts, after diffusers' Kandinsky5T2IPipeline and Kandinsky5I2IPipeline: Qwen2.5-VL's states of a
// text in a template, behind the template's own tokens, and CLIP's pooled state.
//
// Easy to get wrong:
// - The templates' misspelling is as trained. 41 tokens are cut off after they were read, by number; the end stays. For
//   editing it are 55, though that template begins with 50: the first five of the prompt go, too, as trained. The prompt
//   touches the word before it.
// - A prompt that is too long loses as many characters as its surplus tokens have, from the end of the whole text: the
//   template's end goes first.
// - In the reference prompts of a batch are padded to the longest, and nothing masks the padding: a picture differs from
//   the one that its prompt gives alone. Here each prompt is read by itself unless `padPrompts` is set.
import { decodeHTML } from 'entities'
import { invalid } from '../../errors.js'
import type { QwenPicture } from '../../images/processing-qwen.js'
import type { Integers } from '../../networks/calls.js'
import type { Network } from '../../networks/network.js'
import { concatRows, sliceRows, Tensor } from '../../tensor.js'
import type { ClipTokenizer } from '../../tokenizers/clip.js'
import type { Qwen2Tokenizer } from '../../tokenizers/qwen2.js'
import { expectBoolean, expectInteger, expectPrompts, expectTensor } from '../call/options.js'
import { integers } from '../call/prompts.js'

/** Texts of a Kandinsky 5 call. */
export interface TextOptions {
  /** one prompt or a batch; left out where embeddings are given */
  prompt?: string | string[] | undefined
  /** what the picture should not show: one for all prompts, or as many as prompts. Not read where guidance is off; default "" */
  negativePrompt?: string | string[] | undefined
  /** most tokens of a prompt, and of its picture, that are read, 1 to 1024; default 512, with a picture 1024 */
  maxSequenceLength?: number | undefined
  /** fill shorter prompts of a batch up to the longest, as the reference does; default false */
  padPrompts?: boolean | undefined
}

/** Texts of a Kandinsky 5 call, or their embeddings. */
export interface PromptOptions extends TextOptions {
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

export const textOptionNames = Object.keys({
  prompt: true,
  negativePrompt: true,
  maxSequenceLength: true,
  padPrompts: true,
} satisfies Record<keyof TextOptions, true>)

export const promptOptionNames = [
  ...textOptionNames,
  ...Object.keys({
    promptEmbedsQwen: true,
    promptEmbedsClip: true,
    promptCuSeqlens: true,
    negativePromptEmbedsQwen: true,
    negativePromptEmbedsClip: true,
    negativePromptCuSeqlens: true,
  } satisfies Record<Exclude<keyof PromptOptions, keyof TextOptions>, true>),
]

/** `generate` takes all of it in place of texts. */
export type EncodedPrompts = {
  [Name in Exclude<keyof PromptOptions, keyof TextOptions>]: Tensor
}

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
  /** of editing: one picture for all, or one each */
  seen?: { imageToken: number; pictures: readonly QwenPicture[] }
}

interface Encoder {
  tokenizer: Qwen2Tokenizer
  tokenizer2: ClipTokenizer
  textEncoder: Network<'Qwen2_5_VLForConditionalGeneration'>
  textEncoder2: Network<'CLIPTextModel'>
}

interface Template {
  start: string
  end: string
  /** that are cut off */
  tokens: number
}

const TEXT: Template = {
  start:
    '<|im_start|>system\nYou are a promt engineer. Describe the image by detailing the color, shape, size, texture, ' +
    'quantity, text, spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n',
  end: '<|im_end|>',
  tokens: 41,
}

const EDIT: Template = {
  start:
    '<|im_start|>system\nYou are a promt engineer. Based on the provided source image (first image) and target image ' +
    '(second image), create an interesting text prompt that can be used together with the source image to create the ' +
    'target image:<|im_end|><|im_start|>user',
  end: '<|vision_start|><|image_pad|><|vision_end|><|im_end|>',
  tokens: 55,
}

/**
 * @param widths of the states that the transformer takes
 * @param maxLength where the options say nothing
 */
export function checkPrompts(
  options: PromptOptions,
  widths: { qwen: number; clip: number },
  maxLength: number,
): CheckedPrompts {
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
    maxLength: expectInteger('maxSequenceLength', options.maxSequenceLength ?? maxLength, 1, 1024),
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

/** Whether the text encoders have anything to read. */
export function readsTexts({ given, negativeGiven }: CheckedPrompts, guided: boolean): boolean {
  return !given || (guided && !negativeGiven)
}

/**
 * How many tokens of a picture there is room for beside the longest text.
 * @throws KandinskyError `INVALID_ARGUMENT` for texts that leave no room, or that hold a picture's token themselves
 */
export function tokensForPicture(
  tokenizer: Qwen2Tokenizer,
  { prompts, negatives, given, negativeGiven, maxLength }: CheckedPrompts,
  imageToken: number,
  guided: boolean,
): number {
  const texts = [...(given ? [] : prompts!), ...(guided && !negativeGiven ? negatives : [])]
  const lengths = texts.map((text) => {
    const ids = encodeInTemplate(tokenizer, EDIT, cleaned(text))
    if (ids.filter((id) => id === imageToken).length !== 1)
      throw invalid('prompt', 'a text without <|image_pad|>', text)
    return ids.length - 1
  })
  const longest = Math.max(...lengths)
  const most = EDIT.tokens + maxLength - longest
  if (most < 1)
    throw invalid(
      'prompt',
      `texts that leave room for the picture among ${EDIT.tokens + maxLength} tokens`,
      `one of ${longest} tokens with its template`,
    )
  return most
}

/**
 * Runs the text encoders for what is not given, and frees them: they must make room for the transformer.
 * @param guided whether negative prompts are needed
 */
export async function encodePrompts(
  encoder: Encoder,
  checked: CheckedPrompts,
  guided: boolean,
  signal?: AbortSignal,
): Promise<{ positive: TextCondition[]; negative: TextCondition[] | undefined }> {
  const { prompts, negatives, given, negativeGiven, seen } = checked
  try {
    const views = seen && (await lookAt(encoder, seen.pictures, signal))
    const read = (texts: string[]) => {
      // Each picture needs a reading of its own, also of one negative prompt for all.
      const all = views && texts.length < views.length ? views.map(() => texts[0]!) : texts
      return readPrompts(encoder, all.map(cleaned), checked, views, signal)
    }
    return {
      positive: given ?? (await read(prompts!)),
      negative: guided ? (negativeGiven ?? (await read(negatives))) : undefined,
    }
  } finally {
    await encoder.textEncoder.unload()
    await encoder.textEncoder2.unload()
  }
}

/** What Qwen makes of a picture before it reads. */
interface View {
  tokens: number
  image_features: Tensor
  image_grid_thw: Integers
}

async function lookAt(
  { textEncoder }: Encoder,
  pictures: readonly QwenPicture[],
  signal?: AbortSignal,
): Promise<View[]> {
  const views: View[] = []
  for (const { pixelValues: pixel_values, rows, columns, tokens } of pictures) {
    const image_grid_thw = integers([Int32Array.of(1, rows, columns)])
    const inputs = { pixel_values, image_grid_thw }
    views.push({ tokens, image_grid_thw, ...(await textEncoder.run('get_image_features', inputs, { signal })) })
  }
  return views
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
  { maxLength, padPrompts, seen }: CheckedPrompts,
  views: View[] | undefined,
  signal?: AbortSignal,
): Promise<TextCondition[]> {
  const template = seen ? EDIT : TEXT
  const viewOf = (i: number) => views?.[i] ?? views?.[0]
  const rows = texts.map((text, i) =>
    seen ? withPicture(tokenizer, text, seen.imageToken, viewOf(i)!.tokens) : idsOf(tokenizer, text, maxLength),
  )
  const longest = Math.max(...rows.map((row) => row.length))
  const { inputIds } = tokenizer2.encode(texts)
  const conditions: TextCondition[] = []
  for (const [i, row] of rows.entries()) {
    const ids = new Int32Array(padPrompts ? longest : row.length).fill(tokenizer.padTokenId)
    ids.set(row)
    const view = viewOf(i)
    const inputs = { input_ids: integers([ids]), ...(view && pictureInputs(view, row.length, ids.length)) }
    const { last_hidden_state } = await textEncoder.run('forward', inputs, { signal })
    const { pooler_output } = await textEncoder2.run('forward', { input_ids: integers([inputIds[i]!]) }, { signal })
    const encoder_hidden_states = tokensOf(last_hidden_state, template.tokens, ids.length)
    conditions.push({ encoder_hidden_states, pooled_projections: pooler_output })
  }
  return conditions
}

/** Padding is masked beside a picture, as in the reference, though not in texts alone. */
function pictureInputs({ image_features, image_grid_thw }: View, length: number, padded: number) {
  const mask = new Int32Array(padded).fill(1, 0, length)
  return { image_features, image_grid_thw, attention_mask: integers([mask]) }
}

function encodeInTemplate(tokenizer: Qwen2Tokenizer, { start, end }: Template, prompt: string): Int32Array {
  return encodeWhole(tokenizer, start + prompt + end)
}

function encodeWhole(tokenizer: Qwen2Tokenizer, text: string): Int32Array {
  return Int32Array.from(tokenizer.encode([text], { truncation: false, padding: 'do_not_pad' }).inputIds[0]!)
}

/** The template's one image token, as often as the picture has tokens. */
function withPicture(tokenizer: Qwen2Tokenizer, prompt: string, imageToken: number, tokens: number): Int32Array {
  const ids = encodeInTemplate(tokenizer, EDIT, prompt)
  const at = ids.indexOf(imageToken)
  return Int32Array.from([...ids.subarray(0, at), ...Array<number>(tokens).fill(imageToken), ...ids.subarray(at + 1)])
}

function idsOf(tokenizer: Qwen2Tokenizer, prompt: string, maxLength: number): Int32Array {
  const ids = encodeInTemplate(tokenizer, TEXT, prompt)
  const most = TEXT.tokens + maxLength
  if (ids.length <= most) return ids
  const cut = TEXT.tokens + Math.max(0, maxLength - 2)
  // Decoded with a token before them, since decoding drops the space that a text begins with.
  const removed =
    characters(tokenizer.decode([...ids.subarray(cut - 1, -2)])) -
    characters(tokenizer.decode([...ids.subarray(cut - 1, cut)]))
  process.emitWarning(
    `Qwen reads ${maxLength} tokens; this part of a prompt was cut off: ${tokenizer.decode([...ids.subarray(cut, -1)])}`,
    'KandinskyWarning',
  )
  const whole = TEXT.start + prompt + TEXT.end
  return encodeWhole(tokenizer, [...whole].slice(0, -removed).join('')).subarray(0, most)
}

function characters(text: string): number {
  return [...text].length
}

/** Rows of different lengths as tensors with the lengths beside them. */
export function joinedConditions(
  positive: readonly TextCondition[],
  negative: readonly TextCondition[],
): EncodedPrompts {
  const [promptEmbedsQwen, promptEmbedsClip, promptCuSeqlens] = joined(positive)
  const [negativePromptEmbedsQwen, negativePromptEmbedsClip, negativePromptCuSeqlens] = joined(negative)
  return {
    ...{ promptEmbedsQwen, promptEmbedsClip, promptCuSeqlens },
    ...{ negativePromptEmbedsQwen, negativePromptEmbedsClip, negativePromptCuSeqlens },
  }
}

function joined(conditions: readonly TextCondition[]): [Tensor, Tensor, Tensor] {
  const states = conditions.map(({ encoder_hidden_states }) => encoder_hidden_states)
  const longest = Math.max(...states.map(({ shape }) => shape[1]!))
  const width = states[0]!.shape[2]!
  const qwen = new Tensor(new Float32Array(states.length * longest * width), [states.length, longest, width])
  const starts = new Float32Array(states.length + 1)
  for (const [i, { data, shape }] of states.entries()) {
    qwen.data.set(data, i * longest * width)
    starts[i + 1] = starts[i]! + shape[1]!
  }
  return [
    qwen,
    concatRows(conditions.map(({ pooled_projections }) => pooled_projections)),
    new Tensor(starts, [starts.length]),
  ]
}

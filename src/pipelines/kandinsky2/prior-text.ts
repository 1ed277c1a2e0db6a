// Texts as the prior reads them: CLIP's hidden states, pooled embeddings and attention masks.
import type { Integers } from '../../networks/calls.js'
import type { Network } from '../../networks/network.js'
import { concatRows, repeatRows, type Tensor } from '../../tensor.js'
import type { Tokenizer } from '../../tokenizers/tokenizer.js'
import { integers, warnTruncated } from '../call/prompts.js'

/** The prior's inputs for one batch of texts. */
export interface EncodedText {
  /** [rows, projectionDim] */
  proj_embedding: Tensor
  /** [rows, 77, hiddenSize] */
  encoder_hidden_states: Tensor
  /** [rows, 77], 1 for real tokens */
  attention_mask: Integers
}

export interface EncodeTextOptions {
  /** rows per text */
  count: number
  /** report text beyond the model's 77 tokens, as the reference does for prompts and not for negative ones */
  warn: boolean
  signal?: AbortSignal | undefined
}

export async function encodeText(
  { tokenizer, textEncoder }: { tokenizer: Tokenizer; textEncoder: Network<'CLIPTextModelWithProjection'> },
  texts: string[],
  { count, warn, signal }: EncodeTextOptions,
): Promise<EncodedText> {
  const { inputIds, attentionMask, truncated } = tokenizer.encode(texts)
  if (warn) warnTruncated('CLIP', tokenizer, truncated)
  const output = await textEncoder.run('forward', { input_ids: integers(inputIds) }, { signal })
  const mask = attentionMask.flatMap((row) => Array<Int32Array>(count).fill(row))
  return {
    proj_embedding: repeatRows(output.text_embeds, count),
    encoder_hidden_states: repeatRows(output.last_hidden_state, count),
    attention_mask: integers(mask),
  }
}

export function joinText(a: EncodedText, b: EncodedText): EncodedText {
  const { attention_mask: first } = a
  const { attention_mask: second } = b
  const data = new Int32Array([...first.data, ...second.data])
  return {
    proj_embedding: concatRows([a.proj_embedding, b.proj_embedding]),
    encoder_hidden_states: concatRows([a.encoder_hidden_states, b.encoder_hidden_states]),
    attention_mask: { data, shape: [first.shape[0]! + second.shape[0]!, first.shape[1]!] },
  }
}

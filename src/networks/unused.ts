// Stored weights that no network reads: said once, since they usually mean that the file is more than it is taken for.
import type { Component } from '../checkpoint/pipeline-files.js'

/** What files of known models carry along and no result depends on. */
const HARMLESS = [
  ...[/\bposition_ids$/, /\bpooler\.dense\./, /\blogit_scale$/, /\bnum_batches_tracked$/],
  /^quantize\.embedding\.weight$/, // MoVQ decodes latents that are not quantized
  /^(encoder|decoder)\.embed_tokens\.weight$/, // T5's "shared" under other names
  ...[/^lm_head\./, /^visual\./], // of Qwen2.5-VL, which reads texts only and writes none
  ...[/^vision_model\./, /^visual_projection\./, /^text_projection\./], // a whole CLIP, where its pooled state is wanted
  ...[/^dpt\.layernorm\./, /^neck\.fusion_stage\.layers\.0\.residual_layer1\./], // of DPT, in the reference alike
]
const SHOWN = 3
const MAX_NAME = 80

const seen = new WeakSet<Component>()

/** Warns of weights that are not used, once per opened component. */
export function warnOfUnused(component: Component, used: ReadonlySet<string>): void {
  if (seen.has(component)) return
  seen.add(component)
  const unused = component.tensors
    .map(({ name }) => name)
    .filter((name) => !used.has(name) && !HARMLESS.some((pattern) => pattern.test(name)))
  if (unused.length === 0) return
  const shown = unused.slice(0, SHOWN).map((name) => JSON.stringify(name.slice(0, MAX_NAME)))
  const advice = unused.some((name) => /lora/i.test(name))
    ? '; LoRA weights in a file of a network are not applied (loadLoraWeights takes those in a file of their own)'
    : ''
  process.emitWarning(
    `${unused.length} weights of ${component.name} in ${component.tensors[0]?.path} are not used: ` +
      `${shown.join(', ')}${unused.length > SHOWN ? ' …' : ''}${advice}`,
    { type: 'KandinskyWarning', code: 'KANDINSKY_UNUSED_WEIGHTS' },
  )
}

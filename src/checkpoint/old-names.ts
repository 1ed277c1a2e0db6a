// Names that older versions of the reference gave to weights, and what they are called since.

/** AttentionBlock of diffusers before 0.18; "attentions." keeps apart what transformers calls by the same words. */
const OLD_ATTENTION = /(\battentions\.\d+\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)/

const NEW_ATTENTION: Readonly<Record<string, string>> = {
  query: 'to_q',
  key: 'to_k',
  value: 'to_v',
  proj_attn: 'to_out.0',
}

/** The tensors under today's names; what has today's name already stays where an old one would become the same. */
export function withNewNames<T extends { name: string }>(tensors: readonly T[]): T[] {
  const names = new Set(tensors.map(({ name }) => name))
  return tensors.map((tensor) => {
    const name = tensor.name.replace(OLD_ATTENTION, (_, block, old) => block + NEW_ATTENTION[old])
    return names.has(name) ? tensor : { ...tensor, name }
  })
}

/** Names of the index of shards of `file` (such as "model.safetensors"), newest first. @param suffix such as ".fp16" */
export function indexNames(file: string, suffix: string): string[] {
  return [...new Set([`${file}.index${suffix}.json`, `${file}${suffix}.index.json`])]
}

// Prompt to picture with Kandinsky 3. Its text encoder is by far the largest network: the prompt is read once, kept in a
// file, and can be painted again and again without it.
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { Generator, Kandinsky3Pipeline, Tensor } from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, prompt, negative, size, steps, seed, cache, output } = settings({
  model: 'kandinsky-3.gguf', // kandinsky convert kandinsky-community/kandinsky-3 kandinsky-3.gguf --variant fp16 --type q4_K
  prompt: 'A photograph of the inside of a subway train. There are raccoons sitting on the seats.',
  negative: 'low quality, bad quality',
  size: 1024,
  steps: 25,
  seed: 0,
  cache: 'raccoons.json',
  output: 'raccoons.png',
})

await using pipe = await Kandinsky3Pipeline.fromPretrained(model)
if (!existsSync(cache))
  await writeFile(cache, JSON.stringify(await pipe.encodePrompt({ prompt, negativePrompt: negative })))
const kept = JSON.parse(await readFile(cache, 'utf8'))

const events = pipe.stream({
  promptEmbeds: Tensor.from(kept.promptEmbeds),
  attentionMask: Tensor.from(kept.attentionMask),
  negativePromptEmbeds: Tensor.from(kept.negativePromptEmbeds),
  negativeAttentionMask: Tensor.from(kept.negativeAttentionMask),
  height: size,
  width: size,
  numInferenceSteps: steps,
  generator: new Generator(seed),
})
for await (const event of events) {
  if (event.type === 'step') console.log(`step ${event.step}/${event.steps}, ${event.etaMs} ms left`)
  else await event.images[0]!.save(output)
}

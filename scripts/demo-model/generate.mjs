// Makes the pictures of prompts.json (see evaluate.py) with this package, for the judge:
//   node generate.mjs prompts.json demo.gguf outputFolder [--kinds name,unseen] [--seeds 2] [--weights q8_0] [--threads 1]
//       [--options '{"numInferenceSteps":25,"forecast":"fast"}']
import { mkdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { AutoPipelineForText2Image, Generator } from '../../dist/index.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    kinds: { type: 'string', default: 'name,trained,unseen' },
    seeds: { type: 'string', default: '2' },
    weights: { type: 'string' },
    threads: { type: 'string', default: '1' },
    options: { type: 'string', default: '{}' },
  },
})
const [promptFile, model, folder] = positionals
const kinds = values.kinds.split(',')
const options = JSON.parse(values.options)
mkdirSync(folder, { recursive: true })
const pipe = await AutoPipelineForText2Image.fromPretrained(model, {
  weights: values.weights,
  threads: Number(values.threads),
})
for (const [number, { prompt, kind }] of JSON.parse(readFileSync(promptFile, 'utf8')).entries()) {
  if (!kinds.includes(kind)) continue
  for (let seed = 0; seed < Number(values.seeds); seed++) {
    const generator = new Generator(seed * 100_000 + number)
    const { images } = await pipe.generate({ ...options, prompt, generator })
    await images[0].save(path.join(folder, `${String(number).padStart(4, '0')}-${seed}.png`))
  }
}
await pipe.dispose()

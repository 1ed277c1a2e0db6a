// Changes a picture as a text says, with Kandinsky 5. The result has the published size whose ratio is nearest.
import { Generator, Kandinsky5I2IPipeline } from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, image, prompt, steps, guidance, seed, output } = settings({
  model: 'kandinsky-5-editing.gguf', // kandinsky convert kandinskylab/Kandinsky-5.0-I2I-Lite-sft-Diffusers kandinsky-5-editing.gguf --type q4_K
  image: 'cat.png',
  prompt: 'Turn the cat into a small grey elephant. Leave everything else as it is.',
  steps: 50,
  guidance: 3.5,
  seed: 0,
  output: 'elephant.png',
})

await using pipe = await Kandinsky5I2IPipeline.fromPretrained(model)
const { images } = await pipe.generate({
  prompt,
  image,
  numInferenceSteps: steps,
  guidanceScale: guidance,
  generator: new Generator(seed),
})
await images[0]!.save(output)

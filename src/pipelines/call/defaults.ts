// What a checkpoint says about its own use: a generation_config.json beside its model_index.json. The published
// Kandinsky checkpoints have none and get diffusers' defaults; a model of another size or pace needs others to work.
import { type Checkpoint, readJson } from '../../checkpoint/open.js'
import { KandinskyError } from '../../errors.js'
import { maxSide } from './options.js'

/** Values for options that a call leaves out. */
export interface CallDefaults {
  height?: number
  width?: number
  numInferenceSteps?: number
  guidanceScale?: number
}

const FILE = 'generation_config.json'
/** Names in the file, as diffusers writes the options, with ours and the least and greatest value. */
const KEYS: [string, keyof CallDefaults, number, number][] = [
  ['height', 'height', 1, maxSide],
  ['width', 'width', 1, maxSide],
  ['num_inference_steps', 'numInferenceSteps', 1, 1000],
  ['guidance_scale', 'guidanceScale', 0, 100],
]

/** @throws KandinskyError `BAD_FILE` for a value that is no number in its range; other keys are not read */
export async function readCallDefaults(checkpoint: Checkpoint): Promise<CallDefaults> {
  const stored = ((await readJson(checkpoint, FILE)) ?? {}) as Record<string, unknown>
  const defaults: CallDefaults = {}
  for (const [key, option, min, max] of KEYS) {
    const value = stored[key]
    if (value === undefined || value === null) continue
    const fits = typeof value === 'number' && value >= min && value <= max
    if (!fits || (option !== 'guidanceScale' && !Number.isInteger(value)))
      throw new KandinskyError(
        'BAD_FILE',
        `Expected a number from ${min} to ${max} for ${key} in ${FILE} of ${checkpoint.source} ` +
          `but found ${JSON.stringify(value)}`,
      )
    defaults[option] = value
  }
  return defaults
}

// Recorded reference cases (test/fixtures/README.md) as calls of this package.
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import {
  DDIMScheduler,
  DDPMScheduler,
  FlowMatchEulerDiscreteScheduler,
  Generator,
  loadImage,
  Tensor,
  UnCLIPScheduler,
} from '../../dist/index.js'
import { readSafetensors } from './safetensors.mjs'

export const fixtures = path.resolve(import.meta.dirname, '../fixtures')
export const checkpoint = (name) => path.join(fixtures, 'checkpoints', name)

/** Names of the recorded cases whose pipeline class this package exports, by class. */
export function pipelineCases(...classes) {
  return readdirSync(path.join(fixtures, 'traces', 'pipelines'))
    .filter((file) => file.endsWith('.json'))
    .map((file) => readCase('pipelines', file.slice(0, -'.json'.length)))
    .filter(({ pipeline }) => classes.includes(pipeline))
}

/** One trace: its description with `tensors` replaced by the recorded values. */
export function readCase(kind, name) {
  const file = path.join(fixtures, 'traces', kind, name)
  const description = JSON.parse(readFileSync(`${file}.json`, 'utf8'))
  return { ...description, tensors: readSafetensors(`${file}.safetensors`) }
}

export function tensorOf(recorded) {
  return new Tensor(Float32Array.from(recorded.data), recorded.shape)
}

const camelCase = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase())

/** These pipelines of the reference take `height` for the width and `width` for the height (docs/differences.md). */
const swapsSides = /Img2Img/

/** Diffusers' keyword arguments as options: camelCase names, recorded inputs, seeded generators that note their draws. */
export async function optionsOf({ pipeline, method, arguments: given, tensors, global_seed: seed }, draws) {
  const options = {}
  for (const [name, value] of Object.entries(given)) {
    if (name === 'output_type') options.outputType = value === 'np' ? 'float' : value
    else options[camelCase(name)] = await argument(value, tensors, draws)
  }
  if (swapsSides.test(pipeline)) [options.height, options.width] = [options.width, options.height]
  // There is no global generator here.
  if (method === 'interpolate') options.generator ??= noting(new Generator(seed), draws)
  return options
}

async function argument(value, tensors, draws) {
  if (value === null) return undefined
  if (typeof value !== 'object' || Array.isArray(value)) return value
  if ('items' in value) return Promise.all(value.items.map((item) => argument(item, tensors, draws)))
  if ('image' in value) return loadImage(path.join(fixtures, 'images', value.image))
  if ('hint' in value) return Promise.all(value.hint.map((image) => argument({ image }, tensors, draws)))
  if ('tensor' in value) return tensorOf(tensors.get(value.tensor))
  if ('array' in value) return tensorOf(tensors.get(value.array))
  if ('generator' in value) return noting(new Generator(value.generator), draws)
  if ('generators' in value) return value.generators.map((seed) => noting(new Generator(seed), draws))
  throw new Error(`argument ${JSON.stringify(value)} has no equivalent`)
}

function noting(generator, draws) {
  return {
    randn(shape, options) {
      const draw = generator.randn(shape, options)
      draws?.push(draw)
      return draw
    },
  }
}

/** The scheduler a case names, or undefined for the checkpoint's own. */
export function schedulerOf({ scheduler_config: config }) {
  if (!config) return undefined
  return { DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler, UnCLIPScheduler }[config.class].fromConfig(
    config,
  )
}

/** Largest absolute difference, and the largest reference value it is measured against. */
export function difference(actual, expected) {
  if (String(actual.shape) !== String(expected.shape))
    throw new Error(`expected shape [${expected.shape}] but got [${actual.shape}]`)
  let max = 0
  let sum = 0
  let scale = 0
  for (let i = 0; i < expected.data.length; i++) {
    const delta = Math.abs(actual.data[i] - expected.data[i])
    if (Number.isNaN(delta)) return { max: Number.NaN, mean: Number.NaN, scale }
    max = Math.max(max, delta)
    sum += delta
    scale = Math.max(scale, Math.abs(expected.data[i]))
  }
  return { max, mean: sum / expected.data.length, scale }
}

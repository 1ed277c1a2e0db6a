// Which weights of a network a LoRA adds to. The weights stay as they are: see native/graph/low_rank.h; only fused and
// converted ones are merged, as they are read.
import type { LoraFile, LoraModule } from '../checkpoint/lora-file.js'
import { invalid, KandinskyError } from '../errors.js'
import type { Adapter, TensorSource, TensorSpec, WeightType } from '../native.js'
import { isFloat, matrixShape } from './policy.js'

/** Additions by the name of the weight. */
export type LoraLayers = ReadonlyMap<string, Adapter>

/** A LoRA as a network holds it. */
export interface NetworkLora {
  /** of its file, for recipes */
  hash: string
  layers: LoraLayers
  /** what its addition is multiplied with */
  weight: number
  state: 'off' | 'on' | 'fused'
  /** the weight that it had before it was fused */
  unfused?: number | undefined
}

/** A network as LoRAs see it. */
export interface LoraTarget {
  /** in the checkpoint, e.g. "unet" */
  name: string
  specs: readonly TensorSpec[]
}

/** What files call networks, beside their names in a checkpoint. */
const ALIASES: Readonly<Record<string, readonly string[]>> = {
  unet: ['diffusion_model'],
  prior: ['prior_prior'],
  transformer: ['diffusion_model', 'unet'],
  text_encoder: ['te', 'te1'],
}

/**
 * Finds the weights that each module of a file means.
 * @returns for every target what is added to it
 * @throws KandinskyError `UNSUPPORTED_MODEL` for a module that no target has, `SHAPE_MISMATCH` for one of another size
 */
export function matchLora(file: LoraFile, targets: readonly LoraTarget[]): LoraLayers[] {
  const layers = targets.map(() => new Map<string, Adapter>())
  const names = targets.map((target) => namesOf(target))
  for (const module of file.modules) {
    const key = module.name.replace(/^base_model\.model\./, '')
    const index = names.findIndex((known) => known.has(key))
    const spec = names[index]?.get(key)
    if (!spec) {
      const owners = targets.map(({ name }) => name).join(', ')
      throw new KandinskyError(
        'UNSUPPORTED_MODEL',
        `Expected a LoRA for ${owners} but ${file.path} has "${module.down.name.slice(0, 160)}", and no such module is there`,
      )
    }
    layers[index]!.set(spec.name, adapterFor(module, spec, targets[index]!.name, file.path))
  }
  return layers
}

/** Every way to call a module that a LoRA can add to. */
function namesOf({ name, specs }: LoraTarget): Map<string, TensorSpec> {
  const names = new Map<string, TensorSpec>()
  for (const spec of specs) {
    const isMatrix = matrixShape(spec.shape).length === 2 && !spec.transposed
    if (!isMatrix || !spec.name.endsWith('.weight')) continue
    const module = spec.name.slice(0, -'.weight'.length)
    names.set(module, spec)
    for (const owner of [name, ...(ALIASES[name] ?? [])]) {
      names.set(`${owner}.${module}`, spec)
      names.set(`lora_${owner}_${module.replaceAll('.', '_')}`, spec)
    }
  }
  return names
}

function adapterFor({ down, up, scale }: LoraModule, spec: TensorSpec, owner: string, path: string): Adapter {
  const [out, ...inner] = spec.shape
  const rank = down.shape[0]!
  // 1x1 kernels are matrices to some tools.
  const isPointwise = inner.slice(1).every((n) => n === 1)
  const expected = [rank, ...inner]
  const fits =
    down.shape.join() === expected.join() || (isPointwise && trimmed(down.shape).join() === [rank, inner[0]].join())
  if (!fits) throw misfit(down, `[rank, ${inner.join(', ')}]`, spec, owner, path)
  if (trimmed(up.shape).join() !== [out, rank].join()) throw misfit(up, `[${out}, ${rank}]`, spec, owner, path)
  return { down: { ...down, target: 'f32' }, up: { ...up, target: 'f32' }, scale }
}

/** Without the sizes of a 1x1 kernel. */
function trimmed(shape: readonly number[]): readonly number[] {
  return shape.length === 4 && shape[2] === 1 && shape[3] === 1 ? shape.slice(0, 2) : shape
}

function misfit(
  tensor: { name: string; shape: number[] },
  expected: string,
  spec: TensorSpec,
  owner: string,
  path: string,
) {
  return new KandinskyError(
    'SHAPE_MISMATCH',
    `Expected shape ${expected} for "${tensor.name.slice(0, 160)}" by ${owner}.${spec.name} of shape ` +
      `[${spec.shape.join(', ')}] but ${path} has [${tensor.shape.join(', ')}]`,
  )
}

/** What several LoRAs add, by the name of the weight. */
export function adaptersOf(loras: Iterable<Pick<NetworkLora, 'layers' | 'weight'>>): Map<string, Adapter[]> {
  const adapters = new Map<string, Adapter[]>()
  for (const { layers, weight } of loras)
    for (const [name, adapter] of layers)
      adapters.set(name, [...(adapters.get(name) ?? []), { ...adapter, scale: adapter.scale * weight }])
  return adapters
}

/**
 * Sources into which LoRAs are merged as they are read. Blocks of a quantized file would round most of a LoRA away when
 * they are quantized again: what it changes becomes float16 there, unless a type is asked for.
 */
export function mergeAdapters(
  sources: TensorSource[],
  adapters: ReadonlyMap<string, readonly Adapter[]>,
  weights: WeightType | undefined,
): TensorSource[] {
  return sources.map((source) => {
    const merged = adapters.get(source.name)
    if (!merged) return source
    const target = weights === undefined && !isFloat(source.target) ? 'f16' : source.target
    return { ...source, target, adapters: [...merged] }
  })
}

/** @throws KandinskyError `INVALID_ARGUMENT` */
export function checkLoraWeight(weight: unknown, what: string): number {
  if (typeof weight !== 'number' || !Number.isFinite(weight) || Math.abs(weight) > 1e4)
    throw invalid(what, 'a number from -10000 to 10000', weight)
  return weight
}

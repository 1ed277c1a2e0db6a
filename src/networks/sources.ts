import type { Component } from '../checkpoint/pipeline-files.js'
import { KandinskyError } from '../errors.js'
import { binding, type TensorSource, type TensorSpec, type WeightType } from '../native.js'
import { type FallbackListener, matrixShape, type Rule, targetType } from './policy.js'
import { warnOfUnused } from './unused.js'

/**
 * The weights that a component's network has, where they lie and what they become. Tensors that the network does not
 * use (position_ids of old transformers, MoVQ's codebook) are left out, with a warning unless they are known.
 *
 * @throws KandinskyError `UNSUPPORTED_MODEL` for a class or config that the engine lacks, `BAD_FILE` for a missing
 *   tensor, `SHAPE_MISMATCH` where config and weights disagree
 */
export function tensorSources(
  component: Component,
  weights?: WeightType,
  rules?: readonly Rule[],
  onFallback?: FallbackListener,
): TensorSource[] {
  const { name: owner } = component
  const stored = new Map(component.tensors.map((tensor) => [tensor.name, tensor]))
  const described = specsOf(component)
  warnOfUnused(component, new Set(described.map(({ name }) => name)))
  return described.map(({ name, shape, precision, transposed }) => {
    const tensor = stored.get(name)
    if (!tensor)
      throw new KandinskyError('BAD_FILE', `${whereOf(component)} lacks ${owner}.${name}, which its config asks for`)
    if (matrixShape(tensor.shape, transposed).join() !== matrixShape(shape, transposed).join())
      throw new KandinskyError(
        'SHAPE_MISMATCH',
        `Expected shape [${shape.join(', ')}] for ${owner}.${name} by its config but ${tensor.path} has [${tensor.shape.join(', ')}]`,
      )
    const flat = tensor.shape.length > 4 ? { shape: [...matrixShape(tensor.shape)] } : {}
    const source = { ...tensor, ...flat, transposed }
    return { ...source, target: targetType(owner, source, precision, weights, rules, onFallback) }
  })
}

/** Every weight that a component's network has. @throws KandinskyError `UNSUPPORTED_MODEL` */
export function specsOf({ className, name, config, tensors }: Component): TensorSpec[] {
  return binding().describeNetwork(
    className,
    name,
    config,
    tensors.map((tensor) => tensor.name),
  )
}

function whereOf({ tensors, name }: Component): string {
  return tensors[0]?.path ?? `The empty component ${name}`
}

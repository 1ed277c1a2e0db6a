// Which type each weight gets when a checkpoint is loaded or converted with quantized weights.
//
// The large matrices become what was asked for. The exceptions below are few in bytes and large in effect: errors of
// quantized matrices average out over a row of hundreds of values, errors of a gain or an offset do not.
import { invalid, KandinskyError } from '../errors.js'
import type { SourceType, WeightType } from '../native.js'

/** Every type that `weights` and rules take, from exact to small. */
export const WEIGHT_TYPES = ['f32', 'f16', 'bf16', 'q8_0', 'q6_K', 'q5_K', 'q5_0', 'q4_K', 'q4_0'] as const

/** A user's exception for matrices: the first whose pattern is found in "<component>.<tensor name>" decides. */
export interface Rule {
  pattern: RegExp
  type: WeightType
}

/**
 * Patterns of weights that stay f32, whatever the target. Together they hold a few MB of a network at most.
 */
const EXACT = [
  // The first and the last convolution meet the latents themselves, where an error is a fault of the picture; their
  // rows (4 or 9 channels x 3 x 3) fit no block anyway.
  /(^|\.)conv_(in|out)\./,
  // Added to every token of every step, or the state that is read out at the end.
  /(^|\.)(positional_embedding|position_embeddings?|prd_embedding|class_embedding|token_type_embeddings)(\.|$)/,
  // Statistics that scale the whole image embedding.
  /(^|\.)clip_(mean|std)$/,
  // SpatialNorm (MoVQ): 4 latent channels become gain and offset of every normalised activation.
  /\.conv_[yb]\./,
  // 4 x 4 channels around the latents.
  /(^|\.)(post_)?quant_conv\./,
]

/**
 * Patterns of weights that become f16 when smaller types are asked for: about 1 % of the bytes of a network.
 */
const HALF = [
  // A vector, not a batch of pixels, passes these and reaches every layer: the error does not average out.
  /(^|\.)(time_embedding|add_embedding)\./,
  // The prior's prediction itself.
  /(^|\.)proj_to_clip_embeddings\./,
  // Only looked up: a row is used as it is, so small blocks save file size at the price of every later layer.
  /(^|\.)(token_embedding|word_embeddings|shared|embed_tokens)\./,
]

/** MoVQ is the last network, nothing repairs its errors, and below q8_0 it would only save 35 MB. */
const AT_LEAST_Q8_0 = new Set(['VQModel'])

/** What a type falls to where a row is no whole number of its blocks: K-quants take 256 values, legacy ones 32. */
const FALLBACK: Partial<Record<WeightType, WeightType>> = {
  q6_K: 'q8_0',
  q5_K: 'q5_0',
  q4_K: 'q4_0',
  q8_0: 'f16',
  q5_0: 'f16',
  q4_0: 'f16',
}

/**
 * The type that a stored tensor shall have in memory or in our GGUF.
 *
 * @param className the network's class, e.g. "UNet2DConditionModel"
 * @param component its name in the checkpoint, e.g. "unet"
 * @param tensor name without the component's prefix, shape and type as stored
 * @param weights the wanted type of large matrices; undefined keeps what the file has
 * @param rules exceptions that go before all others; vectors stay f32 nonetheless
 * @throws KandinskyError `INVALID_ARGUMENT` if a rule's type does not fit the tensor's rows
 */
export function targetType(
  className: string,
  component: string,
  tensor: { name: string; shape: readonly number[]; type: SourceType },
  weights?: WeightType,
  rules: readonly Rule[] = [],
): WeightType {
  const { name, shape, type } = tensor
  // Vectors: norms, biases and the like. Widening them is exact, and element-wise kernels want float32.
  if (shape.filter((n) => n !== 1).length < 2) return 'f32'
  const row = rowLength(shape)
  const rule = rules.find(({ pattern }) => `${component}.${name}`.search(pattern) >= 0)
  if (rule) {
    if (row % blockLength(rule.type) !== 0)
      throw new KandinskyError(
        'INVALID_ARGUMENT',
        `Expected a type whose blocks fit rows of ${row} values for ${component}.${name} but rule ` +
          `${rule.pattern.source}=${rule.type} needs a multiple of ${blockLength(rule.type)}`,
      )
    return rule.type
  }
  if (EXACT.some((pattern) => pattern.test(name))) return 'f32'
  if (weights === undefined) return isWeightType(type) ? type : 'f32'
  if (isFloat(weights)) return weights
  if (HALF.some((pattern) => pattern.test(name))) return 'f16'
  return fitToRow(AT_LEAST_Q8_0.has(className) ? 'q8_0' : weights, row)
}

/** Values per row: convolution kernels [out, in, kh, kw] are stored as matrices [out, kh*kw*in]. */
function rowLength(shape: readonly number[]): number {
  return shape.length === 4 ? shape[1]! * shape[2]! * shape[3]! : (shape.at(-1) ?? 1)
}

function fitToRow(type: WeightType, row: number): WeightType {
  return row % blockLength(type) === 0 ? type : fitToRow(FALLBACK[type]!, row)
}

function blockLength(type: WeightType): number {
  if (isFloat(type)) return 1
  return type.endsWith('_K') ? 256 : 32
}

function isFloat(type: WeightType): boolean {
  return type === 'f32' || type === 'f16' || type === 'bf16'
}

function isWeightType(type: unknown): type is WeightType {
  return (WEIGHT_TYPES as readonly unknown[]).includes(type)
}

/** Checks an option that names a weight type; undefined passes. */
export function checkWeightType(value: unknown, what = 'weights'): WeightType | undefined {
  if (value !== undefined && !isWeightType(value)) throw invalid(what, `one of ${WEIGHT_TYPES.join(', ')}`, value)
  return value
}

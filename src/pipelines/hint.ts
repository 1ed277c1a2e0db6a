// Control images: what a ControlNet decoder sees beside the embedding.
import { KandinskyError } from '../errors.js'
import { convertPixels } from '../pixels.js'
import { checkRange, resolveImages, type TensorOrImage, toTensor } from '../processing.js'
import { resizePixels } from '../resize.js'
import { concatRows, repeatRows, Tensor } from '../tensor.js'
import type { CheckedCall } from './decoder.js'
import { expectOneOrEach } from './options.js'

export interface HintOptions {
  /**
   * Control image (depth, white is near): a picture, which is resized to the size of the result, or a tensor
   * [3, height, width] or [n, 3, height, width] of values in 0..1; one for all embeddings, or one per embedding
   */
  hint: TensorOrImage | readonly TensorOrImage[]
}

/**
 * @returns [rows, 3, height, width] in 0..1, one row per picture of the call
 * @throws KandinskyError `INVALID_ARGUMENT`, `SHAPE_MISMATCH`
 */
export async function loadHint(hint: HintOptions['hint'], call: CheckedCall): Promise<Tensor> {
  const { embeddings, count, height, width, signal } = call
  const hintShape = (shape: readonly number[]) => (shape.length === 3 ? [1, ...shape] : shape)
  const parts = (await resolveImages(hint, { signal, name: 'hint', tensorShape: hintShape })).map((one) => {
    if (!(one instanceof Tensor))
      return toTensor(convertPixels(resizePixels(one, width, height, 'bicubic', 1), 'RGB'), [
        (value) => Math.fround(value / 255),
      ])
    const [, channels, h, w] = one.shape
    if (channels !== 3 || h !== height || w !== width)
      throw new KandinskyError(
        'SHAPE_MISMATCH',
        `Expected a tensor of shape [n, 3, ${height}, ${width}] for hint but received [${one.shape.join(', ')}]`,
      )
    checkRange('hint', one, 0)
    return one
  })
  const hints = concatRows(parts)
  return repeatRows(onePerEmbedding('hint', hints, embeddings), count)
}

/** Rows for so many embeddings: one serves all. @throws KandinskyError `SHAPE_MISMATCH` for any other number */
export function onePerEmbedding(name: string, rows: Tensor, embeddings: number): Tensor {
  expectOneOrEach(name, rows.shape[0]!, 'embedding', embeddings)
  return repeatRows(rows, embeddings / rows.shape[0]!)
}

// Batches that memory has no room for, in parts: rows of a batch do not see each other in any network here, and a row comes
// out the same whatever stands beside it.
import { KandinskyError } from '../../errors.js'
import type { Integers } from '../../networks/calls.js'
import { concatRows, sliceRows, Tensor } from '../../tensor.js'

type Inputs = { sample: Tensor; timestep: Tensor } & Readonly<Record<string, Tensor | Integers>>

/**
 * `run` as it is, and where it fails for lack of memory, again on halves of the batch, down to single rows. The size that
 * fitted is that of later calls: a loop fails once.
 */
export function inParts<I extends Inputs>(run: (inputs: I) => Promise<Tensor>): (inputs: I) => Promise<Tensor> {
  let most = Infinity
  const attempt = async (inputs: I): Promise<Tensor> => {
    const rows = inputs.sample.shape[0]!
    if (rows <= most) {
      try {
        return await run(inputs)
      } catch (error) {
        if (!(error instanceof KandinskyError) || error.code !== 'OUT_OF_MEMORY' || rows === 1) throw error
        most = Math.min(most, Math.ceil(rows / 2))
      }
    }
    const size = most
    const results: Tensor[] = []
    for (let start = 0; start < rows; start += size)
      results.push(await attempt(part(inputs, start, Math.min(start + size, rows))))
    return concatRows(results)
  }
  return attempt
}

/** Everything but the timestep has a row for each of the batch. */
function part<I extends Inputs>({ timestep, ...inputs }: I, start: number, end: number): I {
  const rows = Object.entries(inputs).map(([name, value]) => [name, rowsFrom(value as Tensor | Integers, start, end)])
  return { timestep, ...Object.fromEntries(rows) }
}

function rowsFrom(value: Tensor | Integers, start: number, end: number): Tensor | Integers {
  if (value instanceof Tensor) return sliceRows(value, start, end)
  const size = value.data.length / value.shape[0]!
  return { data: value.data.slice(start * size, end * size), shape: [end - start, ...value.shape.slice(1)] }
}

import assert from 'node:assert/strict'

/**
 * Fails, naming the tensor, where and by how much, unless shapes are equal and every value is within `tolerance` of the
 * expected one, relative for values above 1 and absolute below.
 */
export function assertClose(name, actual, expected, tolerance) {
  assert.deepEqual([...actual.shape], [...expected.shape], `${name}: shape`)
  const worst = { error: -1, index: 0 }
  for (let index = 0; index < expected.data.length; index++) {
    const error = Math.abs(actual.data[index] - expected.data[index]) / Math.max(1, Math.abs(expected.data[index]))
    if (Number.isNaN(error)) assert.fail(`${name}: [${index}] is ${actual.data[index]}, not ${expected.data[index]}`)
    if (error > worst.error) Object.assign(worst, { error, index })
  }
  const { error, index } = worst
  const values = `${actual.data[index]}, not ${expected.data[index]}`
  assert.ok(error <= tolerance, `${name}: [${index}] is ${values}; differs by ${error}, allowed is ${tolerance}`)
}

/** dB of two pictures' bytes. */
export function psnr(a, b) {
  const error = a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length
  return 10 * Math.log10(255 ** 2 / error)
}

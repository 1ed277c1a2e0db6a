// Small numerics that more than one algorithm needs.

/** To whole numbers, halves to even ones, as Python and torch round: adding 1.5 * 2^52 makes the double itself do it. */
export function roundHalfEven(value: number): number {
  return value + 1.5 * 2 ** 52 - 1.5 * 2 ** 52
}

/** Solves `matrix` x = `right` by Gaussian elimination with pivoting; the matrix must not be singular. */
export function solve(matrix: readonly (readonly number[])[], right: readonly number[]): number[] {
  const rows = matrix.map((row, i) => [...row, right[i]!])
  for (let column = 0; column < rows.length; column++) {
    const pivot = rows.slice(column).reduce((a, b) => (Math.abs(b[column]!) > Math.abs(a[column]!) ? b : a))
    rows[rows.indexOf(pivot)] = rows[column]!
    rows[column] = pivot
    for (const row of rows) {
      if (row === pivot) continue
      const factor = row[column]! / pivot[column]!
      for (let i = column; i < row.length; i++) row[i] = row[i]! - factor * pivot[i]!
    }
  }
  return rows.map((row, i) => row.at(-1)! / row[i]!)
}

// What reading prompts takes, whatever the text encoder.
import type { Integers } from '../../networks/calls.js'
import type { Tokenizer } from '../../tokenizers/tokenizer.js'

/** Tells which part of each prompt the text encoder does not see. */
export function warnTruncated(
  reader: string,
  { modelMaxLength }: Tokenizer,
  truncated: readonly (string | undefined)[],
): void {
  for (const [i, removed] of truncated.entries())
    if (removed !== undefined)
      process.emitWarning(
        `${reader} reads ${modelMaxLength} tokens; this part of prompt ${i} was cut off: ${excerpt(removed)}`,
        'KandinskyWarning',
      )
}

const SHOWN = 200

/** Short and without what moves the cursor of a terminal. */
function excerpt(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not reach a terminal
  const plain = text.slice(0, SHOWN).replace(/[\x00-\x1f\x7f-\x9f]/g, ' ')
  return text.length > SHOWN ? `${plain}… (${text.length} characters)` : plain
}

/** Rows of equal length as one tensor of integers. */
export function integers(rows: Int32Array[]): Integers {
  const width = rows[0]?.length ?? 0
  const data = new Int32Array(rows.length * width)
  for (const [i, row] of rows.entries()) data.set(row, i * width)
  return { data, shape: [rows.length, width] }
}

// SentencePiece's "precompiled charsmap" (nmt_nfkc and its relatives): a map from byte sequences to replacements, as a
// double-array trie (darts-clone) followed by a pool of zero-terminated strings. SentencePiece's normalizer.cc writes it.
//
// It is applied as the Rust tokenizers library does (tokenizers/src/normalizers/precompiled.rs): to a grapheme cluster
// of up to five bytes as a whole, and of its entries the SHORTEST that matches counts, whatever follows is dropped with
// it; otherwise to each code point. @huggingface/tokenizers approximates the map by NFKC and a few expressions, which
// makes U+200D a space and treats U+0085 and U+0344 differently.
import { badFile } from './tokenizer.js'

/** Longer clusters are not looked up as a whole. */
const MAX_CLUSTER_BYTES = 5

/** Unicode's longest compatibility decomposition (U+FDFA) has 33. */
const MAX_REPLACEMENT_BYTES = 256

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true })
const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' })

export class Charsmap {
  readonly #units: Uint32Array
  readonly #pool: Uint8Array

  /**
   * @param bytes byte length of the trie (32 bits, little endian), trie, strings
   * @param source file that it is from, for messages
   * @throws KandinskyError `BAD_FILE`
   */
  constructor(bytes: Uint8Array, source: string) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const size = bytes.length >= 4 ? view.getUint32(0, true) : 0
    if (size === 0 || size % 4 !== 0 || size > bytes.length - 4)
      throw badFile(
        `Expected a precompiled charsmap of ${size} trie bytes in ${source} but found ${bytes.length} bytes`,
      )
    this.#units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true))
    this.#pool = bytes.slice(4 + size)
    // One letter could become megabytes otherwise, and a prompt gigabytes.
    for (let start = 0, end = 0; end < this.#pool.length; end++) {
      if (end - start > MAX_REPLACEMENT_BYTES)
        throw badFile(`Expected replacements of at most ${MAX_REPLACEMENT_BYTES} bytes in the charsmap of ${source}`)
      if (this.#pool[end] === 0) start = end + 1
    }
    if (this.#pool.at(-1) !== 0) throw badFile(`Expected zero-terminated strings in the charsmap of ${source}`)
    try {
      decoder.decode(this.#pool)
    } catch {
      throw badFile(`Expected UTF-8 strings in the charsmap of ${source}`)
    }
  }

  /** Lone surrogates count as U+FFFD. */
  normalize(text: string): string {
    let result = ''
    for (const { segment } of graphemes.segment(text)) {
      const bytes = encoder.encode(segment)
      const whole = bytes.length <= MAX_CLUSTER_BYTES ? this.#lookUp(bytes) : undefined
      if (whole !== undefined) result += whole
      else for (const character of segment) result += this.#lookUp(encoder.encode(character)) ?? character
    }
    return result
  }

  /** The replacement of the shortest entry that `bytes` begin with. */
  #lookUp(bytes: Uint8Array): string | undefined {
    let node = offset(this.#units[0]!)
    for (const byte of bytes) {
      if (byte === 0) return undefined
      node ^= byte
      const unit = this.#units[node]
      if (unit === undefined || label(unit) !== byte) return undefined
      node ^= offset(unit)
      if (hasLeaf(unit)) return this.#string((this.#units[node] ?? 0) & 0x7fffffff)
    }
    return undefined
  }

  #string(start: number): string {
    const end = this.#pool.indexOf(0, start)
    if (end < 0) throw badFile('Expected a charsmap whose entries point at its strings')
    return new TextDecoder().decode(this.#pool.subarray(start, end))
  }
}

// Fields of a unit of darts-clone: label in bits 0 to 7 (bit 31 marks a value), bit 8: a value follows, bit 9: the
// offset in bits 10 to 30 counts in steps of 256.
function label(unit: number): number {
  return (unit & 0x800000ff) >>> 0
}

function hasLeaf(unit: number): boolean {
  return (unit & 0x100) !== 0
}

function offset(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6)
}

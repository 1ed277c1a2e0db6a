import { readFileSync } from 'node:fs'

/**
 * Reads a fixture file of the safetensors format (8-byte header length, JSON header, raw little-endian data).
 *
 * float16 and bfloat16 become float32 (exactly); int64 becomes numbers, bigints beyond 2^53; bool becomes 0 and 1.
 *
 * @param {string | URL} path
 * @returns {Map<string, { dtype: string, shape: number[],
 *   data: Float32Array | Float64Array | Int32Array | Uint32Array | Uint8Array | (number | bigint)[] }>}
 *   `dtype` is the stored one, in the format's spelling (`F32`, `F16`, `I64` ...)
 */
export function readSafetensors(path) {
  const file = readFileSync(path)
  const headerLength = Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerLength))
  const tensors = new Map()
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue
    const [begin, end] = entry.data_offsets.map((offset) => 8 + headerLength + offset)
    // copied, because typed arrays need aligned offsets
    const bytes = new Uint8Array(file.subarray(begin, end)).buffer
    tensors.set(name, { dtype: entry.dtype, shape: entry.shape, data: convert(entry.dtype, bytes, name) })
  }
  return tensors
}

function convert(dtype, bytes, name) {
  switch (dtype) {
    case 'F32':
      return new Float32Array(bytes)
    case 'F64':
      return new Float64Array(bytes)
    case 'F16':
      return Float32Array.from(new Uint16Array(bytes), halfToNumber)
    case 'BF16':
      return new Float32Array(Uint32Array.from(new Uint16Array(bytes), (bits) => bits << 16).buffer)
    case 'I32':
      return new Int32Array(bytes)
    case 'U32':
      return new Uint32Array(bytes)
    case 'U8':
    case 'BOOL':
      return new Uint8Array(bytes)
    case 'I64':
      return Array.from(new BigInt64Array(bytes), numberIfSafe)
    default:
      throw new Error(`${name}: dtype ${dtype} is not supported by this helper`)
  }
}

function halfToNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 1023
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  if (exponent === 0) return sign * fraction * 2 ** -24
  return sign * (1024 + fraction) * 2 ** (exponent - 25)
}

function numberIfSafe(value) {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}

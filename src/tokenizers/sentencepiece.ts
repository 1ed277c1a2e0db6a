// Reads a SentencePiece model: the protobuf message ModelProto of sentencepiece_model.proto, of which a Unigram
// tokenizer needs the pieces with their scores and the charsmap of the normalizer.
import { badFile } from './tokenizer.js'

export interface SentencePieceModel {
  /** in the order of SentencePiece's ids; the score is a log probability */
  pieces: [piece: string, score: number][]
  charsmap: Uint8Array
}

/** XLM-R, the largest, has 250,000 */
const MAX_PIECES = 1 << 20

const MODEL = { pieces: 1, trainerSpec: 2, normalizerSpec: 3 }
const PIECE = { piece: 1, score: 2 }
const TRAINER = { modelType: 3, byteFallback: 35 }
const UNIGRAM = 1
const NORMALIZER = { precompiledCharsmap: 2 }

/**
 * @param source name of the file, for messages
 * @throws KandinskyError `BAD_FILE`, also for models that are not Unigram
 */
export function readSentencePieceModel(bytes: Uint8Array, source: string): SentencePieceModel {
  const pieces: SentencePieceModel['pieces'] = []
  let charsmap: Uint8Array = new Uint8Array()
  for (const [field, value] of fields(bytes, source)) {
    if (field === MODEL.pieces) pieces.push(readPiece(message(value, source), source))
    if (pieces.length > MAX_PIECES) throw badFile(`Expected at most ${MAX_PIECES} pieces in ${source}`)
    if (field === MODEL.trainerSpec) checkTrainer(message(value, source), source)
    if (field === MODEL.normalizerSpec)
      for (const [name, part] of fields(message(value, source), source))
        if (name === NORMALIZER.precompiledCharsmap) charsmap = message(part, source)
  }
  if (pieces.length === 0) throw badFile(`Expected a SentencePiece model but found no pieces in ${source}`)
  if (charsmap.length === 0) throw badFile(`Expected a precompiled charsmap in ${source}`)
  return { pieces, charsmap }
}

function readPiece(bytes: Uint8Array, source: string): [string, number] {
  let piece: string | undefined
  let score = 0
  for (const [field, value] of fields(bytes, source)) {
    if (field === PIECE.piece) piece = text(message(value, source), source)
    if (field === PIECE.score) score = float(value)
  }
  if (!piece || !Number.isFinite(score)) throw badFile(`Expected pieces with a text and a finite score in ${source}`)
  return [piece, score]
}

function checkTrainer(bytes: Uint8Array, source: string): void {
  for (const [field, value] of fields(bytes, source)) {
    if (field === TRAINER.modelType && value !== UNIGRAM) throw badFile(`Expected a Unigram model in ${source}`)
    if (field === TRAINER.byteFallback && value !== 0) throw badFile(`Expected ${source} without byte fallback`)
  }
}

/** A varint as number, everything else as its bytes. */
type Value = number | Uint8Array

/** The fields of a protobuf message in their order: https://protobuf.dev/programming-guides/encoding */
function* fields(bytes: Uint8Array, source: string): Generator<[field: number, value: Value]> {
  let position = 0
  const take = (length: number) => {
    if (length > bytes.length - position) throw badFile(`${source} ends inside a field; it is damaged or not protobuf`)
    position += length
    return bytes.subarray(position - length, position)
  }
  // Up to ten bytes of seven bits; above 2^53 a number is inexact, and meaningless in this format.
  const varint = () => {
    for (let value = 0, factor = 1, i = 0; i < 10; i++, factor *= 128) {
      const byte = take(1)[0]!
      value += (byte & 0x7f) * factor
      if (byte < 0x80) return value
    }
    throw badFile(`Expected integers of at most ten bytes in ${source}; it is damaged or not protobuf`)
  }
  while (position < bytes.length) {
    const key = varint()
    const field = Math.floor(key / 8)
    switch (key % 8) {
      case 0:
        yield [field, varint()]
        break
      case 1:
        yield [field, take(8)]
        break
      case 2:
        yield [field, take(varint())]
        break
      case 5:
        yield [field, take(4)]
        break
      default:
        throw badFile(`Expected a protobuf message in ${source} but found wire type ${key % 8}`)
    }
  }
}

function message(value: Value, source: string): Uint8Array {
  if (typeof value === 'number')
    throw badFile(`Expected bytes but found a number in ${source}; it is no SentencePiece model`)
  return value
}

function text(bytes: Uint8Array, source: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw badFile(`Expected pieces in UTF-8 in ${source}`)
  }
}

function float(value: Value): number {
  if (typeof value === 'number' || value.length !== 4) return Number.NaN
  return new DataView(value.buffer, value.byteOffset, 4).getFloat32(0, true)
}

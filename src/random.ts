// Gaussian noise exactly as PyTorch draws it, so that a seed gives the reference's picture.
//
// Sources (pytorch/pytorch): aten/src/ATen/core/{MT19937RNGEngine,DistributionsHelper}.h, native/cpu/
// DistributionTemplates.h for 'torch-cpu'; native/cuda/DistributionTemplates.h and cuRAND's curand_normal.h for
// 'torch-cuda'. Easy to get wrong: noise of a 16-bit dtype is not always the rounded float32 noise (see TorchCpuNormal).
import { invalid, KandinskyError } from './errors.js'
import { recognise } from './realms.js'
import { concatRows, elementCount, sameShape, Tensor } from './tensor.js'

/** The dtype in which the reference's pipeline runs, and therefore draws its noise. */
export type NoiseDtype = 'float32' | 'float16' | 'bfloat16'

/** Whose draws a generator repeats: torch's on a CPU (Mersenne Twister) or on CUDA (Philox). */
export type GeneratorAlgorithm = 'torch-cpu' | 'torch-cuda'

/** Where pipelines and schedulers get their noise from: a `Generator`, or anything else with `randn`. */
export interface RandomSource {
  /** Standard normal values; with a 16-bit `dtype` (default `float32`) they are rounded to what that type can hold. */
  randn(shape: readonly number[], options?: { dtype?: NoiseDtype }): Tensor
}

/** How far a stream has been drawn: streams of one seed at equal positions draw the same from there on. */
export interface GeneratorPosition {
  /** random words (`torch-cpu`) or draws (`torch-cuda`) so far */
  drawn: number
  /** the value that the next draw of fewer than 16 begins with */
  spare?: number | undefined
}

interface NormalStream {
  position: GeneratorPosition
  /** Fills `out` with the next standard normal values. */
  fill(out: Float32Array, dtype: NoiseDtype): void
}

/**
 * A seeded stream of random numbers. It is stateful: each draw continues where the previous one ended, so the same
 * object used twice gives two different pictures.
 *
 * `torch-cpu` draws what `torch.randn(shape, generator=torch.Generator('cpu').manual_seed(seed), dtype=dtype)` draws
 * (MT19937, measured against torch 2.13 with AVX-512: at most 2.4e-7 off, because torch approximates log, sin and cos).
 *
 * `torch-cuda` draws what `torch.randn(..., device='cuda')` draws (Philox 4x32-10, as of torch 2) as long as one draw
 * has no more values than the GPU has resident threads: 43,008 on an RTX 3060, 196,608 on an RTX 4090, 221,184 on an
 * A100. Beyond that torch's values depend on the GPU model; this stream then goes on with one thread per value, as
 * rng_philox.py of AUTOMATIC1111/stable-diffusion-webui does, whose published values it meets within 1e-6.
 */
export class Generator implements RandomSource {
  /** As given, or the one that was chosen. */
  readonly seed: number | bigint
  readonly algorithm: GeneratorAlgorithm
  readonly #stream: NormalStream

  static {
    recognise(Generator, 'Generator')
  }

  /**
   * @param seed an integer from -2^63 to 2^64 - 1, beyond 2^53 as a bigint; negative ones wrap to 64 bits as in torch.
   *   `torch-cpu` uses the low 32 bits only. Without it a random 32-bit seed is chosen.
   * @throws KandinskyError `INVALID_ARGUMENT`
   */
  constructor(seed?: number | bigint, algorithm: GeneratorAlgorithm = 'torch-cpu') {
    if (!Object.hasOwn(streams, algorithm)) throw invalid('algorithm', Object.keys(streams).join(' or '), algorithm)
    this.seed = seed ?? crypto.getRandomValues(new Uint32Array(1))[0]!
    this.algorithm = algorithm
    this.#stream = new streams[algorithm](toUint64(this.seed))
  }

  /** Where the stream is; it can be moved to any position that a generator of the same seed had. */
  get position(): GeneratorPosition {
    return this.#stream.position
  }
  /** @throws KandinskyError `INVALID_ARGUMENT` */
  set position(position: GeneratorPosition) {
    const { drawn, spare } = position ?? {}
    if (!Number.isSafeInteger(drawn) || drawn < 0 || !['number', 'undefined'].includes(typeof spare))
      throw invalid('position', 'a position that a generator had', position)
    this.#stream.position = position
  }

  /**
   * @param shape at least one dimension
   * @throws KandinskyError `INVALID_ARGUMENT`
   */
  randn(shape: readonly number[], { dtype = 'float32' }: { dtype?: NoiseDtype } = {}): Tensor {
    if (!Object.hasOwn(noiseRounding, dtype)) throw invalid('dtype', Object.keys(noiseRounding).join(', '), dtype)
    const tensor = new Tensor(new Float32Array(elementCount(shape)), shape)
    this.#stream.fill(tensor.data, dtype)
    noiseRounding[dtype](tensor.data)
    return tensor
  }
}

/**
 * One generator per picture, seeded with `seed`, `seed + 1` …: each picture can be made again without the others.
 * @param seed as a Generator takes it; default: a random one
 * @throws KandinskyError `INVALID_ARGUMENT`
 */
export function seededGenerators(seed: number | bigint | undefined, count: number): Generator[] {
  const first = toUint64(new Generator(seed).seed)
  return Array.from({ length: count }, (_, i) => new Generator(i === 0 ? (seed ?? Number(first)) : plus(first, i)))
}

/** In 64 bits, as a number where it is exact. */
function plus(seed: bigint, i: number): number | bigint {
  const sum = BigInt.asUintN(64, seed + BigInt(i))
  return sum <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(sum) : sum
}

/**
 * One draw for a whole batch, as diffusers' `randn_tensor`: a single source draws `shape` at once; of a list, one
 * source per batch entry, each draws `[1, ...]`; a list of one counts as a single source.
 *
 * @param shape batch first
 * @throws KandinskyError `INVALID_ARGUMENT` when the list's length is not the batch size, `SHAPE_MISMATCH` when a
 *   source returns another shape
 */
export function randnTensor(
  shape: readonly number[],
  generator: RandomSource | readonly RandomSource[],
  dtype: NoiseDtype = 'float32',
): Tensor {
  const sources = Array.isArray(generator) ? (generator as readonly RandomSource[]) : [generator as RandomSource]
  if (sources.length === 1) return draw(sources[0]!, shape, dtype)
  if (sources.length !== shape[0])
    throw invalid('generator', `one generator or a list of ${shape[0]} (the batch size)`, generator)
  return concatRows(sources.map((source) => draw(source, [1, ...shape.slice(1)], dtype)))
}

function draw(source: RandomSource, shape: readonly number[], dtype: NoiseDtype): Tensor {
  if (typeof source?.randn !== 'function') throw invalid('generator', 'an object with a randn method', source)
  const tensor = source.randn(shape, { dtype })
  if (!(tensor instanceof Tensor)) throw invalid("the result of the generator's randn", 'a Tensor', tensor)
  if (!sameShape(tensor.shape, shape))
    throw new KandinskyError(
      'SHAPE_MISMATCH',
      `Expected shape [${shape.join(', ')}] from the generator's randn but received [${tensor.shape.join(', ')}]`,
    )
  return tensor
}

function toUint64(seed: number | bigint): bigint {
  const valid = typeof seed === 'bigint' ? seed >= -(2n ** 63n) && seed < 2n ** 64n : Number.isSafeInteger(seed)
  if (!valid) throw invalid('seed', 'an integer from -2^63 to 2^64 - 1 (beyond 2^53 as a bigint)', seed)
  return BigInt.asUintN(64, BigInt(seed))
}

// ---- torch-cpu ------------------------------------------------------------------------------------------------------

const BLOCK = 16
const TWO_PI_F32 = Math.fround(2 * Math.PI)

/**
 * `normal_` of torch's CPU generator. Fewer than 16 values are drawn one by one in double precision, the second value
 * of each Box-Muller pair being kept for the next such draw, however many longer draws lie between. From 16 values on
 * they are drawn in blocks of 16 from 24-bit uniforms. If the count is no multiple of 16, the last 16 values are drawn
 * afresh over what was there; the float32 kernel has by then used a word for every value, the 16-bit one only for
 * full blocks, and so their streams part.
 */
class TorchCpuNormal implements NormalStream {
  readonly #words: Mt19937
  #cached: number | undefined

  constructor(seed: bigint) {
    this.#words = new Mt19937(Number(seed & 0xffffffffn))
  }

  get position(): GeneratorPosition {
    const drawn = this.#words.drawn
    return this.#cached === undefined ? { drawn } : { drawn, spare: this.#cached }
  }
  set position({ drawn, spare }: GeneratorPosition) {
    this.#words.drawn = drawn
    this.#cached = spare
  }

  fill(out: Float32Array, dtype: NoiseDtype): void {
    if (out.length < BLOCK) {
      for (let i = 0; i < out.length; i++) out[i] = this.#nextDouble()
      return
    }
    const rest = out.length % BLOCK
    for (let start = 0; start + BLOCK <= out.length; start += BLOCK) this.#fillBlock(out, start)
    if (rest === 0) return
    if (dtype === 'float32') for (let i = 0; i < rest; i++) this.#words.next()
    this.#fillBlock(out, out.length - BLOCK)
  }

  /** Eight uniforms give the radii, the next eight the angles; cosines come first, then the sines. */
  #fillBlock(out: Float32Array, start: number): void {
    for (let i = start; i < start + BLOCK; i++) out[i] = (this.#words.next() & 0xffffff) / 2 ** 24
    for (let i = start; i < start + BLOCK / 2; i++) {
      const radius = Math.fround(Math.sqrt(Math.fround(-2 * Math.fround(Math.log(1 - out[i]!)))))
      const angle = Math.fround(TWO_PI_F32 * out[i + BLOCK / 2]!)
      out[i] = radius * Math.fround(Math.cos(angle))
      out[i + BLOCK / 2] = radius * Math.fround(Math.sin(angle))
    }
  }

  #nextDouble(): number {
    const cached = this.#cached
    this.#cached = undefined
    if (cached !== undefined) return cached
    const angle = 2 * Math.PI * this.#uniform53()
    const radius = Math.sqrt(-2 * Math.log1p(-this.#uniform53()))
    this.#cached = radius * Math.sin(angle)
    return radius * Math.cos(angle)
  }

  #uniform53(): number {
    const high = this.#words.next() & 0x1fffff
    return (high * 2 ** 32 + this.#words.next()) / 2 ** 53
  }
}

/** Matsumoto and Nishimura, "Mersenne Twister", 1998, seeded with one 32-bit word. */
class Mt19937 {
  readonly #state = new Uint32Array(624)
  #index = 624
  /** how often the state was made anew */
  #twists = 0

  constructor(private readonly seed: number) {
    this.#begin()
  }

  /** Words so far. Moving on takes two milliseconds for a million words, moving back begins with the first. */
  get drawn(): number {
    return (this.#twists - 1) * 624 + this.#index
  }
  set drawn(count: number) {
    if (count < this.drawn) this.#begin()
    while (count > this.#twists * 624) this.#twist()
    this.#index = count - (this.#twists - 1) * 624
  }

  #begin(): void {
    const state = this.#state
    state[0] = this.seed
    for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1]! ^ (state[i - 1]! >>> 30)) + i
    this.#index = 624
    this.#twists = 0
  }

  next(): number {
    if (this.#index === 624) this.#twist()
    let y = this.#state[this.#index++]!
    y ^= y >>> 11
    y ^= (y << 7) & 0x9d2c5680
    y ^= (y << 15) & 0xefc60000
    return (y ^ (y >>> 18)) >>> 0
  }

  #twist(): void {
    const state = this.#state
    for (let i = 0; i < 624; i++) {
      const y = (state[i]! & 0x80000000) | (state[(i + 1) % 624]! & 0x7fffffff)
      state[i] = state[(i + 397) % 624]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0)
    }
    this.#index = 0
    this.#twists++
  }
}

// ---- torch-cuda -----------------------------------------------------------------------------------------------------

const TWO_POW_MINUS_32 = 2 ** -32
const TWO_PI_POW_MINUS_32 = TWO_PI_F32 * TWO_POW_MINUS_32

/**
 * `normal_` of torch's CUDA generator: thread `i` runs cuRAND's Philox with the seed as key, `i` as subsequence and the
 * number of earlier draws as offset (each draw advances the offset by 4, which is one counter step), and of the four
 * normals that `curand_normal4` makes keeps the first for value `i`.
 */
class TorchCudaNormal implements NormalStream {
  readonly #key: readonly [number, number]
  #draws = 0

  constructor(seed: bigint) {
    this.#key = [Number(seed & 0xffffffffn), Number(seed >> 32n)]
  }

  get position(): GeneratorPosition {
    return { drawn: this.#draws }
  }
  set position({ drawn }: GeneratorPosition) {
    this.#draws = drawn
  }

  fill(out: Float32Array): void {
    if (out.length === 0) return // torch launches nothing then and keeps its offset
    for (let i = 0; i < out.length; i++) {
      const [x, y] = philox4x32(this.#draws, i, this.#key)
      const u = Math.fround(Math.fround(x) * TWO_POW_MINUS_32 + TWO_POW_MINUS_32 / 2)
      const angle = Math.fround(Math.fround(y) * TWO_PI_POW_MINUS_32 + TWO_PI_POW_MINUS_32 / 2)
      const radius = Math.fround(Math.sqrt(Math.fround(-2 * Math.fround(Math.log(u)))))
      out[i] = radius * Math.fround(Math.sin(angle))
    }
    this.#draws++
  }
}

/**
 * The first two words of Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) for the
 * counter (offset, 0, subsequence, 0).
 */
function philox4x32(offset: number, subsequence: number, key: readonly [number, number]): [number, number] {
  let [c0, c1, c2, c3] = [offset, 0, subsequence, 0]
  let [k0, k1] = key
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, c0)
    const high2 = multiplyHigh(0xcd9e8d57, c2)
    const low0 = Math.imul(0xd2511f53, c0) >>> 0
    const low2 = Math.imul(0xcd9e8d57, c2) >>> 0
    c0 = (high2 ^ c1 ^ k0) >>> 0
    c1 = low2
    c2 = (high0 ^ c3 ^ k1) >>> 0
    c3 = low0
    k0 = (k0 + 0x9e3779b9) >>> 0
    k1 = (k1 + 0xbb67ae85) >>> 0
  }
  return [c0, c1]
}

/** The upper 32 bits of the product of two 32-bit words, in pieces that a double holds exactly. */
function multiplyHigh(a: number, b: number): number {
  const upper = (a >>> 16) * b
  const lower = (a & 0xffff) * b
  return Math.floor((upper + Math.floor(lower / 2 ** 16)) / 2 ** 16)
}

// ---- 16-bit dtypes --------------------------------------------------------------------------------------------------

const noiseRounding: Record<NoiseDtype, (values: Float32Array) => void> = {
  float32: () => {},
  float16: (values) => roundMantissa(values, 10, -14),
  bfloat16: (values) => roundMantissa(values, 7, -126),
}

/** Rounds to nearest even with so many explicit mantissa bits; noise never comes near the types' upper ends. */
function roundMantissa(values: Float32Array, bits: number, minExponent: number): void {
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!
    if (value === 0) continue
    const exponent = Math.max(Math.floor(Math.log2(Math.abs(value))), minExponent)
    // adding 1.5 * 2^52 units makes the double itself round to whole units
    const shift = 1.5 * 2 ** 52 * 2 ** (exponent - bits)
    values[i] = value + shift - shift
  }
}

const streams: Record<GeneratorAlgorithm, new (seed: bigint) => NormalStream> = {
  'torch-cpu': TorchCpuNormal,
  'torch-cuda': TorchCudaNormal,
}

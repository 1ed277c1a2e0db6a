// Generator and randnTensor against recorded draws of torch (test/fixtures/traces/rng).
import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { Generator, randnTensor } from '../../dist/random.js'
import { Tensor } from '../../dist/tensor.js'
import { assertClose } from '../helpers/compare.mjs'
import { replay } from '../helpers/replay.mjs'
import { readSafetensors } from '../helpers/safetensors.mjs'

const recorded = (name) => readSafetensors(new URL(`../fixtures/traces/rng/${name}.safetensors`, import.meta.url))

// torch's vectorised log, sin and cos are approximations: two of its own builds differ by more (fixtures' notes)
const TOLERANCE = 3e-7

test('float32 draws are those of torch.Generator("cpu")', () => {
  for (const [name, expected] of recorded('randn-float32')) {
    const seed = BigInt(/seed(\d+)/.exec(name)[1])
    assertClose(name, new Generator(seed).randn(expected.shape), expected, TOLERANCE)
  }
})

test('float16 and bfloat16 draws are exactly those of torch', () => {
  for (const [name, expected] of recorded('randn-other-dtypes')) {
    const [, dtype, seed] = /^(\w+)\.seed(\d+)/.exec(name)
    if (dtype === 'float64') continue
    const actual = new Generator(Number(seed)).randn(expected.shape, { dtype })
    assert.deepEqual([...actual.data], [...expected.data], name)
  }
})

test('successive draws go on where the last one ended, the cached second value included', () => {
  const generators = new Map()
  for (const [name, expected] of [...recorded('randn-sequences')].sort()) {
    const [order, seed] = name.split('.')
    const key = `${order}.${seed}`
    if (!generators.has(key)) generators.set(key, new Generator(Number(seed.slice('seed'.length))))
    assertClose(name, generators.get(key).randn(expected.shape), expected, TOLERANCE)
  }
})

test('negative seeds wrap to 64 bits, and the CPU generator uses the low 32 of them', () => {
  // torch.randn(3, generator=torch.Generator('cpu').manual_seed(seed)), torch 2.13
  const expected = {
    '-1': [1.2197630405426025, -0.3929794728755951, 1.0230751037597656],
    '-2': [-0.7472416162490845, 1.4467321634292603, -1.354002594947815],
    '-5': [-1.8266246318817139, 0.6379720568656921, -1.7862693071365356],
  }
  for (const [seed, data] of Object.entries(expected))
    assertClose(`seed ${seed}`, new Generator(Number(seed)).randn([3]), { data, shape: [3] }, TOLERANCE)
  for (const same of [2n ** 64n - 1n, 2n ** 32n - 1n])
    assert.deepEqual(new Generator(same).randn([3]), new Generator(-1).randn([3]), `seed ${same}`)
})

test('torch-cuda draws are those that AUTOMATIC1111 documents for torch on CUDA', () => {
  // rng_philox.py of AUTOMATIC1111/stable-diffusion-webui: seed 0, first twelve values
  const data = [
    -0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122, -0.32838709, -1.07454231,
    -0.36314407, -1.67105067, 2.26550497,
  ]
  assertClose('seed 0', new Generator(0, 'torch-cuda').randn([3, 4]), { data, shape: [3, 4] }, 1e-6)
})

test('torch-cuda: a value depends on its position and the number of earlier draws only', () => {
  const short = new Generator(7, 'torch-cuda')
  const long = new Generator(7, 'torch-cuda')
  assert.deepEqual(short.randn([5]).data, long.randn([100]).data.slice(0, 5))
  assert.deepEqual(short.randn([5]).data, long.randn([20]).data.slice(0, 5))
  assert.notDeepEqual(short.randn([5]), new Generator(7, 'torch-cuda').randn([5]))
  const upperHalf = new Generator(7n + 2n ** 32n, 'torch-cuda')
  assert.notDeepEqual(upperHalf.randn([5]), new Generator(7, 'torch-cuda').randn([5]), 'all 64 bits of a seed count')
})

test('a chosen seed repeats the draws', () => {
  const first = new Generator()
  assert.ok(Number.isSafeInteger(first.seed) && first.seed >= 0 && first.seed < 2 ** 32, `seed ${first.seed}`)
  assert.deepEqual(first.randn([20]), new Generator(first.seed).randn([20]))
  assert.notEqual(new Generator().seed, new Generator().seed)
})

test('any seed, shape and dtype give finite values that the dtype can hold', () => {
  const bits = { float32: 23, float16: 10, bfloat16: 7 }
  fc.assert(
    fc.property(
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }),
      fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 4 }),
      fc.constantFrom('float32', 'float16', 'bfloat16'),
      fc.constantFrom('torch-cpu', 'torch-cuda'),
      (seed, shape, dtype, algorithm) => {
        const tensor = new Generator(seed, algorithm).randn(shape, { dtype })
        assert.deepEqual(tensor.shape, shape)
        for (const value of tensor.data) {
          assert.ok(Number.isFinite(value) && Math.abs(value) < 10, `${value}`)
          if (Math.abs(value) < 2 ** -14) continue // subnormal float16 has fewer bits
          const mantissa = Math.abs(value) / 2 ** Math.floor(Math.log2(Math.abs(value)))
          assert.ok(Number.isInteger(mantissa * 2 ** bits[dtype]), `${value} as ${dtype}`)
        }
      },
    ),
  )
})

test('draws are standard normal', () => {
  for (const algorithm of ['torch-cpu', 'torch-cuda']) {
    const { data } = new Generator(3, algorithm).randn([200_000])
    const mean = data.reduce((sum, x) => sum + x, 0) / data.length
    const variance = data.reduce((sum, x) => sum + (x - mean) ** 2, 0) / data.length
    assert.ok(Math.abs(mean) < 0.01, `${algorithm}: mean ${mean}`)
    assert.ok(Math.abs(variance - 1) < 0.02, `${algorithm}: variance ${variance}`)
  }
})

test('bad seeds, algorithms, dtypes and shapes are refused', () => {
  const refused = { code: 'INVALID_ARGUMENT' }
  for (const seed of [1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 2n ** 64n, -(2n ** 63n) - 1n, '7'])
    assert.throws(() => new Generator(seed), { ...refused, message: /seed/ }, `${seed}`)
  assert.throws(() => new Generator(1, 'numpy'), { ...refused, message: /torch-cpu or torch-cuda.*"numpy"/ })
  assert.throws(() => new Generator(1).randn([4], { dtype: 'float8' }), { ...refused, message: /dtype/ })
  for (const shape of [[-1], [1.5], 4, undefined])
    assert.throws(() => new Generator(1).randn(shape), { ...refused, message: /shape/ }, `${shape}`)
})

test('randnTensor draws a batch at once, or one entry per generator', () => {
  const shape = [2, 4, 3, 3]
  assert.deepEqual(randnTensor(shape, new Generator(1)), new Generator(1).randn(shape))
  assert.deepEqual(randnTensor(shape, [new Generator(1)]), new Generator(1).randn(shape))
  const entries = [new Generator(1), new Generator(2)].map((generator) => [...generator.randn([1, 4, 3, 3]).data])
  assert.deepEqual([...randnTensor(shape, [new Generator(1), new Generator(2)]).data], entries.flat())
  const half = randnTensor([1, 17], new Generator(1), 'float16')
  assert.deepEqual(half, new Generator(1).randn([1, 17], { dtype: 'float16' }))
})

test('randnTensor refuses a list of the wrong length and sources that do not do what was asked', () => {
  const refused = { code: 'INVALID_ARGUMENT', message: /generator/ }
  assert.throws(() => randnTensor([3, 4], [new Generator(1), new Generator(2)]), refused)
  assert.throws(() => randnTensor([3, 4], []), refused)
  assert.throws(() => randnTensor([3, 4], {}), refused)
  assert.throws(() => randnTensor([3, 4], { randn: () => new Tensor(new Float32Array(2), [2]) }), {
    code: 'SHAPE_MISMATCH',
    message: /\[3, 4\].*\[2\]/,
  })
})

test('replay plays recorded draws in order and notices other shapes and further draws', () => {
  const draws = [new Generator(1).randn([2, 3]), new Generator(2).randn([4])]
  const source = replay(draws)
  assert.deepEqual(randnTensor([2, 3], source), draws[0])
  assert.throws(() => source.randn([5]), /draw 1 .*\[5\].*\[4\]/)
  assert.deepEqual(source.randn([4]), draws[1])
  assert.equal(source.remaining, 0)
  assert.throws(() => source.randn([4]), /draw 2/)
})

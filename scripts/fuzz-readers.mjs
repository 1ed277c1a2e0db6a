// Mutated inputs for everything in TypeScript that reads bytes; a part of `npm run fuzz`. An input may be refused with a
// KandinskyError; any other error, and one that takes longer than a second, is a finding and lies in build/findings.
//
// A target is { name, seeds, read, repair? }: the inputs to start from, what reads one, and what makes a mutated one whole
// again where a checksum or a length would otherwise refuse nearly all of them.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { crc32 } from 'node:zlib'
import { unpickleLegacy, unpickleTensors } from '../dist/checkpoint/formats/pickle.js'
import { readSafetensors } from '../dist/checkpoint/formats/safetensors.js'
import { parseHeader } from '../dist/checkpoint/formats/safetensors-json.js'
import { readTorch } from '../dist/checkpoint/formats/torch.js'
import { pipelineSlots } from '../dist/checkpoint/pipeline-files.js'
import { parseConfig } from '../dist/checkpoint/repository.js'
import { readIndex } from '../dist/checkpoint/weight-files.js'
import { KandinskyError } from '../dist/errors.js'
import { list } from '../dist/hub/api.js'
import { connectedPrior, licenseOf } from '../dist/hub/resolve.js'
import { RawImage } from '../dist/images/image.js'
import { addRecipe, parseRecipe } from '../dist/images/recipe.js'
import { schedulerFromConfig } from '../dist/schedulers/registry.js'
import { Charsmap } from '../dist/tokenizers/charsmap.js'
import { ClipTokenizer } from '../dist/tokenizers/clip.js'
import { Qwen2Tokenizer } from '../dist/tokenizers/qwen2.js'
import { readSentencePieceModel } from '../dist/tokenizers/sentencepiece.js'
import { T5Tokenizer } from '../dist/tokenizers/t5.js'
import { XlmRobertaTokenizer } from '../dist/tokenizers/xlm-roberta.js'

const fixtures = path.resolve(import.meta.dirname, '../test/fixtures')
const SLOW_MS = 1000
const MAX_SEED_BYTES = 64 << 10

const scratch = path.join(mkdtempSync(path.join(tmpdir(), 'kandinsky-fuzz-')), 'input')
const viaFile = (read) => (bytes) => {
  writeFileSync(scratch, bytes)
  return read(scratch)
}
const filesOf = (pattern) =>
  readdirSync(fixtures, { recursive: true })
    .filter((file) => pattern.test(file))
    .map((file) => readFileSync(path.join(fixtures, file)))
    .filter(({ length }) => length <= MAX_SEED_BYTES)
const headerOf = (file) => file.subarray(8, 8 + Number(file.readBigUInt64LE(0)))
const text = (bytes) => bytes.toString('utf8')

const pixels = new RawImage(new Uint8Array(12), 2, 2)
const png = Buffer.from(addRecipe(await pixels.toBuffer(), { prompt: 'a red apple, \u30ea\u30f3\u30b4', seed: 3 }))
const safetensors = filesOf(/\.safetensors$/)
const pickles = filesOf(/\.bin$/)
const card = Buffer.from('---\nlicense: other\nlicense_name: own\nprior:\n  - owner/name\n---\n# A model\n')
const vocabulary = { '<|startoftext|>': 0, '<|endoftext|>': 1, 'a</w>': 2, a: 3, b: 4, ab: 5 }
const tokenizer = { model: { type: 'BPE', vocab: vocabulary, merges: ['a b'] }, added_tokens: [] }
const piece = Buffer.from([0x0a, 0x08, 0x0a, 0x01, 0x61, 0x15, 0, 0, 0x80, 0xbf, 0x1a, 0x04, 0x12, 0x02, 0x61, 0x00])
const trie = Buffer.from([8, 0, 0, 0, 0, 4, 0, 0, 0x61, 1, 0, 0, 0x62, 0x63, 0, 0x64, 0])

/** Cut down to a few words, so that a mutation meets what is decided by. */
function tokenizerFiles(name, file) {
  const whole = JSON.parse(readFileSync(path.join(fixtures, 'tokenizers', name, file), 'utf8'))
  whole.model.vocab = [...whole.model.vocab.slice(0, 299), whole.model.vocab.at(-1)]
  whole.added_tokens = whole.added_tokens.filter(({ id }) => id < 299)
  whole.normalizer = { type: 'Precompiled', precompiled_charsmap: trie.toString('base64') }
  return [Buffer.from(JSON.stringify(whole))]
}

const readTokenizer = (Class, file) => (bytes) => Class.fromFiles({ [file]: text(bytes) }).encode(['a red apple! '])
const qwenVocabulary = Object.fromEntries([...'abcdefgh\u0120'].map((letter, id) => [letter, id]))
const qwen = Buffer.from(
  JSON.stringify({
    model: { type: 'BPE', vocab: qwenVocabulary, merges: [] },
    added_tokens: [{ id: 9, content: '<|endoftext|>', special: true }],
  }),
)
const commit = '0'.repeat(40)
const listing = Buffer.from(
  JSON.stringify({ sha: commit, siblings: [{ rfilename: 'unet/config.json', size: 2, blobId: commit }] }),
)

/** As the hub answers; fetch is in the way of nobody else here. */
async function readListing(bytes) {
  const { fetch } = globalThis
  globalThis.fetch = async () => new Response(bytes)
  try {
    const found = await list({
      id: 'a/b',
      revision: 'main',
      endpoint: 'http://127.0.0.1:1',
      headers: {},
      folder: '/nowhere',
    })
    if (found instanceof Error) throw found
    return found
  } finally {
    globalThis.fetch = fetch
  }
}

const targets = [
  { name: 'safetensors header', seeds: safetensors.map(headerOf), read: (b) => parseHeader(b, 'x') },
  { name: 'safetensors file', seeds: safetensors, read: viaFile(readSafetensors) },
  { name: 'torch file', seeds: pickles, read: viaFile(readTorch) },
  { name: 'pickle', seeds: pickles.map(pickleIn), read: (b) => unpickleTensors(b, 'x') },
  { name: 'old pickles', seeds: pickles, read: (b) => unpickleLegacy(b, 'x') },
  { name: 'picture with recipe', seeds: [png], read: parseRecipe, repair: withChecksums },
  { name: 'config', seeds: filesOf(/config\.json$/), read: (b) => parseConfig(text(b), 'x') },
  { name: 'model index', seeds: filesOf(/model_index\.json$/), read: (b) => pipelineSlots(text(b), 'x') },
  { name: 'scheduler', seeds: filesOf(/scheduler_config\.json$/), read: readScheduler },
  { name: 'model card', seeds: [card], read: (b) => [connectedPrior(text(b)), licenseOf(text(b))] },
  { name: 'CLIP tokenizer', seeds: [Buffer.from(JSON.stringify(tokenizer))], read: readClip },
  { name: 'SentencePiece model', seeds: [piece], read: (b) => readSentencePieceModel(b, 'x') },
  {
    name: 'T5 tokenizer',
    seeds: tokenizerFiles('t5', 'tokenizer.json'),
    read: readTokenizer(T5Tokenizer, 'tokenizer.json'),
  },
  {
    name: 'XLM-R tokenizer',
    seeds: tokenizerFiles('xlm-roberta', 'tokenizer.json'),
    read: readTokenizer(XlmRobertaTokenizer, 'tokenizer.json'),
  },
  { name: 'Qwen tokenizer', seeds: [qwen], read: readTokenizer(Qwen2Tokenizer, 'tokenizer.json') },
  { name: 'shard index', seeds: filesOf(/\.index\.json$/), read: viaFile(readIndex) },
  { name: 'hub listing', seeds: [listing], read: readListing },
  { name: 'charsmap', seeds: [trie], read: (b) => new Charsmap(b, 'x').normalize('abc \u{1f1e9}\u{1f1ea}') },
]

function readClip(bytes) {
  return ClipTokenizer.fromFiles({ 'tokenizer.json': text(bytes) }).encode(['a ab! '])
}

/** JSON that is none is the business of whoever reads the file. */
function readScheduler(bytes) {
  let config
  try {
    config = JSON.parse(text(bytes))
  } catch {
    return
  }
  if (config !== null && typeof config === 'object') schedulerFromConfig(config).setTimesteps(5)
}

/** The data.pkl of an archive, which is stored as it is; other files as they are. */
function pickleIn(file) {
  const start = file.indexOf(Buffer.from([0x80, 2]))
  return start < 0 ? file : file.subarray(start)
}

/** Chunks of a PNG file with the checksums that belong to them. */
function withChecksums(file) {
  for (let at = 8; at + 12 <= file.length; ) {
    const end = at + 12 + file.readUInt32BE(at)
    if (end > file.length) break
    file.writeUInt32BE(crc32(file.subarray(at + 4, end - 4)), end - 4)
    at = end
  }
  return file
}

/** Mulberry32: the same seed makes the same inputs. */
function randomFrom(seed) {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below)
  }
}

const TOKENS = [
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '"',
  'null',
  '-1',
  '1e308',
  '1e999',
  '9007199254740993',
  '""',
  '\\u0000',
  '"__proto__"',
]
const NUMBERS = [
  '00',
  'ff',
  '7f',
  '80',
  'ffff',
  'ffffff7f',
  'ffffffff',
  '00000080',
  'ffffffffffffff7f',
  'ffffffffffffffff',
]

function mutate(seed, other, random) {
  let bytes = Buffer.from(seed)
  for (let count = 1 + random(4); count > 0; count--) {
    const at = random(bytes.length + 1)
    const end = Math.min(bytes.length, at + 1 + random(16))
    const [head, tail] = [bytes.subarray(0, at), bytes.subarray(at)]
    const number = Buffer.from(NUMBERS[random(NUMBERS.length)], 'hex')
    const ways = [
      () => Buffer.concat([head, Buffer.from([(bytes[at] ?? 0) ^ (1 << random(8))]), tail.subarray(1)]),
      () => Buffer.concat([head, number, tail.subarray(number.length)]),
      () => Buffer.concat([head, Buffer.from(TOKENS[random(TOKENS.length)]), tail]),
      () => Buffer.concat([head, bytes.subarray(end)]),
      () => Buffer.concat([head, ...Array(1 + random(64)).fill(bytes.subarray(at, end)), tail]),
      () => Buffer.concat([head, other.subarray(random(other.length + 1)).subarray(0, random(256)), tail]),
      () => head,
    ]
    bytes = ways[random(ways.length)]()
  }
  return bytes
}

/** Names of the targets. */
export const readers = targets.map(({ name }) => name.replaceAll(' ', '-'))

/**
 * Mutates inputs of one target.
 * @param {string} wanted one of `readers`
 * @param {{ seconds: number, count: number, seed: number, findings: string }} options when to end (whatever comes first), and the
 *   folder for findings; the same seed makes the same inputs
 * @returns {Promise<{ inputs: number, accepted: number, found: number }>}
 */
export async function fuzzReader(wanted, { seconds, count, seed, findings }) {
  const { seeds, read, repair } = targets[readers.indexOf(wanted)]
  if (seeds.length === 0) throw new Error(`there is nothing to start from for ${wanted}`)
  const random = randomFrom(seed)
  const result = { inputs: 0, accepted: 0, found: 0 }
  for (const end = Date.now() + seconds * 1000; Date.now() < end && result.inputs < count; result.inputs++) {
    const mutated = mutate(seeds[random(seeds.length)], seeds[random(seeds.length)], random)
    const input = repair?.(mutated) ?? mutated
    const started = performance.now()
    let problem
    try {
      await read(input)
      result.accepted++
    } catch (error) {
      if (!(error instanceof KandinskyError)) problem = error.stack
    }
    const ms = performance.now() - started
    if (ms > SLOW_MS) problem ??= `took ${Math.round(ms)} ms`
    if (problem === undefined) continue
    mkdirSync(findings, { recursive: true })
    const file = path.join(findings, `${wanted}-${seed}-${result.inputs}`)
    writeFileSync(file, input)
    console.log(`${file}: ${problem}`)
    if (++result.found >= 20) break
  }
  return result
}

process.on('exit', () => rmSync(path.dirname(scratch), { recursive: true, force: true }))

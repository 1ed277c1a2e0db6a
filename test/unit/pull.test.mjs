// `kandinsky pull`, `list` and `rm` against a hub on loopback. Nothing here reaches a real network.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { promisify } from 'node:util'
import { parseOrigin } from '../../dist/hub/origin.js'
import { convert } from '../../dist/index.js'
import { binding } from '../../dist/native.js'
import { pull } from '../../dist/pull.js'
import { checkpoint } from '../helpers/cases.mjs'
import { main } from '../helpers/cli.mjs'
import { temporaryFolder } from '../helpers/files.mjs'
import { digestOf, startHub } from '../helpers/hub-server.mjs'
import { readSafetensors } from '../helpers/safetensors.mjs'
import { op, pickle, torchFile } from '../helpers/torch-zip.mjs'

const DECODER = 'kandinsky-community/kandinsky-2-2-decoder'
const PRIOR = 'kandinsky-community/kandinsky-2-2-prior'
const UNET = 'unet/diffusion_pytorch_model.safetensors'
const ENCODER = 'image_encoder/model.safetensors'

/** The files of a checkpoint as a repository. */
function repositoryOf(name, license) {
  const folder = checkpoint(name)
  const files = readdirSync(folder, { recursive: true }).filter((file) => statSync(path.join(folder, file)).isFile())
  const repository = Object.fromEntries(files.map((file) => [file, readFileSync(path.join(folder, file))]))
  repository['README.md'] = String(repository['README.md']).replace('---\n', `---\nlicense: ${license}\n`)
  return repository
}

let hub, home, models, repositories
const environment = { ...process.env }

beforeEach(async (t) => {
  home = temporaryFolder(t)
  models = path.join(home, 'models')
  repositories = {
    [DECODER]: repositoryOf('kandinsky-2-2-decoder', 'apache-2.0'),
    [PRIOR]: repositoryOf('kandinsky-2-2-prior', 'other\nlicense_name: its-own'),
    'kandinsky-community/kandinsky-3': repositoryOf('kandinsky-3', 'mit'),
  }
  hub = await startHub(repositories)
  Object.assign(process.env, { HF_ENDPOINT: hub.endpoint, HF_HOME: home, KANDINSKY_MODELS: models })
  for (const name of ['HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'HF_HUB_OFFLINE']) delete process.env[name]
})

afterEach(() => {
  hub.close()
  process.env = { ...environment }
})

const kandinsky = (...args) => promisify(execFile)(process.execPath, [main, ...args], { cwd: home })
const linesOf = ({ stdout }) =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
const requestsFor = (name) => hub.requests.filter(({ path: url }) => url.split(/\/resolve\/\w+\//)[1] === name)
const filesIn = (folder) =>
  readdirSync(folder, { recursive: true, withFileTypes: true }).filter((file) => file.isFile())

/** What a file of ours holds, tensor by tensor, without what says where it came from. */
async function contentOf(file) {
  const { metadata, tensors } = await binding().readGguf(file)
  const bytes = readFileSync(file)
  const kept = Object.entries(metadata).filter(
    ([key]) => !/^(general\.(name|source.url|license)|kandinsky\.pull)$/.test(key),
  )
  return {
    metadata: Object.fromEntries(kept.filter(([key]) => !key.endsWith('README.md'))),
    tensors: tensors.map(({ offset, ...rest }) => [rest, digestOf(bytes.subarray(offset, offset + rest.bytes))]),
  }
}

test('a pulled model is what converting a copy of the repositories gives, and all that is left', async (t) => {
  const plans = []
  const { path: file, ...result } = await pull(DECODER, { onPlan: (plan) => plans.push(plan), threads: 1 })
  assert.equal(file, path.join(models, 'kandinsky-2-2-decoder.gguf'))
  assert.deepEqual(result.components, ['movq', 'unet', 'image_encoder', 'prior', 'text_encoder'])
  const expected = path.join(temporaryFolder(t), 'expected.gguf')
  await convert(checkpoint('kandinsky-2-2-decoder'), expected, {
    ...{ prior: checkpoint('kandinsky-2-2-prior'), weights: 'q8_0', threads: 1 },
  })
  assert.deepEqual(await contentOf(file), await contentOf(expected))
  assert.deepEqual(
    filesIn(home).map(({ name }) => name),
    ['kandinsky-2-2-decoder.gguf'],
    'no download is left',
  )
  const [{ sources, bytes }] = plans
  assert.equal(plans.length, 1)
  assert.deepEqual(
    sources.map(({ id, license }) => [id, license]),
    [
      [DECODER, 'apache-2.0'],
      [PRIOR, 'its-own'],
    ],
  )
  const weights = Object.entries(repositories[DECODER]).filter(([name]) => name.endsWith('.safetensors'))
  assert.equal(
    sources[0].bytes,
    weights.reduce((sum, [, content]) => sum + content.length, 0),
  )
  const { size } = statSync(file)
  assert.ok(bytes < size && bytes > size * 0.8, `${bytes} of ${size}`)
})

test('each file is gone when the next one comes', async () => {
  const sizes = Object.entries({ ...repositories[DECODER], ...repositories[PRIOR] })
    .filter(([name]) => name.endsWith('.safetensors'))
    .map(([, content]) => content.length)
  let most = 0
  await pull(DECODER, {
    weights: 'q4_0',
    skip: ['image_encoder'],
    onProgress({ stage }) {
      if (stage !== 'download') return
      const blocks = filesIn(home).map(({ parentPath, name }) => statSync(path.join(parentPath, name)).blocks * 512)
      most = Math.max(
        most,
        blocks.reduce((sum, n) => sum + n, 0),
      )
    },
  })
  const all = sizes.reduce((sum, n) => sum + n, 0)
  assert.ok(most < all * 0.7, `${most} of ${all} bytes at once`)
})

test('an interrupted pull continues with what it has, of the same commit', async () => {
  hub.faults[UNET] = [{}, { cut: 2_000_000 }, { status: 404 }]
  await assert.rejects(pull(DECODER, { threads: 1 }), { code: 'FILE_NOT_FOUND' })
  assert.match((await kandinsky('list')).stdout, /^kandinsky-2-2-decoder {2}[\d.]+ MB, unfinished: pull it again/)
  const before = hub.commit
  hub.requests.length = 0
  const { path: file } = await pull(DECODER, { threads: 1 })
  assert.ok(existsSync(file))
  assert.match(requestsFor(UNET)[0].headers.range, /^bytes=[1-9]\d{5,}-$/)
  assert.equal(requestsFor(ENCODER).length, 0, 'it had become an embedding and a part')
  assert.ok(hub.requests.some(({ path: url }) => url.endsWith(`/revision/${before}`)))
  assert.equal((await kandinsky('list', '-q')).stdout, 'kandinsky-2-2-decoder\n')
})

test('an aborted pull rejects with the reason and continues later', async () => {
  const controller = new AbortController()
  const reason = new Error('enough')
  const onProgress = ({ stage }) => stage === 'quantize' && controller.abort(reason)
  await assert.rejects(pull(DECODER, { signal: controller.signal, onProgress }), reason)
  await pull(DECODER, {})
})

test('pulling twice downloads once; something else under the same name is refused', async () => {
  await pull(DECODER, { skip: ['image_encoder'] })
  hub.requests.length = 0
  assert.equal((await pull(DECODER, { skip: ['image_encoder'] })).kept, true)
  assert.equal(hub.requests.length, 0)
  await assert.rejects(pull(DECODER, { weights: 'q4_0' }), {
    code: 'INVALID_ARGUMENT',
    message: /another name .*kandinsky rm kandinsky-2-2-decoder/,
  })
  await pull(DECODER, { weights: 'q4_0', name: 'small' })
  assert.equal((await kandinsky('list', '-q')).stdout, 'kandinsky-2-2-decoder\nsmall\n')
})

test('two pulls of the same at once do the work once', async () => {
  const results = await Promise.all([1, 2].map(() => pull(DECODER, { skip: ['image_encoder'] })))
  assert.deepEqual(results.map(({ kept }) => kept).sort(), [false, true])
  assert.equal(requestsFor(UNET).filter(({ host }) => host === 'cdn').length, 2, 'its header, and itself')
})

test('shards, SentencePiece tokenizers and families without a prior', async (t) => {
  const { path: file } = await pull('kandinsky-community/kandinsky-3', { weights: 'q4_K', name: 'k3', threads: 1 })
  const expected = path.join(temporaryFolder(t), 'expected.gguf')
  await convert(checkpoint('kandinsky-3'), expected, { weights: 'q4_K', threads: 1 })
  assert.deepEqual(await contentOf(file), await contentOf(expected))
})

test('weights that have only a PyTorch form come whole before the size of the result is known', async (t) => {
  const safetensors = path.join(checkpoint('kandinsky-2-2-prior'), 'text_encoder/model.safetensors')
  const storages = {}
  const items = [...readSafetensors(safetensors)].flatMap(([name, { dtype, shape, data }], i) => {
    if (dtype === 'I64') return [] // position_ids, which nobody reads
    storages[i] = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
    const stride = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, n) => product * n, 1))
    return [op.text(name), op.tensor({ key: String(i), count: data.length, shape, stride })]
  })
  const repository = repositories[PRIOR]
  repository['text_encoder/pytorch_model.bin'] = torchFile(pickle(op.dict(...items)), { storages })
  delete repository['text_encoder/model.safetensors']
  const plans = []
  const stop = {
    onProgress: ({ stage }) => {
      if (stage === 'write') throw new Error('stop')
    },
  }
  await assert.rejects(pull(PRIOR, { onPlan: (plan) => plans.push(plan), ...stop }), /stop/)
  assert.deepEqual(
    plans.map(({ bytes }) => typeof bytes),
    ['undefined', 'number'],
  )
  hub.requests.length = 0
  const { path: file } = await pull(PRIOR, { threads: 1 })
  assert.equal(requestsFor('text_encoder/pytorch_model.bin').length, 0, 'it is a part already')
  const expected = path.join(temporaryFolder(t), 'expected.gguf')
  await convert(checkpoint('kandinsky-2-2-prior'), expected, { weights: 'q8_0', threads: 1 })
  assert.deepEqual(await contentOf(file), await contentOf(expected))
})

test('the command shows sizes and licences, names the model, and -m finds it', async () => {
  const { stdout, stderr } = await kandinsky('pull', `${hub.endpoint}/${DECODER}`, '--type', 'Q8_0', '--name', 'k22')
  assert.match(stderr, /^kandinsky-community\/kandinsky-2-2-decoder: [\d.]+ MB to download, licence apache-2\.0$/m)
  assert.match(stderr, /^kandinsky-community\/kandinsky-2-2-prior: [\d.]+ MB to download, licence its-own$/m)
  assert.match(stderr, /^About [\d.]+ MB will be kept in .*k22\.gguf$/m)
  assert.ok(stderr.indexOf('About') < stderr.indexOf('download 100%'))
  assert.match(stdout, /^k22: [\d.]+ MB, movq, unet, /)
  const list = await kandinsky('list')
  assert.match(list.stdout, /^k22 {2}[\d.]+ MB, q8_0, kandinsky-community\/kandinsky-2-2-decoder, apache-2\.0\n$/)
  const size = ['--width=64', '--height=64', '--steps=2', '--prior-steps=2']
  const generated = await kandinsky('generate', 'a cat', '-m', 'k22', '-o', 'cat.png', ...size)
  assert.match(generated.stdout, /^cat\.png /)
  for (const args of [
    ['inspect', 'k22'],
    ['inspect', '-m', 'k22'],
    ['estimate', '-m', 'k22'],
  ])
    assert.match((await kandinsky(...args)).stdout, /^ *unet /m, args.join(' '))
  assert.match((await kandinsky('convert', '-m', 'k22', 'copy.gguf', '--type', 'q4_0')).stdout, /^copy\.gguf: /)
  assert.match((await kandinsky('rm', 'k22')).stdout, /^k22: removed, [\d.]+ MB are free again\n$/)
  await assert.rejects(kandinsky('rm', 'k22'), { code: 1, stderr: /There is no pulled model k22: there are none/ })
  await assert.rejects(kandinsky('generate', 'a', '-m', 'k22'), { code: 1, stderr: /no model that was pulled/ })
})

test('a pull that fails says how to go on', async () => {
  hub.faults[UNET] = [{}, { status: 404 }]
  await assert.rejects(kandinsky('pull', DECODER), {
    code: 1,
    stderr: /kept: the same command continues there\.\n.*404/,
  })
})

test('--json tells the plan, the progress and the result', async () => {
  const events = linesOf(await kandinsky('pull', DECODER, '--skip', 'image_encoder', '--json'))
  assert.equal(events[0].type, 'plan')
  assert.deepEqual(new Set(events.slice(1, -1).map(({ stage }) => stage)), new Set(['download', 'quantize', 'write']))
  const { type, name, kept, components } = events.at(-1)
  assert.deepEqual({ type, name, kept }, { type: 'result', name: 'kandinsky-2-2-decoder', kept: false })
  assert.deepEqual(components, ['movq', 'unet', 'prior', 'text_encoder'])
})

test('a prior that is here is taken from here, and none is left out', async (t) => {
  const { path: whole } = await pull(DECODER, { name: 'whole' })
  hub.requests.length = 0
  const { path: file } = await pull(DECODER, { name: 'again', prior: 'whole', skip: ['image_encoder'] })
  assert.ok(!hub.requests.some(({ path: url }) => url.includes(PRIOR)))
  const expected = path.join(temporaryFolder(t), 'expected.gguf')
  await convert(checkpoint('kandinsky-2-2-decoder'), expected, {
    ...{ prior: whole, weights: 'q8_0', skip: ['image_encoder'] },
  })
  assert.deepEqual(await contentOf(file), await contentOf(expected))
  assert.deepEqual((await pull(DECODER, { name: 'alone', prior: 'none' })).components, ['movq', 'unet'])
  const args = ['-m', 'alone', '--prior', 'whole', '--width=64', '--height=64', '--steps=1', '--prior-steps=1']
  assert.match((await kandinsky('generate', 'a cat', ...args)).stdout, /^out\.png /)
})

test('a .gguf file is pulled from a hub or any server, as it is or to another type', async () => {
  const file = path.join(home, 'tiny.gguf')
  await convert(checkpoint('kandinsky-2-2-decoder'), file, { weights: 'f16' })
  repositories['a/files'] = { 'k/tiny.gguf': readFileSync(file), 'other.gguf': 'x'.repeat(2000) }
  const typeOf = async ({ path: from }) =>
    (await binding().readGguf(from)).tensors.find(({ name }) => /^unet\..*to_k\.weight$/.test(name)).type
  const own = await pull('a/files:k/tiny.gguf')
  assert.equal(own.name, 'tiny')
  assert.equal(await typeOf(own), 'f16')
  const commit = hub.commit
  const url = `${hub.endpoint}/a/files/resolve/${commit}/k/tiny.gguf`
  assert.equal(await typeOf(await pull(url, { weights: 'q8_0', name: 'again' })), 'q8_0')
  delete process.env.HF_ENDPOINT
  const elsewhere = await pull(`${url}?key=secret`, { name: 'elsewhere' })
  assert.equal(await typeOf(elsewhere), 'f16')
  const { stdout } = await kandinsky('list', '--json')
  assert.ok(!stdout.includes('secret'), stdout)
  assert.ok(!readFileSync(elsewhere.path).includes('secret'))
})

test('a repository may be called as it stands in a browser', () => {
  const id = 'owner/name'
  for (const [source, expected] of [
    [id, { id, revision: undefined, file: undefined }],
    ['hf:owner/name:a/b.gguf', { id, revision: undefined, file: 'a/b.gguf' }],
    ['huggingface.co/owner/name', { id, revision: undefined, file: undefined }],
    ['https://huggingface.co/owner/name/tree/v2', { id, revision: 'v2', file: undefined }],
    ['https://hf.co/owner/name/blob/main/a/b.gguf', { id, revision: 'main', file: 'a/b.gguf' }],
    ['https://huggingface.co/owner/name/resolve/main/b.gguf?download=true', { id, revision: 'main', file: 'b.gguf' }],
    ['https://example.com/owner/name.gguf', { url: 'https://example.com/owner/name.gguf' }],
  ])
    assert.deepEqual(parseOrigin(source), expected, source)
  for (const wrong of ['', 'name', 'a/b/c', '../a/b', 'https://example.com/a/b', 'https://', 'ftp://a/b.gguf', 5])
    assert.throws(() => parseOrigin(wrong), { code: 'INVALID_ARGUMENT' }, String(wrong))
})

test('what the cache of the hub has is not downloaded again, and stays', async () => {
  const content = repositories[DECODER][UNET]
  const blobs = path.join(home, 'hub', `models--${DECODER.replace('/', '--')}`, 'blobs')
  mkdirSync(blobs, { recursive: true })
  writeFileSync(path.join(blobs, digestOf(content)), content)
  await pull(DECODER, { skip: ['image_encoder'] })
  assert.equal(requestsFor(UNET).filter(({ host }) => host === 'cdn').length, 1, 'its header')
  assert.equal(statSync(path.join(blobs, digestOf(content))).size, content.length)
})

test('what cannot be pulled is said by name, and nothing is left', async () => {
  const refuses = (promise, code, message) => assert.rejects(promise, { name: 'KandinskyError', code, message })
  await refuses(pull('./folder'), 'INVALID_ARGUMENT', /a hub id .*or the URL of a \.gguf file/)
  await refuses(pull(`${hub.endpoint}/x/y/z.zip?key=secret`), 'INVALID_ARGUMENT', /^((?!secret).)*$/)
  const withPassword = `${hub.endpoint}/m.gguf`.replace('//', '//user:secret@')
  await refuses(pull(withPassword), 'INVALID_ARGUMENT', /^(?!.*secret).*without user and password/)
  await refuses(pull(`${hub.endpoint}/a/b/c.gguf?key=secret`), 'FILE_NOT_FOUND', /^(?!.*secret).*c\.gguf/)
  await refuses(pull(DECODER, { name: '../evil' }), 'INVALID_ARGUMENT', /name/)
  await refuses(pull(DECODER, { name: 'demo' }), 'INVALID_ARGUMENT', /packaged/)
  await refuses(pull(DECODER, { weights: 'q9' }), 'INVALID_ARGUMENT', /weights/)
  await refuses(pull('no/where'), 'FILE_NOT_FOUND', /no\/where/)
  await refuses(pull(DECODER, { skip: ['nose'] }), 'INVALID_ARGUMENT', /skip/)
  process.env.HF_HUB_OFFLINE = '1'
  await refuses(pull(DECODER), 'FILE_NOT_FOUND', /HF_HUB_OFFLINE/)
  delete process.env.HF_HUB_OFFLINE
  rmSync(models, { recursive: true, force: true })
  writeFileSync(models, 'a file')
  await refuses(pull(DECODER), 'BAD_FILE', /cannot be written.*KANDINSKY_MODELS/)
})

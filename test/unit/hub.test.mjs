// resolveSource and connectedPrior against a hub on loopback. Nothing here reaches a real network.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { homedir, hostname, tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { connectedPrior, resolveSource } from '../../dist/hub/resolve.js'
import { COMMIT, digestOf, sha256, startHub } from '../helpers/hub-server.mjs'

const ID = 'kandinsky-community/tiny-decoder'
const INDEX = JSON.stringify({
  _class_name: 'KandinskyV22Pipeline',
  unet: ['diffusers', 'UNet2DConditionModel'],
  movq: ['diffusers', 'VQModel'],
  scheduler: ['diffusers', 'DDPMScheduler'],
  safety_checker: [null, null],
})
const unet = randomBytes(3 << 20)
const decoder = {
  'README.md': '---\nprior:\n- kandinsky-community/tiny-prior\n---\n',
  'model_index.json': INDEX,
  'unet/config.json': '{"_class_name": "UNet2DConditionModel"}',
  'unet/diffusion_pytorch_model.safetensors': unet,
  'unet/diffusion_pytorch_model.bin': 'the same weights again',
  'unet/model.onnx': 'and again',
  'movq/config.json': '{"_class_name": "VQModel"}',
  'movq/diffusion_pytorch_model.bin': 'weights that have no other form',
  'scheduler/scheduler_config.json': '{}',
  'ddpm_scheduler/scheduler_config.json': '{"thresholding": true}',
  'decoder_fp16.ckpt': 'the original release',
}
const needed = [
  'README.md',
  'ddpm_scheduler/scheduler_config.json',
  'model_index.json',
  'movq/config.json',
  'movq/diffusion_pytorch_model.bin',
  'scheduler/scheduler_config.json',
  'unet/config.json',
  'unet/diffusion_pytorch_model.safetensors',
]

const UNET = 'unet/diffusion_pytorch_model.safetensors'
const VARIABLES = [
  'HF_HOME',
  'HF_HUB_CACHE',
  'HUGGINGFACE_HUB_CACHE',
  'XDG_CACHE_HOME',
  'HF_ENDPOINT',
  'HF_TOKEN',
  'HF_TOKEN_PATH',
  'HF_HUB_OFFLINE',
  'HF_HUB_DISABLE_SYMLINKS',
]
const environment = Object.fromEntries(VARIABLES.map((name) => [name, process.env[name]]))

let hub, home, cache, repositories

beforeEach(async () => {
  for (const name of VARIABLES) delete process.env[name]
  home = mkdtempSync(path.join(tmpdir(), 'kandinsky-hub-'))
  cache = path.join(home, 'hub')
  repositories = { [ID]: { ...decoder } }
  hub = await startHub(repositories)
  process.env.HF_ENDPOINT = hub.endpoint
  process.env.HF_HOME = home
})

afterEach(() => {
  hub.close()
  rmSync(home, { recursive: true, force: true })
  for (const [name, value] of Object.entries(environment))
    if (value === undefined) delete process.env[name]
    else process.env[name] = value
})

const folderOf = (id) => path.join(cache, `models--${id.replace('/', '--')}`)
const blobOf = (content, id = ID) => path.join(folderOf(id), 'blobs', digestOf(Buffer.from(content)))
const filesIn = (folder) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)).replaceAll(path.sep, '/'))
    .sort()
const requestsFor = (name) => hub.requests.filter((request) => request.path.split(/\/resolve\/\w+\//)[1] === name)
const rejects = (promise, code, pattern) =>
  assert.rejects(promise, (error) => {
    assert.equal(error.name, 'KandinskyError', error.stack)
    assert.equal(error.code, code, error.message)
    assert.match(error.message, pattern)
    return true
  })

test('an existing path goes first and becomes absolute', async () => {
  const file = path.join(home, 'model.gguf')
  writeFileSync(file, 'x')
  assert.equal((await resolveSource(file)).path, file)
  assert.equal((await resolveSource(path.relative(process.cwd(), file))).path, file)
  assert.equal((await resolveSource(pathToFileURL(file).href)).path, file)
  assert.equal((await resolveSource(home)).path, home)
  assert.equal((await resolveSource('~')).path, homedir())
  // test/unit looks like a hub id but is a folder here
  assert.equal((await resolveSource('test/unit')).path, path.resolve('test/unit'))
  assert.equal(hub.requests.length, 0)
})

test('a path that does not exist says so and asks no hub', async () => {
  for (const source of [
    './nothing',
    '/no/where',
    '~/nowhere',
    'C:\\models\\k',
    'C:/models',
    'a\\b',
    'models/x.gguf',
    'x.safetensors',
    'a/b/c',
    'nothing',
    'a--b/c',
    'http://a/b',
    pathToFileURL('/no/where').href,
  ])
    await rejects(resolveSource(source), 'FILE_NOT_FOUND', /does not exist/)
  await rejects(resolveSource(''), 'INVALID_ARGUMENT', /source/)
  await rejects(resolveSource(5), 'INVALID_ARGUMENT', /received 5/)
  await rejects(resolveSource('file://elsewhere/x%2Fy'), 'INVALID_ARGUMENT', /file: URL/)
  assert.equal(hub.requests.length, 0)
})

test('a repository is downloaded into the cache of the Python library, without other formats of the same weights', async () => {
  const { path: snapshot } = await resolveSource(ID)
  assert.equal(snapshot, path.join(folderOf(ID), 'snapshots', COMMIT))
  assert.deepEqual(filesIn(snapshot), needed)
  for (const name of needed) assert.ok(readFileSync(path.join(snapshot, name)).equals(Buffer.from(decoder[name])), name)
  assert.equal(readlinkSync(path.join(snapshot, UNET)), path.join('..', '..', '..', 'blobs', sha256(unet)))
  assert.equal(readFileSync(path.join(folderOf(ID), 'refs', 'main'), 'utf8'), COMMIT)
  assert.deepEqual(
    filesIn(path.join(folderOf(ID), 'blobs')),
    needed.map((name) => digestOf(Buffer.from(decoder[name]))).sort(),
  )
  assert.deepEqual(filesIn(path.join(cache, '.locks')), [])
})

test('the prefix hf: names the same repository; what is there is not downloaded again', async () => {
  const { path: snapshot } = await resolveSource(ID)
  hub.requests.length = 0
  assert.equal((await resolveSource(`hf:${ID}`)).path, snapshot)
  assert.deepEqual(
    hub.requests.map(({ path }) => path),
    [`/api/models/${ID}/revision/main`],
  )
})

test('progress counts the bytes of all files, those in the cache included', async () => {
  const events = []
  await resolveSource(ID, { onProgress: (event) => events.push(event) })
  const total = needed.reduce((sum, name) => sum + Buffer.from(decoder[name]).length, 0)
  assert.deepEqual(new Set(events.map((event) => event.total)), new Set([total]))
  assert.deepEqual([...new Set(events.map((event) => event.file))].sort(), needed)
  assert.ok(
    events.every((event, i) => i === 0 || event.done >= events[i - 1].done),
    'done goes back',
  )
  assert.ok(events.filter((event) => event.file === UNET).length > 2, 'a large file reports more than once')
  assert.equal(events.at(-1).done, total)
})

test('another revision shares the contents that it has in common', async () => {
  await resolveSource(ID)
  hub.requests.length = 0
  hub.commit = 'ab'.repeat(20)
  repositories[ID]['scheduler/scheduler_config.json'] = '{"steps_offset": 1}'
  const { path: snapshot } = await resolveSource(ID, { revision: 'refs/pr/1' })
  assert.equal(path.basename(snapshot), hub.commit)
  assert.deepEqual(filesIn(snapshot), needed)
  assert.equal(requestsFor(UNET).length, 0)
  assert.equal(requestsFor('scheduler/scheduler_config.json').length, 1)
  assert.equal(hub.requests[0].url, `/api/models/${ID}/revision/refs%2Fpr%2F1?blobs=true`)
  assert.equal(readFileSync(path.join(folderOf(ID), 'refs', 'refs/pr/1'), 'utf8'), hub.commit)
  assert.equal(readFileSync(path.join(folderOf(ID), 'refs/main'), 'utf8'), COMMIT)
})

test('a variant is preferred, shards come with their index, and only a variant without its name is an error', async () => {
  const shard = (n) => `diffusion_pytorch_model.fp16-0000${n}-of-00002.safetensors`
  const index = JSON.stringify({ weight_map: { a: shard(1), b: shard(2) } })
  repositories[ID]['unet/diffusion_pytorch_model.safetensors.index.fp16.json'] = index
  for (const n of [1, 2]) repositories[ID][`unet/${shard(n)}`] = `shard ${n}`
  const { path: snapshot } = await resolveSource(ID, { variant: 'fp16' })
  assert.deepEqual(filesIn(path.join(snapshot, 'unet')), [
    'config.json',
    `${shard(1)}`,
    `${shard(2)}`,
    'diffusion_pytorch_model.safetensors.index.fp16.json',
  ])
  assert.deepEqual(filesIn(path.join(snapshot, 'movq')), ['config.json', 'diffusion_pytorch_model.bin'])

  delete repositories[ID][`unet/${shard(2)}`]
  await rejects(resolveSource(ID, { variant: 'fp16' }), 'FILE_NOT_FOUND', /has no file unet\/.*00002-of-00002/)
  delete repositories[ID][UNET]
  delete repositories[ID]['unet/diffusion_pytorch_model.bin']
  await rejects(resolveSource(ID), 'FILE_NOT_FOUND', /unet holds no weights.*variant "fp16"/)
})

test('a subfolder is all that is downloaded: a whole pipeline or one part', async () => {
  assert.deepEqual(filesIn((await resolveSource(ID, { subfolder: 'scheduler' })).path), [
    'README.md',
    'scheduler/scheduler_config.json',
  ])
  assert.deepEqual(
    filesIn((await resolveSource(ID, { subfolder: 'movq' })).path).filter((name) => name.startsWith('movq/')),
    ['movq/config.json', 'movq/diffusion_pytorch_model.bin'],
  )
  repositories['a/nested'] = Object.fromEntries(Object.entries(decoder).map(([name, text]) => [`v2/${name}`, text]))
  assert.deepEqual(
    filesIn((await resolveSource('a/nested', { subfolder: 'v2' })).path),
    needed.filter((name) => name !== 'README.md').map((name) => `v2/${name}`),
  )
  await rejects(resolveSource(ID, { subfolder: 'nope' }), 'FILE_NOT_FOUND', /no files in nope/)
  await rejects(resolveSource(ID, { subfolder: '../x' }), 'INVALID_ARGUMENT', /subfolder/)
})

test('a repository that is one network is downloaded where the engine has a use for that network alone', async () => {
  const network = {
    'README.md': '# depth',
    'config.json': '{"architectures": ["DPTForDepthEstimation"]}',
    'preprocessor_config.json': '{}',
    'model.safetensors': 'weights',
    'pytorch_model.bin': 'the same weights',
  }
  repositories['a/depth'] = network
  assert.deepEqual(filesIn((await resolveSource('a/depth')).path), [
    'README.md',
    'config.json',
    'model.safetensors',
    'preprocessor_config.json',
  ])
  repositories['a/llama'] = { ...network, 'config.json': '{"architectures": ["LlamaForCausalLM"]}' }
  await rejects(resolveSource('a/llama'), 'FILE_NOT_FOUND', /neither a model_index.json nor a .gguf/)
  assert.deepEqual(requestsFor('model.safetensors').length, 1)
})

test('a repository of .gguf files gives the only one or the named one', async () => {
  repositories['a/ggufs'] = { 'k-q8_0.gguf': 'GGUF 8', 'README.md': 'text' }
  const only = (await resolveSource('a/ggufs')).path
  assert.equal(readFileSync(only, 'utf8'), 'GGUF 8')
  assert.equal(path.basename(only), 'k-q8_0.gguf')
  repositories['a/ggufs']['small/k-q4_K.gguf'] = 'GGUF 4'
  await rejects(
    resolveSource('a/ggufs'),
    'FILE_NOT_FOUND',
    /"a\/ggufs:k-q8_0\.gguf"; it has k-q8_0\.gguf, small\/k-q4_K\.gguf/,
  )
  assert.equal(readFileSync((await resolveSource('a/ggufs:small/k-q4_K.gguf')).path, 'utf8'), 'GGUF 4')
  await rejects(resolveSource('a/ggufs:k.gguf'), 'FILE_NOT_FOUND', /has no file k\.gguf; it has k-q8_0\.gguf/)
  repositories['a/text'] = { 'README.md': 'text' }
  await rejects(resolveSource('a/text'), 'FILE_NOT_FOUND', /neither a model_index\.json nor a \.gguf/)
})

test('a cut connection is resumed where it ended', async () => {
  hub.faults[UNET] = [{ cut: 1_000_000 }, { cut: 2_000_000 }]
  const { path: snapshot } = await resolveSource(ID)
  assert.ok(readFileSync(path.join(snapshot, UNET)).equals(unet))
  const ranges = requestsFor(UNET)
    .filter(({ host }) => host === 'cdn')
    .map(({ headers }) => headers.range)
  assert.equal(ranges.length, 3)
  assert.equal(ranges[0], undefined)
  for (const range of ranges.slice(1)) assert.match(range, /^bytes=[1-9]\d+-$/)
})

test('an abort rejects with its reason at once and keeps what has arrived', async () => {
  hub.faults[UNET] = [{ stall: 2_000_000 }]
  const controller = new AbortController()
  const reason = new Error('enough')
  const onProgress = ({ file, done }) => {
    if (file === UNET && done > 1_000_000) setImmediate(() => controller.abort(reason))
  }
  await assert.rejects(resolveSource(ID, { signal: controller.signal, onProgress }), reason)
  const kept = readFileSync(`${blobOf(unet)}.incomplete`)
  assert.ok(kept.length >= 1_000_000 && kept.equals(unet.subarray(0, kept.length)), `${kept.length} bytes kept`)
  assert.ok(!existsSync(path.join(folderOf(ID), 'refs', 'main')), 'an incomplete snapshot has no ref')
  assert.deepEqual(filesIn(path.join(cache, '.locks')), [])

  const { path: snapshot } = await resolveSource(ID)
  assert.equal(requestsFor(UNET).at(-1).headers.range, `bytes=${kept.length}-`)
  assert.ok(readFileSync(path.join(snapshot, UNET)).equals(unet))
  await assert.rejects(resolveSource(ID, { signal: AbortSignal.abort(reason) }), reason)
})

test('an abort ends the wait between attempts and the wait for a lock', async () => {
  const reason = new Error('enough')
  const abortSoon = () => {
    const controller = new AbortController()
    setTimeout(() => controller.abort(reason), 50)
    return controller.signal
  }
  hub.faults.listing = [{ status: 503, headers: { 'retry-after': '3600' } }]
  await assert.rejects(resolveSource(ID, { signal: abortSoon() }), reason)
  const lock = path.join(cache, '.locks', path.basename(folderOf(ID)), `${digestOf(Buffer.from(INDEX))}.pid`)
  mkdirSync(path.dirname(lock), { recursive: true })
  writeFileSync(lock, `${process.pid} x ${hostname()}`)
  await assert.rejects(resolveSource(ID, { signal: abortSoon() }), reason)
  assert.ok(existsSync(lock), 'the lock of another is left alone')
})

test('a partial file that does not belong to the content is thrown away', async () => {
  const partials = {
    'other bytes': { content: randomBytes(1_000_000) },
    'other bytes of full length': { content: randomBytes(unet.length) },
    'too many bytes': { content: randomBytes(unet.length + 1) },
    'what the server does not continue': {
      content: unet.subarray(0, 1_000_000),
      faults: [{ ignoreRange: true }, { cut: 500_000 }, { status: 416 }],
    },
  }
  for (const [what, { content, faults }] of Object.entries(partials)) {
    mkdirSync(path.dirname(blobOf(unet)), { recursive: true })
    writeFileSync(`${blobOf(unet)}.incomplete`, content)
    hub.faults[UNET] = faults
    const { path: snapshot } = await resolveSource(ID)
    assert.ok(readFileSync(path.join(snapshot, UNET)).equals(unet), what)
    assert.ok(!hub.faults[UNET]?.length, `${what}: the server's faults were met`)
    rmSync(cache, { recursive: true })
  }
})

test('damaged content is refused, by sha256 for large files and by git sha1 for small ones', async () => {
  for (const [name, content] of [
    ['movq/config.json', decoder['movq/config.json'].toUpperCase()],
    [UNET, randomBytes(unet.length)],
  ]) {
    hub.faults[name] = [{ content: Buffer.from(content) }]
    await rejects(resolveSource(ID), 'BAD_FILE', /is damaged.*checksum/)
    assert.equal(requestsFor(name).at(-1).headers.range, undefined)
    assert.ok(!existsSync(blobOf(decoder[name])))
  }
  hub.faults[UNET] = [{ content: Buffer.concat([unet, unet]) }]
  await rejects(resolveSource(ID), 'BAD_FILE', /longer than/)
  assert.ok(existsSync(path.join((await resolveSource(ID)).path, UNET)))
})

test('overload and server errors are tried again, a bounded number of times', async () => {
  const busy = (status) => ({ status, headers: { 'retry-after': '0' } })
  hub.faults.listing = [busy(503), busy(429)]
  hub.faults[UNET] = [busy(500), busy(429), busy(502), busy(504)]
  await resolveSource(ID)
  assert.equal(requestsFor(UNET).filter(({ host }) => host === 'cdn').length, 5)
  rmSync(cache, { recursive: true })
  hub.faults[UNET] = Array(9).fill(busy(503))
  await rejects(resolveSource(ID), 'FILE_NOT_FOUND', /cannot be downloaded: the server answered 503/)
  assert.equal(hub.faults[UNET].length, 4)
})

test('the token goes to the hub and never to the CDN', async () => {
  await resolveSource(ID, { token: 'hf_option' })
  for (const { host, path, headers } of hub.requests)
    assert.equal(headers.authorization, host === 'hub' ? 'Bearer hf_option' : undefined, `${host} ${path}`)
  assert.ok(hub.requests.some(({ host }) => host === 'cdn'))
})

test('the token comes from the option, HF_TOKEN or the token file', async () => {
  const sent = async (options) => {
    hub.requests.length = 0
    await resolveSource(ID, options)
    return hub.requests[0].headers.authorization
  }
  assert.equal(await sent(), undefined)
  writeFileSync(path.join(home, 'token'), 'hf_file\n')
  assert.equal(await sent(), 'Bearer hf_file')
  process.env.HF_TOKEN = 'hf_env'
  assert.equal(await sent(), 'Bearer hf_env')
  assert.equal(await sent({ token: 'hf_option' }), 'Bearer hf_option')
  await assert.rejects(
    resolveSource(ID, { token: 'hf\nx' }),
    (error) => error.code === 'INVALID_ARGUMENT' && !error.message.includes('hf\nx'),
  )
})

test('refusals say what to do', async () => {
  await rejects(
    resolveSource('a/unknown'),
    'FILE_NOT_FOUND',
    /no file or folder a\/unknown here.*private; pass a token.*HF_TOKEN/,
  )
  await rejects(resolveSource('a/unknown', { token: 'hf_x' }), 'FILE_NOT_FOUND', /token that was sent gives no access/)
  await rejects(resolveSource(ID, { revision: 'v9' }), 'FILE_NOT_FOUND', /no revision "v9"/)
  await rejects(resolveSource(ID, { revision: '../x' }), 'INVALID_ARGUMENT', /revision/)
  hub.faults[UNET] = [{ status: 403, headers: { 'x-error-code': 'GatedRepo' } }]
  await rejects(resolveSource(ID), 'FILE_NOT_FOUND', /is gated: accept its conditions at http.*tiny-decoder/)
  await rejects(resolveSource(ID, { token: 5 }), 'INVALID_ARGUMENT', /token/)
  await rejects(resolveSource(ID, { cacheDir: 5 }), 'INVALID_ARGUMENT', /cacheDir/)
  process.env.HF_ENDPOINT = 'ftp://x'
  await rejects(resolveSource(ID), 'INVALID_ARGUMENT', /HF_ENDPOINT/)
})

test('a listing that is wrong or tries to leave the cache is refused', async () => {
  const damage = {
    '../../evil': (info) => (info.siblings[0].rfilename = '../../evil'),
    'a/../../evil': (info) => (info.siblings[0].rfilename = 'a/../../evil'),
    '/etc/evil': (info) => (info.siblings[0].rfilename = '/etc/evil'),
    'C:evil': (info) => (info.siblings[0].rfilename = 'C:evil'),
    'evil\\\\x': (info) => (info.siblings[0].rfilename = 'evil\\x'),
    'no size or no checksum': (info) => (info.siblings[1].blobId = '../x'),
    'no size': (info) => (info.siblings[1].size = -1),
    'no commit': (info) => (info.sha = '../../x'),
    'no files': (info) => (info.siblings = 5),
  }
  for (const [what, change] of Object.entries(damage)) {
    hub.edit = (info) => {
      change(info)
      return info
    }
    await assert.rejects(resolveSource(ID), (error) => error.code === 'BAD_FILE' && error.message.includes(what), what)
  }
  hub.edit = () => null
  await rejects(resolveSource(ID), 'BAD_FILE', /no commit or no files/)
  assert.deepEqual(filesIn(home), [])
})

test('offline, a complete snapshot is used without the network', async () => {
  const { path: snapshot } = await resolveSource(ID)
  process.env.HF_HUB_OFFLINE = '1'
  hub.requests.length = 0
  assert.equal((await resolveSource(ID)).path, snapshot)
  assert.equal((await resolveSource(ID, { revision: COMMIT })).path, snapshot)
  assert.equal((await resolveSource(ID, { subfolder: 'scheduler' })).path, snapshot)
  await rejects(resolveSource(ID, { revision: 'v2' }), 'FILE_NOT_FOUND', /HF_HUB_OFFLINE is set.*revision v2/)
  await rejects(resolveSource('a/b'), 'FILE_NOT_FOUND', /HF_HUB_OFFLINE is set.*no a\/b.*Load a\/b once/)
  rmSync(blobOf(unet))
  await rejects(resolveSource(ID), 'FILE_NOT_FOUND', /unet holds no weights.*Load .* once with a connection/)
  assert.equal(hub.requests.length, 0)
})

test('a hub out of reach leaves what the cache has', async () => {
  const { path: snapshot } = await resolveSource(ID)
  hub.close()
  assert.equal((await resolveSource(ID)).path, snapshot)
  await rejects(resolveSource('a/b'), 'FILE_NOT_FOUND', /cannot be downloaded: .*ECONNREFUSED.*In the cache, .*no a\/b/)
})

test('a download that ends between two revisions leaves the older one usable', async () => {
  const { path: older } = await resolveSource(ID)
  hub.commit = 'ab'.repeat(20)
  repositories[ID][UNET] = randomBytes(5000)
  hub.faults[UNET] = [{ status: 404 }]
  await rejects(resolveSource(ID), 'FILE_NOT_FOUND', /404/)
  process.env.HF_HUB_OFFLINE = 'on'
  assert.equal((await resolveSource(ID)).path, older)
})

test('the cache is where the environment or cacheDir says', async () => {
  process.env.HF_HUB_OFFLINE = 'yes'
  const place = async (options) =>
    (await resolveSource('a/b', options).catch((error) => error.message)).match(
      /In the cache, (.*), there is no a\/b/,
    )[1]
  assert.equal(await place(), path.join(home, 'hub'))
  process.env.HUGGINGFACE_HUB_CACHE = path.join(home, 'legacy')
  assert.equal(await place(), path.join(home, 'legacy'))
  process.env.HF_HUB_CACHE = path.join(home, 'direct')
  assert.equal(await place(), path.join(home, 'direct'))
  assert.equal(await place({ cacheDir: path.join(home, 'option') }), path.join(home, 'option'))
  for (const name of ['HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'HF_HOME']) delete process.env[name]
  assert.equal(await place(), path.join(homedir(), '.cache', 'huggingface', 'hub'))
  process.env.XDG_CACHE_HOME = path.join(home, 'xdg')
  assert.equal(await place(), path.join(home, 'xdg', 'huggingface', 'hub'))
  process.env.HF_HOME = '~/models'
  assert.equal(await place(), path.join(homedir(), 'models', 'hub'))
})

test('without symbolic links the snapshot holds the files themselves', async () => {
  process.env.HF_HUB_DISABLE_SYMLINKS = '1'
  const { path: snapshot } = await resolveSource(ID)
  assert.deepEqual(filesIn(snapshot), needed)
  assert.ok(lstatSync(path.join(snapshot, UNET)).isFile())
  // As Python leaves it there: no blob beside the file.
  rmSync(blobOf(unet))
  hub.requests.length = 0
  await resolveSource(ID)
  assert.equal(requestsFor(UNET).length, 0)
})

test('a full disk is said so, before the download or during it', async (t) => {
  hub.edit = (info) => {
    info.siblings.find(({ rfilename }) => rfilename === UNET).size = 1e15
    return info
  }
  await rejects(resolveSource(ID), 'BAD_FILE', /free disk space.*cacheDir/)
  assert.equal(requestsFor(UNET).length, 0)
  hub.edit = (info) => info
  if (!existsSync('/dev/full')) return t.skip('needs /dev/full')
  symlinkSync('/dev/full', `${blobOf(unet)}.incomplete`)
  await rejects(resolveSource(ID), 'BAD_FILE', /disk is full.*cacheDir/)
})

test('a cache that cannot be written is said so', async () => {
  writeFileSync(path.join(home, 'file'), '')
  await rejects(resolveSource(ID, { cacheDir: path.join(home, 'file') }), 'BAD_FILE', /cache cannot be written \(E/)
})

test('calls and processes that want the same file download it once', async () => {
  const script = `import { resolveSource } from ${JSON.stringify(new URL('../../dist/hub/resolve.js', import.meta.url).href)}
    console.log((await resolveSource(${JSON.stringify(ID)})).path)`
  const child = () =>
    new Promise((resolve, reject) => {
      let out = ''
      const run = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      run.stdout.on('data', (chunk) => (out += chunk))
      run.on('error', reject)
      run.on('close', () => resolve(out.trim()))
    })
  const paths = await Promise.all([
    child(),
    child(),
    ...Array.from({ length: 3 }, async () => (await resolveSource(ID)).path),
  ])
  assert.deepEqual(new Set(paths), new Set([path.join(folderOf(ID), 'snapshots', COMMIT)]))
  for (const name of needed) assert.equal(requestsFor(name).filter(({ host }) => host === 'hub').length, 1, name)
})

test('a lock left behind is broken: by its dead process, or by its age', async () => {
  const lock = path.join(cache, '.locks', path.basename(folderOf(ID)), `${sha256(unet)}.pid`)
  mkdirSync(path.dirname(lock), { recursive: true })
  const dead = spawn(process.execPath, ['-e', ''])
  await new Promise((resolve) => dead.on('close', resolve))
  writeFileSync(lock, `${dead.pid} x ${hostname()}`)
  await resolveSource(ID)
  rmSync(blobOf(unet))
  writeFileSync(lock, `1 x another-machine`)
  const old = new Date(Date.now() - 60_000)
  utimesSync(lock, old, old)
  assert.ok(existsSync(path.join((await resolveSource(ID)).path, UNET)))
  assert.ok(!existsSync(lock))
})

test('connectedPrior reads the front matter of a README.md and survives anything else', () => {
  const published = readFileSync('test/fixtures/checkpoints/kandinsky-2-2-decoder/README.md', 'utf8')
  assert.equal(connectedPrior(published), 'kandinsky-community/kandinsky-2-2-prior')
  assert.equal(connectedPrior('---\nprior:\n- demo\n---'), 'demo')
  const good = [
    'prior:\n- a/b',
    'tags:\n- x\nprior:\n  - "a/b"\n  - c/d\nlicense: mit',
    'prior: a/b',
    "prior: ['a/b', c/d]",
    'prior: # connected\n- a/b # this',
    'prior:\r\n- a/b',
  ]
  for (const yaml of good) assert.equal(connectedPrior(`---\n${yaml}\n---\ntext`), 'a/b', yaml)
  assert.equal(connectedPrior('\uFEFF---\r\nprior:\r\n- a/b\r\n---\r\n'), 'a/b')
  const bad = [
    '',
    '---',
    '---\n---',
    'prior:\n- a/b',
    'text\n---\nprior: a/b\n---\n',
    '---\nprior: a/b',
    '---\nprior:\n---',
    '---\nprior: []\n---',
    '---\nprior: ../x/y\n---',
    '---\nprior:\nx: a/b\n---',
    '---\nnot_prior: a/b\n---',
    '---\n---\nprior: a/b\n---\n',
    '\0\xff---',
  ]
  for (const text of bad) assert.equal(connectedPrior(text), undefined, JSON.stringify(text))
})

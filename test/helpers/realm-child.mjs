// Loads the library in a `vm` context and uses it there, as Jest and vitest's vmThreads do: JavaScript's own constructors
// are the context's, Node's globals, modules and the dependencies are Node's. Run with --experimental-vm-modules; fails by
// throwing.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import vm from 'node:vm'

const [library, picture] = process.argv.slice(2)
const context = vm.createContext({})
const own = new Set(Object.getOwnPropertyNames(vm.runInContext('globalThis', context)))
for (const name of Object.getOwnPropertyNames(globalThis)) if (!own.has(name)) context[name] = globalThis[name]
// The one constructor that Jest hands in, so that `instanceof Uint8Array` holds for Buffers there and nowhere else.
if (process.argv.includes('--jest')) context.Uint8Array = Uint8Array

const modules = new Map()

async function load(specifier, parent) {
  const key = specifier.startsWith('.') ? new URL(specifier, parent).href : specifier
  if (!modules.has(key)) modules.set(key, key.startsWith('file:') && !key.endsWith('.cjs') ? source(key) : foreign(key))
  return modules.get(key)
}

function source(url) {
  return new vm.SourceTextModule(readFileSync(fileURLToPath(url), 'utf8'), {
    context,
    identifier: url,
    initializeImportMeta: (meta) => Object.assign(meta, { url }),
  })
}

async function foreign(name) {
  const resolved = name.startsWith('node:') || name.startsWith('file:') ? name : createRequire(library).resolve(name)
  const loaded = await import(path.isAbsolute(resolved) ? pathToFileURL(resolved).href : resolved)
  const exported = { ...loaded.default, ...loaded } // of CommonJS the names that the import did not see
  const names = Object.keys(exported)
  return new vm.SyntheticModule(
    names,
    function () {
      for (const one of names) this.setExport(one, exported[one])
    },
    { context, identifier: name },
  )
}

const index = await load(pathToFileURL(library).href)
await index.link((specifier, { identifier }) => load(specifier, identifier))
await index.evaluate()
const inside = index.namespace

// ---- values of the context, made and used there ---------------------------------------------------------------------
context.library = inside
context.picture = picture
const used = vm.runInContext(
  `(async () => {
    const { AutoPipelineForText2Image, AutoPipelineForImage2Image, Generator, KandinskyError, RawImage, Tensor } = library
    const pipe = await AutoPipelineForText2Image.fromPretrained('demo', { threads: 1 })
    const { images } = await pipe.generate({ prompt: 'a cat', numInferenceSteps: 2, generator: new Generator(1) })
    await images[0].save(picture)
    const again = await library.loadImage(picture)
    const same = again.data.every((value, i) => value === images[0].data[i])
    const fromBytes = await library.loadImage(new Uint8Array(await images[0].toBuffer('png')))
    const image = await AutoPipelineForImage2Image.fromPretrained('demo', { threads: 1 })
    const changed = await image.generate({ prompt: 'a dog', image: fromBytes, numInferenceSteps: 4, outputType: 'float' })
    const wrong = await pipe.generate({ prompt: 'a cat', numInferenceSteps: -1 }).catch((error) => error)
    const missing = await library.loadImage('nowhere.png').catch((error) => error)
    const cancelled = await pipe
      .generate({ prompt: 'a cat', signal: AbortSignal.abort('enough') })
      .catch((reason) => reason)
    await Promise.all([pipe.dispose(), image.dispose()])
    const recipe = await library.readRecipe(picture)
    return {
      same,
      seed: recipe.seed,
      tensor: changed.images instanceof Tensor && changed.images.data instanceof Float32Array,
      errors: [wrong, missing].map((error) => error instanceof KandinskyError && error.code),
      cancelled,
      raw: new RawImage(new Uint8Array(3), 1, 1) instanceof RawImage,
    }
  })()`,
  context,
)
assert.deepEqual(JSON.parse(JSON.stringify(await used)), {
  same: true,
  seed: 1,
  tensor: true,
  errors: ['INVALID_ARGUMENT', 'FILE_NOT_FOUND'],
  cancelled: 'enough',
  raw: true,
})

// ---- values from outside, given to the library inside, and the other way round --------------------------------------
const outside = await import(pathToFileURL(library).href)
assert.notEqual(inside.Tensor, outside.Tensor)
for (const [from, to] of [
  [inside, outside],
  [outside, inside],
]) {
  const tensor = new to.Tensor(new from.Tensor(new Float32Array([1, 2]), [2]).data, [2])
  assert.ok(tensor instanceof from.Tensor)
  const noise = new from.Generator(7).randn([1, 4, 2, 2])
  const stepped = to.DDIMScheduler.fromConfig({ num_train_timesteps: 1000 })
  stepped.setTimesteps(5)
  assert.ok(stepped.step(noise, stepped.timesteps[0], noise).prevSample instanceof to.Tensor)
  assert.equal((await to.loadImage(new from.RawImage(new Uint8Array(12), 2, 2))).width, 2)
  assert.equal((await to.makeImageGrid([new from.RawImage(new Uint8Array(12), 2, 2)], 1, 1)).width, 2)
  await assert.rejects(to.loadImage('nowhere.png'), (error) => error instanceof from.KandinskyError)
}

// The direction of imports is the architecture (docs/architecture.md). A new arrow the wrong way fails here.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import test from 'node:test'

const root = path.resolve(import.meta.dirname, '../..')

function filesUnder(directory, pattern) {
  return readdirSync(path.join(root, directory), { recursive: true })
    .map((file) => path.join(directory, file))
    .filter((file) => pattern.test(file) && !file.includes(`native${path.sep}ggml${path.sep}`))
}

/** Imports of a TypeScript file as paths from src/, e.g. `schedulers/ddim.ts`; packages keep their name. */
function importsOf(file) {
  const source = readFileSync(path.join(root, file), 'utf8')
  return [...source.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map(([, name]) =>
    name.startsWith('.')
      ? path.relative('src', path.join(path.dirname(file), name)).replace(/\.(c?)js$/, '.$1ts')
      : name.replace(/^node:/, 'node:'),
  )
}

/** Layers from the top; a file may import from its own layer and from those below. */
const layers = [
  ['cli', /^cli\//],
  ['server', /^server\//],
  ['index', /^index\.ts$/],
  ['worker', /^worker\//],
  ['pipelines', /^pipelines\//],
  ['convert', /^(convert|pull)\.ts$/],
  ['networks and hub', /^(networks|hub)\//],
  ['checkpoint', /^checkpoint\//],
  ['algorithms', /^(schedulers|tokenizers|images)\//],
  ['native', /^native\.ts$/],
  ['files beside the code', /^binaries\.cts$/],
  ['values', /^(random|tensor|errors|files|math|realms|version)\.ts$/],
]
const layerOf = (file) => layers.findIndex(([, pattern]) => pattern.test(file))

const sources = filesUnder('src', /\.c?ts$/)

test('every file of src belongs to a layer', () => {
  for (const file of sources) assert.notEqual(layerOf(path.relative('src', file)), -1, `${file} is in no layer`)
})

test('imports of src run one way', () => {
  for (const file of sources) {
    const from = layerOf(path.relative('src', file))
    for (const target of importsOf(file).filter((name) => /\.c?ts$/.test(name))) {
      assert.ok(
        layerOf(target) >= from,
        `${file} (${layers[from][0]}) imports ${target} (${layers[layerOf(target)]?.[0]})`,
      )
    }
  }
})

test('neither files nor folders of src import each other in a circle', () => {
  const files = new Map(
    sources.map((file) => [path.relative('src', file), importsOf(file).filter((name) => /\.c?ts$/.test(name))]),
  )
  assert.deepEqual(circleOf(files), [])
  assert.deepEqual(circleOf(foldersOf(files)), [])
})

/** What the files of each folder import of other folders. Files at the top of src stand for themselves. */
function foldersOf(files) {
  const folders = new Map()
  for (const [file, imports] of files) {
    const folder = folderOf(file)
    const targets = folders.get(folder) ?? new Set()
    for (const target of imports.map(folderOf)) if (target !== folder) targets.add(target)
    folders.set(folder, targets)
  }
  return folders
}

function folderOf(file) {
  const folder = path.dirname(file)
  return folder === '.' ? file : folder
}

/** The nodes of one circle of a graph, in order; none if it has none. */
function circleOf(graph) {
  const done = new Set()
  const visit = (node, trail) => {
    if (trail.includes(node)) return [...trail.slice(trail.indexOf(node)), node]
    if (done.has(node)) return []
    for (const next of graph.get(node) ?? []) {
      const circle = visit(next, [...trail, node])
      if (circle.length > 0) return circle
    }
    done.add(node)
    return []
  }
  for (const node of graph.keys()) {
    const circle = visit(node, [])
    if (circle.length > 0) return circle
  }
  return []
}

test('schedulers, tokenizers, tensors and random numbers are pure', () => {
  for (const file of sources.filter((name) =>
    /^src\/(schedulers\/|tokenizers\/|tensor|random|errors|math|realms)/.test(name),
  ))
    for (const target of importsOf(file))
      assert.ok(!/^(node:|sharp$|native\.ts$)/.test(target), `${file} imports ${target}`)
})

test('only images/image.ts uses sharp, only native.ts the addon, and only binaries.cts looks for what lies on disk', () => {
  const uses = (pattern) => sources.filter((file) => pattern.test(readFileSync(path.join(root, file), 'utf8')))
  const [image, native, binaries] = ['images/image.ts', 'native.ts', 'binaries.cts'].map((file) =>
    path.join('src', file),
  )
  assert.deepEqual(uses(/from 'sharp'|\.loadSharp\(/), [image])
  assert.deepEqual(uses(/\.loadAddon\(|\.addonPath\(/), [native])
  assert.deepEqual(uses(/require\('(sharp|node-gyp-build)'\)|require\.resolve|__dirname|import\.meta/), [binaries])
})

test('the engine knows nothing of Node, the border nothing of ggml, and no network includes another', () => {
  const registry = readFileSync(path.join(root, 'native/models/registry.cpp'), 'utf8')
  const networks = [...registry.matchAll(/network\(\w+, make_(\w+)\)/g)].map(([, name]) => name)
  assert.ok(networks.length > 0)
  for (const file of filesUnder('native', /\.(cpp|h|cu|cuh)$/)) {
    const includes = [...readFileSync(path.join(root, file), 'utf8').matchAll(/#include\s+[<"]([^>"]+)[>"]/g)].map(
      ([, name]) => name,
    )
    if (/^native\/(core|graph|layers|models|kernels)\//.test(file))
      assert.ok(!includes.some((name) => /napi|node_api|^addon\//.test(name)), `${file} includes Node-API`)
    if (/^native\/addon\//.test(file))
      assert.ok(!includes.some((name) => /^ggml|^gguf/.test(name)), `${file} includes ggml`)
    if (/^native\/models\//.test(file))
      for (const network of networks)
        assert.ok(!includes.includes(`models/${network}.h`), `${file} includes the network ${network}`)
  }
})

/** Folders of native/ from the top; a file may include from its own folder and from those below. */
const nativeLayers = ['addon', 'models', 'layers', 'graph', 'core', 'cuda', 'kernels/cpu', 'kernels/cuda', 'kernels']

test('includes of native run one way, and neither files nor folders include each other in a circle', () => {
  const files = new Map()
  for (const file of filesUnder('native', /\.(cpp|h|cu|cuh)$/)) {
    const name = path.relative('native', file)
    if (/^(test|bench|fuzz)\//.test(name)) continue
    const source = readFileSync(path.join(root, file), 'utf8')
    const includes = [...source.matchAll(/#include\s+"([^"]+)"/g)].map(([, target]) => target)
    files.set(
      name,
      includes.filter((target) => nativeLayers.includes(path.dirname(target))),
    )
  }
  for (const [name, includes] of files)
    for (const target of includes) {
      const [from, to] = [name, target].map((file) => nativeLayers.indexOf(path.dirname(file)))
      assert.ok(from >= 0 && to >= from, `${name} includes ${target}`)
    }
  assert.deepEqual(circleOf(files), [])
  assert.deepEqual(circleOf(foldersOf(files)), [])
})

// Bundlers and tracers: the recipes of docs/bundlers.md, and what happens without them.
import assert from 'node:assert/strict'
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, test } from 'node:test'
import { nodeFileTrace } from '@vercel/nft'
import * as esbuild from 'esbuild'
import { installPackage, manifest, runScript } from '../helpers/installed-package.mjs'

const { name } = manifest
const { folder, app, byNpm } = installPackage()
after(() => rmSync(folder, { recursive: true, force: true }))

const draw = `
  const pipe = await AutoPipelineForText2Image.fromPretrained('demo', { threads: 1 })
  const { images } = await pipe.generate({ prompt: 'a cat', numInferenceSteps: 2 })
  console.log((await images[0].toBuffer('png')).subarray(1, 4).toString(), images[0].recipe.version)
  await pipe.dispose()`
const drawInWorker = `
  const worker = createWorker()
  const remote = await worker.AutoPipelineForText2Image.fromPretrained('demo', { threads: 1 })
  const there = await remote.generate({ prompt: 'a cat', numInferenceSteps: 2 })
  console.log('worker', there.images[0].width)
  await worker.dispose()`
const drawn = `PNG ${name} ${manifest.version}\nworker 128`
const both = '{ AutoPipelineForText2Image, createWorker }'
const importing = `import ${both} from '${name}'\n;(async () => {${draw}${drawInWorker}})()`
const requiring = `const ${both} = require('${name}')\n;(async () => {${draw}${drawInWorker}})()`
writeFileSync(path.join(app, 'entry.mjs'), importing)
writeFileSync(path.join(app, 'entry.cjs'), requiring)

/** The packages of other platforms are named in the code, and not installed here. */
const isOfOtherPlatform = (message) => /dependency "@node-kandinsky\/\w+-\w+(-musl)?"/.test(message)

for (const entry of ['entry.mjs', 'entry.cjs'])
  test(`what @vercel/nft traces from ${entry} runs alone: Next's standalone output, Vercel, Nitro`, {
    skip: !byNpm && 'npm has not cached every dependency',
  }, async () => {
    const { fileList, warnings } = await nodeFileTrace([path.join(app, entry)], { base: app })
    assert.deepEqual(
      [...warnings].filter(({ message }) => message.includes(name) && !isOfOtherPlatform(message)),
      [],
    )
    const standalone = path.join(folder, `standalone-${entry}`)
    for (const file of fileList) {
      mkdirSync(path.dirname(path.join(standalone, file)), { recursive: true })
      cpSync(path.join(app, file), path.join(standalone, file))
    }
    const { status, stdout, stderr } = runScript(standalone, entry)
    assert.equal(status, 0, stderr)
    assert.equal(stdout.trim(), drawn)
  })

async function bundle(entry, options) {
  const outfile = path.join(app, `out-${Object.values(options).join('-')}.${options.format === 'esm' ? 'mjs' : 'cjs'}`)
  const common = { bundle: true, platform: 'node', logLevel: 'silent', absWorkingDir: app, target: 'node20' }
  await esbuild.build({ ...common, entryPoints: [path.join(app, entry)], outfile, ...options })
  return path.basename(outfile)
}

for (const [entry, format] of [
  ['entry.mjs', 'esm'],
  ['entry.mjs', 'cjs'],
  ['entry.cjs', 'cjs'],
])
  test(`esbuild, ${entry} to ${format}, with the package external`, async () => {
    const file = await bundle(entry, { format, external: [name] })
    assert.ok(readFileSync(path.join(app, file)).length < 5000)
    const { status, stdout, stderr } = runScript(app, file)
    assert.equal(status, 0, stderr)
    assert.equal(stdout.trim(), drawn)
  })

test('esbuild refuses a bundle of everything, as it takes no binaries', async () => {
  await assert.rejects(bundle('entry.mjs', { format: 'esm' }), /No loader is configured for "\.node" files/)
})

for (const format of ['esm', 'cjs'])
  test(`a bundle with the package in it (${format}) loads, and says what to do once the addon is needed`, async () => {
    writeFileSync(
      path.join(app, 'inside.mjs'),
      `import { EulerDiscreteScheduler, listDevices } from '${name}'
       console.log(EulerDiscreteScheduler.fromConfig({ num_train_timesteps: 1000 }).config.num_train_timesteps)
       try { listDevices() } catch (error) { console.log(error.code, error.message) }`,
    )
    const file = await bundle('inside.mjs', { format, external: ['sharp'] })
    // Where the platform's package is in reach of a CommonJS bundle, even that finds the addon.
    const alone = path.join(folder, 'alone')
    mkdirSync(alone, { recursive: true })
    cpSync(path.join(app, file), path.join(alone, file))
    const { status, stdout, stderr } = runScript(alone, file)
    assert.equal(status, 0, stderr)
    assert.match(stdout, /^1000\nNATIVE_LOAD_FAILED .*Mark "node-kandinsky" .*external/)
  })

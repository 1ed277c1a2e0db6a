// The examples compile against the package's types and run on the tiny checkpoints.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import path from 'node:path'
import test, { after, before } from 'node:test'
import { promisify } from 'node:util'
import { loadImage } from '../../dist/index.js'
import { checkpoint, fixtures } from '../helpers/cases.mjs'
import { temporaryFolder } from '../helpers/files.mjs'
import { writePublished } from '../helpers/published-kandinsky3.mjs'

const root = path.resolve(import.meta.dirname, '../..')
const compiled = path.join(root, 'build', 'examples')
const run = (script, ...args) => promisify(execFile)(process.execPath, [script, ...args], { cwd: root })

const picture = (name) => path.join(fixtures, 'images', name)
const priorModel = checkpoint('kandinsky-2-2-prior')
const small = { size: 64, steps: 4, prior: priorModel }
const decoder = { model: checkpoint('kandinsky-2-2-decoder'), ...small }
const inpaint = { model: checkpoint('kandinsky-2-2-decoder-inpaint'), ...small }
const controlnet = { model: checkpoint('kandinsky-2-2-controlnet-depth'), ...small, priorSteps: 3 }
const cat = picture('plasma_320x240.png')
const depth = picture('depth_a_64x64.png')

const kandinsky3Inpainting = path.join(writePublished(temporaryFolder({ after }), ['_inpainting']), 'weights')

/** Settings of each example, and the size of what it writes. */
const examples = {
  'text-to-image': [decoder, 64, 64],
  'image-to-image': [{ ...decoder, image: cat, strength: 0.5 }, 128, 64],
  inpainting: [{ ...inpaint, image: cat }, 128, 64],
  outpainting: [{ ...inpaint, image: cat, room: 64 }, 192, 64],
  interpolation: [{ ...decoder, image1: cat, image2: picture('shapes_96x64.png'), priorSteps: 3 }, 64, 64],
  'depth-map': [{ model: path.join(fixtures, 'depth', 'dpt'), image: cat }, 320, 240],
  controlnet: [{ ...controlnet, hint: depth }, 64, 64],
  'controlnet-image-to-image': [{ ...controlnet, image: cat, hint: depth }, 64, 64],
  steps: [decoder, 64, 64],
  'kandinsky-3': [{ model: checkpoint('kandinsky-3'), size: 64, steps: 4 }, 64, 64],
  'kandinsky-3-inpainting': [{ model: kandinsky3Inpainting, image: cat, steps: 4 }, 320, 192],
  'kandinsky-3-image-to-image': [{ model: checkpoint('kandinsky-3'), image: cat, steps: 4 }, 320, 256],
  'kandinsky-5-editing': [{ model: checkpoint('kandinsky-5-i2i'), image: cat, steps: 1 }, 1152, 896],
}

before(() => run(path.join(root, 'node_modules/typescript/bin/tsc'), '-p', path.join(root, 'examples')))

test('every example has settings here', () => {
  const names = readdirSync(path.join(root, 'examples')).filter((name) => name.endsWith('.ts'))
  assert.deepEqual(names.sort(), ['arguments.ts', ...Object.keys(examples).map((name) => `${name}.ts`)].sort())
})

for (const [name, [settings, width, height]] of Object.entries(examples))
  test(`examples/${name}.ts makes a picture`, async (t) => {
    const folder = temporaryFolder(t)
    const output = path.join(folder, 'out.png')
    const files = ['interpolation', 'kandinsky-3'].includes(name) ? { cache: path.join(folder, 'kept.json') } : {}
    const args = Object.entries({ ...settings, ...files, output }).flatMap(([key, value]) => [
      `--${key}`,
      String(value),
    ])
    await run(path.join(compiled, `${name}.js`), ...args)
    const image = await loadImage(output)
    assert.deepEqual([image.width, image.height], [width, height])
  })

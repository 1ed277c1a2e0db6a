// examples/electron, as far as it goes without Electron: its work under Node, its page in Chromium with a stand-in for the
// bridge, its packaging with Electron's own archiver.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { createPackageWithOptions, listPackage, statFile } from '@electron/asar'
import { installPackage, manifest, runScript } from '../helpers/installed-package.mjs'

const example = path.resolve(import.meta.dirname, '../../examples/electron')
const { folder, app, byNpm } = installPackage()
after(() => rmSync(folder, { recursive: true, force: true }))
for (const file of ['studio.js', 'main.js', 'preload.cjs', 'page', 'package.json'])
  cpSync(path.join(example, file), path.join(app, file), { recursive: true })

test('the studio draws with previews, starts from a picture, cancels, and says what went wrong', async () => {
  const { Studio } = await import(pathToFileURL(path.join(app, 'studio.js')).href)
  const studio = new Studio()
  const steps = []
  const first = await studio.draw({ id: 1, prompt: 'a red apple', steps: 3 }, (step) => steps.push(step))
  assert.equal(Buffer.from(first.png).toString('latin1', 1, 4), 'PNG')
  assert.deepEqual(
    steps.map(({ id, step, steps: all }) => [id, step, all]),
    [
      [1, 1, 3],
      [1, 2, 3],
      [1, 3, 3],
    ],
  )
  const { data, width, height } = steps[0].preview
  assert.equal(data.length, width * height * 3)
  structuredClone(first)

  const second = await studio.draw({ id: 2, prompt: 'a cat', steps: 4, picture: first.png }, () => {})
  assert.ok(second.png)
  const cancelled = studio.draw({ id: 3, prompt: 'a cat', steps: 500 }, () => studio.cancel(3))
  assert.deepEqual(await cancelled, { id: 3, cancelled: true })
  const broken = await studio.draw({ id: 4, prompt: 'a cat', picture: new Uint8Array([1, 2, 3]) }, () => {})
  assert.match(broken.error, /Expected a PNG/)
  await studio.close()

  const nowhere = new Studio('/no/such/model.gguf')
  assert.match((await nowhere.draw({ id: 1, prompt: 'a' }, () => {})).error, /model\.gguf/)
  await nowhere.close()
})

const chromium = ['chromium', 'chromium-browser', 'google-chrome'].find((name) => !spawnSync(name, ['--version']).error)

test('the page draws, previews, cancels, keeps a history and takes a dropped picture', {
  skip: !chromium && 'no Chromium here',
}, () => {
  const page = path.join(folder, 'page')
  cpSync(path.join(example, 'page'), page, { recursive: true })
  // The bridge of preload.cjs, and a user.
  writeFileSync(
    path.join(page, 'bridge.js'),
    `const asked = []
     let listener
     const answers = new Map()
     window.studio = {
       draw: (request) => new Promise((resolve) => { asked.push(request); answers.set(request.id, resolve) }),
       cancel: (id) => answers.get(id)?.({ id, cancelled: true }),
       onStep: (given) => { listener = given },
     }
     addEventListener('load', async () => {
       const tick = () => new Promise((resolve) => setTimeout(resolve, 50))
       const text = () => document.getElementById('message').textContent
       const seen = {}
       document.getElementById('prompt').value = 'a red apple'
       document.getElementById('draw').click()
       listener({ id: 1, step: 2, steps: 4, preview: { width: 2, height: 2, data: new Uint8Array(12).fill(200) } })
       seen.step = text()
       seen.progress = document.getElementById('progress').value
       seen.pixel = [...document.getElementById('preview').getContext('2d').getImageData(0, 0, 1, 1).data]
       const png = Uint8Array.from(atob('${onePixel()}'), (c) => c.charCodeAt(0))
       answers.get(1)({ id: 1, png })
       await tick()
       seen.done = text()
       seen.history = [...document.querySelectorAll('#history img')].map((image) => image.alt)
       seen.drawn = document.getElementById('preview').width
       const files = new DataTransfer()
       files.items.add(new File([png], 'start.png'))
       document.dispatchEvent(new DragEvent('drop', { dataTransfer: files }))
       for (let i = 0; i < 100 && document.getElementById('start').hidden; i++) await tick()
       seen.startShown = !document.getElementById('start').hidden
       document.getElementById('draw').click()
       document.getElementById('cancel').click()
       await tick()
       seen.cancelled = text()
       seen.asked = asked.map(({ prompt, picture }) => [prompt, picture?.length ?? 0])
       const result = document.createElement('pre')
       result.id = 'seen'
       result.textContent = JSON.stringify(seen)
       document.body.append(result)
     })`,
  )
  const html = readFileSync(path.join(page, 'index.html'), 'utf8')
  writeFileSync(
    path.join(page, 'index.html'),
    html.replace('<script src="page.js">', '<script src="bridge.js"></script>$&'),
  )
  const profile = `--user-data-dir=${path.join(folder, 'profile')}`
  const flags = ['--headless', '--no-sandbox', '--disable-gpu', profile, '--virtual-time-budget=20000', '--dump-dom']
  const { stdout, stderr } = spawnSync(chromium, [...flags, pathToFileURL(path.join(page, 'index.html')).href], {
    encoding: 'utf8',
  })
  const [, seen] = /<pre id="seen">(.*?)<\/pre>/.exec(stdout) ?? assert.fail(`${stdout}\n${stderr}`)
  const size = Buffer.from(onePixel(), 'base64').length
  assert.deepEqual(JSON.parse(seen), {
    step: 'Step 2 of 4',
    progress: 0.5,
    pixel: [200, 200, 200, 255],
    done: 'Done.',
    history: ['a red apple'],
    drawn: 1,
    startShown: true,
    cancelled: 'Cancelled.',
    asked: [
      ['a red apple', 0],
      ['a red apple', size],
    ],
  })
})

/** A PNG file of one pixel, in base64. */
function onePixel() {
  return 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
}

test('packed into an archive, what must be outside is outside, and the application finds it there', {
  skip: !byNpm && 'npm has not cached every dependency',
}, async () => {
  const resources = path.join(folder, 'resources')
  mkdirSync(resources)
  const archive = path.join(resources, 'app.asar')
  const unpackDir = '**/node_modules/{@node-kandinsky,@img}'
  await createPackageWithOptions(app, archive, { unpackDir, dot: true })
  const files = listPackage(archive).map((file) => file.slice(1))
  const unpacked = (file) => statFile(archive, file).unpacked === true
  const natives = files.filter((file) => /\.(node|gguf|so(\.\d+)*|dylib|dll)$/.test(file))
  assert.ok(natives.length >= 3, natives.join(' '))
  for (const file of natives) assert.ok(unpacked(file), file)
  for (const file of ['main.js', 'studio.js', `node_modules/${manifest.name}/dist/index.js`])
    assert.ok(files.includes(file) && !unpacked(file), file)
  for (const file of natives) assert.ok(existsSync(path.join(`${archive}.unpacked`, file)), file)
})

test('the main process and the bridge speak of the same messages', () => {
  const [main, preload] = ['main.js', 'preload.cjs'].map((file) => readFileSync(path.join(example, file), 'utf8'))
  const names = (text, pattern) => [...text.matchAll(pattern)].map(([, name]) => name).sort()
  const handled = names(main, /ipcMain\.(?:handle|on)\('(\w+)'/g)
  assert.deepEqual(handled, names(preload, /ipcRenderer\.(?:invoke|send)\('(\w+)'/g))
  assert.deepEqual(names(main, /sender\.send\('(\w+)'/g), names(preload, /ipcRenderer\.on\('(\w+)'/g))
  const { status, stderr } = runScript(app, 'main.js', undefined, '--check')
  assert.equal(status, 0, stderr)
})

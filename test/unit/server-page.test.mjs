// The page of kandinsky serve in a real browser: Debian's Chromium, headless, or the one that $CHROMIUM names.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { networkInterfaces } from 'node:os'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { loadImage, RawImage, readRecipe } from '../../dist/index.js'
import { createServer } from '../../dist/server/index.js'

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
const skip = !existsSync(executablePath) && `there is no Chromium at ${executablePath}: apt-get install chromium`

let browser
let server
before(async () => {
  if (skip) return
  // Its own sandbox does not run as root.
  browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
  server = await createServer({ port: 0 })
})
after(async () => {
  await browser?.close()
  await server?.close()
})

/** A page of its own, whose every complaint (of the content security policy, too) fails the test. */
async function open(t, { url = server.url, refusals = [], ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(20_000)
  const complaints = []
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text())
  })
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('request', (request) => {
    if (!/^(blob:)?http/.test(request.url()) || !request.url().replace('blob:', '').startsWith(url))
      complaints.push(`asked for ${request.url()}`)
  })
  t.after(async () => {
    await context.close()
    // Chromium logs answers with a status above 399.
    assert.deepEqual(
      complaints.filter((text) => !refusals.some((refusal) => text.includes(refusal))),
      [],
    )
  })
  await page.goto(url)
  return page
}

/** What the page asks the server for next. */
async function nextRequest(page, act) {
  const [request] = await Promise.all([
    page.waitForRequest((r) => r.method() === 'POST' && r.url().endsWith('/jobs')),
    act(),
  ])
  return request.postDataJSON()
}

const pictures = (page) => page.locator('#gallery button')
const fact = async (page, name) =>
  (await page.locator('#recipe div', { hasText: name }).locator('dd').textContent()).trim()

async function generate(page, settings = {}) {
  const before = await pictures(page).count()
  for (const [name, value] of Object.entries({ steps: '3', ...settings })) await page.fill(`[name=${name}]`, value)
  await page.click('.go button')
  await pictures(page).nth(before).waitFor()
  await page.locator('#jobs li').waitFor({ state: 'detached' })
}

/** Drops a file onto the page, as the desktop does. */
async function drop(page, bytes, name) {
  await page.evaluate(
    ({ base64, name }) => {
      const data = new DataTransfer()
      data.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name, { type: 'image/png' }))
      document.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }))
    },
    { base64: Buffer.from(bytes).toString('base64'), name },
  )
}

async function downloaded(page) {
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#download')])
  return { bytes: await readFile(await download.path()), name: download.suggestedFilename() }
}

test('Ctrl+Enter makes a picture: progress and previews while it is made, its recipe afterwards', {
  skip,
}, async (t) => {
  const page = await open(t)
  await page.fill('[name=prompt]', 'a red apple')
  await page.fill('[name=steps]', '60')
  await page.fill('[name=seed]', '6687881544318117707')
  await page.press('[name=prompt]', 'Control+Enter')
  await page.locator('#shown.preview').waitFor()
  await page.waitForFunction(() => /Step \d+ of 60/.test(document.querySelector('#jobs').textContent))
  assert.ok((await page.locator('#jobs progress').evaluate((bar) => bar.value)) > 0)
  assert.equal(await page.locator('#picture').evaluate((image) => image.decode().then(() => image.naturalWidth)), 128)
  await pictures(page).first().waitFor()
  await page.locator('#jobs li').waitFor({ state: 'detached' })
  assert.equal(await page.locator('#caption').textContent(), 'a red apple')
  assert.deepEqual([await fact(page, 'Seed'), await fact(page, 'Steps')], ['6687881544318117707', '60'])
  const { bytes, name } = await downloaded(page)
  assert.equal(name, 'a-red-apple-6687881544318117707.png')
  assert.equal((await readRecipe(bytes)).seed, '6687881544318117707')
})

test('several jobs wait in the queue; Escape cancels the first, its button any of them', { skip }, async (t) => {
  const page = await open(t)
  await page.fill('[name=steps]', '900')
  await page.click('.go button')
  await page.fill('[name=prompt]', 'a cat')
  await page.click('.go button')
  const rows = page.locator('#jobs li')
  await rows.nth(1).getByText('Next in the queue').waitFor()
  await rows.nth(1).getByRole('button', { name: 'Cancel' }).click()
  await rows.nth(1).waitFor({ state: 'detached' })
  await page.keyboard.press('Escape')
  await rows.first().waitFor({ state: 'detached' })
  assert.equal(await pictures(page).count(), 0)
  assert.ok(await page.locator('#empty').isVisible())
})

test('what is painted over in the picture is what is made anew; strokes are undone and erased', { skip }, async (t) => {
  const page = await open(t)
  await generate(page, { prompt: 'a cat', seed: '1' })
  await page.click('#as-start')
  await page.click('#start-mask')
  const board = page.locator('#board')
  await board.waitFor()
  const { x, y, width, height } = await board.boundingBox()
  const stroke = async (from, to) => {
    await page.mouse.move(x + from[0] * width, y + from[1] * height)
    await page.mouse.down()
    await page.mouse.move(x + to[0] * width, y + to[1] * height, { steps: 4 })
    await page.mouse.up()
  }
  await page.locator('#brush-size').fill('40')
  await stroke([0.1, 0.9], [0.9, 0.9])
  await page.keyboard.press('Control+z')
  assert.ok(await page.locator('#undo').isDisabled())
  await stroke([0, 0.2], [1, 0.2])
  await page.keyboard.press('e')
  await stroke([0, 0.2], [0.3, 0.2])
  await page.click('#editor-done')
  await page.locator('#strength-field').waitFor({ state: 'hidden' })
  await page.fill('[name=prompt]', 'a red apple')
  await page.fill('[name=steps]', '10')
  const body = await nextRequest(page, () => page.click('.go button'))
  assert.equal(body.strength, undefined)
  const mask = await loadImage(Buffer.from(body.mask, 'base64'), { mode: 'L' })
  const at = (left, top) => mask.data[Math.floor(top * mask.height) * mask.width + Math.floor(left * mask.width)]
  assert.deepEqual([at(0.7, 0.2), at(0.1, 0.2), at(0.5, 0.9)], [255, 0, 0])
  await pictures(page).nth(1).waitFor()
  await page.locator('#jobs li').waitFor({ state: 'detached' })
  // The lower half stays.
  const pixels = async () => (await loadImage((await downloaded(page)).bytes)).data
  const after = await pixels()
  await pictures(page).nth(1).click()
  const before = await pixels()
  const row = 128 * 3
  const change = (from, to) => {
    let sum = 0
    for (let i = from * row; i < to * row; i++) sum += Math.abs(after[i] - before[i])
    return sum / ((to - from) * row)
  }
  const [above, below] = [change(0, 48), change(80, 128)]
  assert.ok(above > 3 * below, `mean change above ${above}, below ${below}`)
})

test('a drawing is a start, too', { skip }, async (t) => {
  const page = await open(t)
  await page.fill('[name=width]', '128')
  await page.fill('[name=height]', '128')
  await page.click('#start-draw')
  await page.locator('#board').waitFor()
  const { x, y, width, height } = await page.locator('#board').boundingBox()
  await page.mouse.click(x + width / 2, y + height / 2)
  await page.click('#editor-done')
  await page.locator('#strength-field').waitFor()
  await page.locator('[name=strength]').fill('0.8')
  await page.fill('[name=steps]', '3')
  const body = await nextRequest(page, () => page.click('.go button'))
  const { data } = await loadImage(Buffer.from(body.image, 'base64'))
  assert.deepEqual([...data.subarray((64 * 128 + 64) * 3).subarray(0, 3)], [0xd3, 0x3c, 0x3c])
  assert.deepEqual([...data.subarray(0, 3)], [255, 255, 255])
  assert.deepEqual([body.strength, body.mask], [0.8, undefined])
  await pictures(page).first().waitFor()
})

test('texts and pictures are mixed by weight', { skip }, async (t) => {
  const page = await open(t)
  await generate(page, { prompt: 'a cat' })
  const { bytes } = await downloaded(page)
  await page.locator('[name=mode][value=mix]').check({ force: true })
  await page.getByLabel('Text 2').fill('a rocket')
  await page.getByLabel('Weight 2').fill('0.3')
  const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.click('#mix-picture')])
  await chooser.setFiles({ name: 'cat.png', mimeType: 'image/png', buffer: bytes })
  await page.getByAltText('Picture 3').waitFor()
  const { mix, prompt } = await nextRequest(page, () => page.click('.go button'))
  assert.equal(prompt, undefined)
  assert.deepEqual(mix.slice(0, 2), [
    { text: 'a cat', weight: 0.5 },
    { text: 'a rocket', weight: 0.3 },
  ])
  assert.deepEqual(Buffer.from(mix[2].image, 'base64'), bytes)
  await pictures(page).nth(1).waitFor()
  assert.equal(await page.locator('#caption').textContent(), 'a cat × 0.5, a rocket × 0.3, a picture × 0.5')
  const other = await open(t)
  await drop(other, (await downloaded(page)).bytes, 'mix.png')
  await other.getByText('Settings restored, except pictures of the mix.').waitFor()
  assert.deepEqual(
    [await other.inputValue('[aria-label="Text 2"]'), await other.inputValue('[aria-label="Weight 2"]')],
    ['a rocket', '0.3'],
  )
})

test('a dropped picture restores the settings that made it; one without a recipe is a start', { skip }, async (t) => {
  const page = await open(t)
  const settings = {
    prompt: 'ein Apfel – “quoted”, äöü',
    negative_prompt: 'a pear',
    steps: '4',
    guidance_scale: '3.5',
    seed: '77',
  }
  await generate(page, settings)
  const { bytes } = await downloaded(page)
  const other = await open(t)
  await drop(other, bytes, 'apple.png')
  await other.waitForFunction(() => document.querySelector('[name=seed]').value === '77')
  for (const [name, value] of Object.entries({ ...settings, width: '128', height: '128' }))
    assert.equal(await other.inputValue(`[name=${name}]`), value, name)
  await generate(other, { steps: '4' })
  assert.deepEqual((await downloaded(other)).bytes, bytes)

  const image = await loadImage(bytes)
  delete image.recipe
  await drop(other, await image.toBuffer(), 'plain.png')
  await other.locator('#start-chosen').waitFor()
  image.recipe = { prompt: 'a cat', hiresFix: { scale: 2, strength: 0.6 }, model: 'k22' }
  await drop(other, await image.toBuffer(), 'elsewhere.png')
  await other.getByRole('alert').getByText('Settings restored, except hiresFix, the model k22.').waitFor()
  await drop(other, Buffer.from('no picture'), 'x.png')
  await other.getByText('This file is no picture that the browser can read.').waitFor()
})

test('arrow keys walk through the gallery, which stays when the page is loaded again; "again" takes another seed', {
  skip,
}, async (t) => {
  const page = await open(t)
  for (const prompt of ['a cat', 'a rocket', 'a panda']) await generate(page, { prompt, seed: '5' })
  const caption = () => page.locator('#caption').textContent()
  await pictures(page).first().focus()
  await page.keyboard.press('ArrowRight')
  assert.equal(await caption(), 'a rocket')
  await page.keyboard.press('End')
  assert.equal(await caption(), 'a cat')
  const again = await nextRequest(page, () => page.click('#again'))
  assert.deepEqual([again.prompt, again.seed, again.steps], ['a cat', undefined, 3])
  await pictures(page).nth(3).waitFor()
  assert.notEqual(await fact(page, 'Seed'), '5')
  await page.reload()
  await pictures(page).nth(3).waitFor()
  await pictures(page).first().focus()
  await page.keyboard.press('Delete')
  assert.equal(await pictures(page).count(), 3)
  assert.equal(await caption(), 'a panda')
  await page.click('#restore')
  assert.deepEqual([await page.inputValue('[name=prompt]'), await page.inputValue('[name=seed]')], ['a panda', '5'])
})

test('it works at an address of the local network, where browsers trust pages less', { skip }, async (t) => {
  const address = Object.values(networkInterfaces())
    .flat()
    .find(({ family, internal }) => family === 'IPv4' && !internal)?.address
  if (!address) return t.skip('this machine is in no network')
  const shared = await createServer({ host: '0.0.0.0', port: 0 })
  t.after(() => shared.close())
  const url = shared.url.replace('0.0.0.0', address)
  // It means nothing to a page that the browser does not trust anyway.
  const page = await open(t, { url, refusals: ['Cross-Origin-Opener-Policy'] })
  assert.equal(await page.evaluate(() => isSecureContext), false)
  await generate(page)
  await page.reload()
  await pictures(page).first().waitFor()
})

test('a job goes on when the page is loaded again', { skip }, async (t) => {
  const page = await open(t)
  await page.fill('[name=prompt]', 'a cat')
  await page.fill('[name=steps]', '150')
  await page.click('.go button')
  await page.locator('#shown.preview').waitFor()
  await page.reload()
  await page.locator('#jobs li', { hasText: 'a cat' }).waitFor()
  await pictures(page).first().waitFor()
  await page.locator('#jobs li').waitFor({ state: 'detached' })
  assert.equal(await fact(page, 'Steps'), '150')
  await page.reload()
  await pictures(page).first().waitFor()
  assert.deepEqual([await pictures(page).count(), await page.locator('#jobs li').count()], [1, 0])
})

test('who looks at a picture is not interrupted by what is being made', { skip }, async (t) => {
  const page = await open(t)
  await generate(page, { prompt: 'a cat' })
  await page.fill('[name=prompt]', 'a rocket')
  await page.fill('[name=steps]', '60')
  await page.click('.go button')
  await page.locator('#shown.preview').waitFor()
  await pictures(page).first().click()
  await pictures(page).nth(1).waitFor()
  await page.locator('#jobs li').waitFor({ state: 'detached' })
  assert.equal(await page.locator('#caption').textContent(), 'a cat')
  await generate(page, { prompt: 'a panda' })
  assert.equal(await page.locator('#caption').textContent(), 'a panda')
})

test('photographs larger than a server takes are sent smaller, and the size follows their shape', {
  skip,
}, async (t) => {
  const page = await open(t, { refusals: ['ERR_'] })
  const photo = await new RawImage(new Uint8Array(5200 * 3900 * 3).fill(200), 5200, 3900).toBuffer('jpeg')
  const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.click('#start-choose')])
  await chooser.setFiles({ name: 'photo.jpg', mimeType: 'image/jpeg', buffer: photo })
  await page.locator('#start-chosen').waitFor()
  assert.deepEqual([await page.inputValue('[name=width]'), await page.inputValue('[name=height]')], ['1024', '768'])
  await page.route('**/jobs', (route) => route.abort())
  const { image } = await nextRequest(page, () => page.click('.go button'))
  const { width, height } = await loadImage(Buffer.from(image, 'base64'))
  assert.deepEqual([width, height], [2048, 1536])
})

test('a server with a token asks for it, also after a wrong one, and keeps it for this tab', { skip }, async (t) => {
  const guarded = await createServer({ port: 0, token: 'open sesame ü' })
  t.after(() => guarded.close())
  const page = await open(t, { url: guarded.url, refusals: ['401'] })
  await page.fill('#token-value', 'open')
  await page.keyboard.press('Enter')
  await page.getByText('That is another token.').waitFor()
  await page.fill('#token-value', 'open sesame ü')
  await page.keyboard.press('Enter')
  await page.locator('[name=model] option').waitFor({ state: 'attached' })
  await generate(page)
  await page.reload()
  await page.locator('[name=model] option').waitFor({ state: 'attached' })
  assert.ok(await page.locator('#token').isHidden())
})

test('what is wrong is said in words, at the field that it is about', { skip }, async (t) => {
  const page = await open(t, { refusals: ['400', 'ERR_'] })
  await page.fill('[name=steps]', 'many')
  await page.click('.go button')
  await page.getByRole('alert').getByText('Steps should be a number').waitFor()
  assert.equal(await page.evaluate(() => document.activeElement.name), 'steps')
  await page.fill('[name=steps]', '5000')
  await page.click('.go button')
  await page.getByRole('alert').getByText('from 1 to 1000 for steps').waitFor()
  await page.fill('[name=steps]', '3')
  await page.route('**/jobs', (route) => route.abort())
  await page.click('.go button')
  await page.getByRole('alert').getByText('The server does not answer').waitFor()
})

for (const colorScheme of ['light', 'dark'])
  test(`on a phone, ${colorScheme}: nothing sticks out, every control has a name and room for a finger`, {
    skip,
  }, async (t) => {
    const page = await open(t, { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, colorScheme })
    await page.locator('.go button').tap()
    await pictures(page).first().waitFor()
    const found = await page.evaluate(() => {
      const controls = [...document.querySelectorAll('button, input, select, textarea, a')].filter((control) =>
        control.checkVisibility(),
      )
      const named = (control) =>
        control.ariaLabel ||
        control.textContent.trim() ||
        control.querySelector('img')?.alt ||
        control.labels?.[0]?.textContent.trim()
      return {
        width: document.documentElement.scrollWidth,
        unnamed: controls.filter((control) => !named(control)).map(({ outerHTML }) => outerHTML),
        small: controls.filter((c) => c.tagName === 'BUTTON' && c.offsetHeight < 40).map(({ id }) => id),
        ground: getComputedStyle(document.body).backgroundColor,
      }
    })
    assert.deepEqual({ ...found, ground: '' }, { width: 360, unnamed: [], small: [], ground: '' })
    const [brightness] = found.ground.match(/\d+/g).map(Number)
    assert.equal(brightness > 128, colorScheme === 'light')
  })

// The form and the settings that it stands for. Settings hold pictures as blobs; a request has them as base64.
import { openEditor } from './editor.js'
import { byId, chooseFile, element, readPicture, toBlob } from './elements.js'
import { readMix, writeMix } from './mix.js'

const form = byId('form')
const fields = form.elements
const texts = ['prompt', 'negative_prompt', 'width', 'height', 'steps', 'guidance_scale', 'seed']
const numbers = { width: 'Width', height: 'Height', steps: 'Steps', guidance_scale: 'Guidance' }
/** Sides of a picture without a size of its own follow the start picture, up to here; networks like multiples of 64. */
const MAX_SIDE = 1024
const MULTIPLE = 64

/** @type {{ picture: Blob, strokes: object[], flat: Blob, mask?: Blob } | undefined} */
let start

for (const radio of fields.mode)
  radio.addEventListener('change', () => {
    showMode()
    if (fields.mode.value === 'mix' && readMix().length === 0)
      writeMix([
        { text: fields.prompt.value, weight: 0.5 },
        { text: '', weight: 0.5 },
      ])
  })
fields.strength.addEventListener('input', showStrength)
byId('start-choose').addEventListener('click', async () => {
  const file = await chooseFile()
  if (file) byId('start-choose').dispatchEvent(new CustomEvent('picture', { detail: file, bubbles: true }))
})
byId('start-draw').addEventListener('click', async () => {
  const [width, height] = ['width', 'height'].map((name) => Number(fields[name].value) || 512)
  const sheet = Object.assign(document.createElement('canvas'), { width, height })
  const context = sheet.getContext('2d')
  context.fillStyle = 'white'
  context.fillRect(0, 0, width, height)
  await edit({ picture: await toBlob(sheet), strokes: [] }, 'paint')
})
for (const id of ['start-edit', 'start-mask']) byId(id).addEventListener('click', () => edit(start, 'mask'))
byId('start-remove').addEventListener('click', () => {
  show(undefined)
  byId('start-choose').focus()
})

/** Offers what the server has. */
export function offer({ models, schedulers, limits }) {
  fields.model.replaceChildren(...models.map((name) => element('option', { value: name, textContent: name })))
  const own = element('option', { value: '', textContent: 'The model’s own' })
  fields.scheduler.replaceChildren(
    own,
    ...schedulers.map((name) => element('option', { value: name, textContent: name })),
  )
  fields.n.max = limits.count
}

/** @throws Error whose message is for the user, and which has the field as `field` */
export function readSettings() {
  const settings = { mode: fields.mode.value, model: fields.model.value, scheduler: fields.scheduler.value }
  for (const name of texts) settings[name] = fields[name].value.trim()
  settings.n = Number(fields.n.value)
  settings.mix = settings.mode === 'mix' ? readMix() : []
  settings.start = start
  settings.strength = Number(fields.strength.value)
  for (const [name, label] of Object.entries(numbers))
    if (settings[name] !== '' && !Number.isFinite(Number(settings[name])))
      throw wrong(name, `${label} should be a number, or empty for the model’s own.`)
  if (!/^(-?\d{1,20})?$/.test(settings.seed))
    throw wrong('seed', 'The seed should be a whole number, or empty for a random one.')
  if (!Number.isInteger(settings.n) || settings.n < 1 || settings.n > Number(fields.n.max))
    throw wrong('n', `Between 1 and ${fields.n.max} pictures can be made at once.`)
  if (settings.mode === 'mix' && settings.mix.length === 0) throw new Error('Add a text or a picture to the mix.')
  if (settings.mode === 'mix' && settings.mix.some(({ text }) => text?.trim() === ''))
    throw new Error('One text of the mix is empty.')
  // What the placeholder says is a good start, too.
  if (settings.mode === 'prompt' && settings.prompt === '') settings.prompt = fields.prompt.placeholder
  return settings
}

function wrong(field, message) {
  byId('more').open = true
  return Object.assign(new Error(message), { field: fields[field] })
}

/** What is not there stays as it is, so that a recipe keeps the start picture. */
export async function writeSettings(settings) {
  for (const name of texts) if (settings[name] !== undefined) fields[name].value = settings[name]
  for (const name of ['model', 'scheduler']) {
    const wanted = settings[name] ?? ''
    const known = [...fields[name].options].find(({ value }) => value === wanted)
    if (known) fields[name].value = known.value
    else if (name === 'scheduler' && wanted !== '') {
      // The class's name, which the server knows as well.
      fields.scheduler.append(element('option', { value: wanted, textContent: wanted.replace(/Scheduler$/, '') }))
      fields.scheduler.value = wanted
    }
  }
  fields.n.value = settings.n ?? 1
  if (settings.mode) fields.mode.value = settings.mode
  if (settings.mix) writeMix(settings.mix)
  if (settings.strength) fields.strength.value = settings.strength
  if ('start' in settings) show(settings.start)
  showMode()
  showStrength()
}

export async function requestOf(settings) {
  const body = { n: settings.n }
  for (const name of ['negative_prompt', 'model', 'seed', 'scheduler']) if (settings[name]) body[name] = settings[name]
  for (const name of Object.keys(numbers)) if (settings[name] !== '') body[name] = Number(settings[name])
  if (settings.mode === 'prompt') body.prompt = settings.prompt
  else
    body.mix = await Promise.all(
      settings.mix.map(async ({ text, image, weight }) => ({
        ...(image ? { image: await base64(image) } : { text }),
        weight,
      })),
    )
  if (settings.start) {
    body.image = await base64(settings.start.flat)
    if (settings.start.mask) body.mask = await base64(settings.start.mask)
    else body.strength = settings.strength
  }
  return body
}

/** Begins with a picture. @throws Error for a file that is none */
export async function startFrom(picture) {
  const { blob, ...size } = await readPicture(picture)
  const scale = Math.min(1, MAX_SIDE / Math.max(size.width, size.height))
  if (fields.width.value === '' && fields.height.value === '')
    for (const name of ['width', 'height'])
      fields[name].value = Math.max(1, Math.round((size[name] * scale) / MULTIPLE)) * MULTIPLE
  show({ picture: blob, strokes: [], flat: blob })
}

async function edit(from, layer) {
  const edited = await openEditor(from, layer)
  if (edited) show(edited)
}

async function show(next) {
  start = next
  byId('start-empty').hidden = Boolean(next)
  byId('start-chosen').hidden = !next
  byId('strength-field').hidden = !next || Boolean(next.mask)
  byId('start-says').textContent = next?.mask ? 'The masked part is made anew' : 'Start picture'
  if (!next) return
  const [flat, mask] = await Promise.all([next.flat, next.mask].map((blob) => blob && createImageBitmap(blob)))
  const canvas = byId('start-thumb')
  const scale = Math.min(1, 192 / Math.max(flat.width, flat.height))
  canvas.width = Math.max(1, flat.width * scale)
  canvas.height = Math.max(1, flat.height * scale)
  const context = canvas.getContext('2d')
  context.drawImage(flat, 0, 0, canvas.width, canvas.height)
  if (mask) {
    // Black where nothing is masked becomes white, and white the accent: multiplied, that is a tint of the masked part.
    const tint = new OffscreenCanvas(canvas.width, canvas.height)
    const tinted = tint.getContext('2d')
    tinted.drawImage(mask, 0, 0, canvas.width, canvas.height)
    for (const [operation, colour] of [
      ['difference', 'white'],
      ['lighten', '#a9a0f0'],
    ]) {
      tinted.globalCompositeOperation = operation
      tinted.fillStyle = colour
      tinted.fillRect(0, 0, canvas.width, canvas.height)
    }
    context.globalCompositeOperation = 'multiply'
    context.drawImage(tint, 0, 0)
  }
}

function showMode() {
  const isMix = fields.mode.value === 'mix'
  byId('mix').hidden = !isMix
  byId('prompt-field').hidden = isMix
}

function showStrength() {
  byId('strength-value').textContent = Number(fields.strength.value).toFixed(2)
}

async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer())
  let text = ''
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000))
  return btoa(text)
}

// Texts and pictures with their weights, mixed by the model's prior.
import { byId, chooseFile, element, readPicture } from './elements.js'

const list = byId('mix-parts')
/** @type {Map<Element, { text?: HTMLInputElement, image?: Blob, weight: HTMLInputElement }>} */
const parts = new Map()

byId('mix-text').addEventListener('click', () => add({ text: '', weight: 0.5 }).text.focus())
byId('mix-picture').addEventListener('click', async () => {
  const file = await chooseFile()
  if (!file) return
  const part = { image: (await readPicture(file)).blob, weight: 0.5 }
  // A row that was not written in makes room.
  for (const [row, { text }] of parts) if (text?.value === '') drop(row)
  add(part)
})

function add({ text, image, weight }) {
  const number = parts.size + 1
  const part = {
    image,
    text: image ? undefined : element('input', { value: text, placeholder: 'Text', ariaLabel: `Text ${number}` }),
    weight: element('input', {
      ...{ type: 'range', min: '0', max: '1', step: '0.05', ariaLabel: `Weight ${number}` },
    }),
  }
  part.weight.value = weight
  const shown = element('output', { textContent: String(weight) })
  part.weight.addEventListener('input', () => {
    shown.textContent = part.weight.value
  })
  const remove = element('button', {
    type: 'button',
    className: 'plain',
    ariaLabel: `Remove part ${number}`,
    textContent: '×',
  })
  const thumb = image && element('img', { src: URL.createObjectURL(image), alt: `Picture ${number}` })
  const row = element('li', {}, part.text ?? thumb, part.weight, shown, remove)
  remove.addEventListener('click', () => {
    drop(row)
    if (thumb) URL.revokeObjectURL(thumb.src)
    byId('mix-text').focus()
  })
  parts.set(row, part)
  list.append(row)
  return part
}

function drop(row) {
  parts.delete(row)
  row.remove()
}

export function readMix() {
  return [...parts.values()].map(({ text, image, weight }) => ({
    ...(image ? { image } : { text: text.value }),
    weight: Number(weight.value),
  }))
}

export function writeMix(mix) {
  for (const row of parts.keys()) row.remove()
  parts.clear()
  for (const part of mix) add(part)
}

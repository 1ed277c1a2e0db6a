// The pictures made here, newest first, and the one that is looked at.
import { byId, element } from './elements.js'
import { factsOf, titleOf } from './recipe.js'
import { load, remove, save } from './store.js'

const list = byId('gallery')
/** @typedef {{ id: string, made: number, blob: Blob, recipe: object, settings: object, url: string, button: Element }} Entry */
/** @type {Entry[]} newest first */
const entries = []
/** @type {Entry | undefined} */
let chosen
/** somebody looks at a picture: what is being made stays out of the way */
let isHeld = false

export async function openGallery() {
  for (const entry of (await load()).reverse()) insert(entry)
  if (entries[0]) choose(entries[0])
}

/**
 * Adds a picture, and shows it.
 * @param {string} id of its own
 */
export async function addPicture(id, blob, recipe, settings) {
  const entry = insert({ id, made: Date.now(), blob, recipe, settings })
  if (!isHeld) choose(entry)
  const { url: _, button: __, ...kept } = entry
  await save(kept)
}

/** From now on what is being made is shown. */
export function release() {
  isHeld = false
}

/** @returns {Entry | undefined} what is shown */
export const chosenPicture = () => chosen

/** What is being made, in place of a picture. */
export function showPreview(url, title) {
  if (isHeld) return
  mark(undefined)
  byId('empty').hidden = true
  byId('shown').hidden = false
  byId('shown').classList.add('preview')
  byId('picture').src = url
  byId('picture').alt = `Preview: ${title}`
  byId('caption').textContent = title
}

/** Back from a preview to what was there before. */
export function endPreview() {
  if (!byId('shown').classList.contains('preview')) return
  byId('shown').classList.remove('preview')
  if (entries[0]) choose(entries[0])
  else showNothing()
}

export function removeChosen() {
  if (!chosen) return
  const at = entries.indexOf(chosen)
  entries.splice(at, 1)
  chosen.button.parentElement.remove()
  URL.revokeObjectURL(chosen.url)
  void remove(chosen.id)
  const next = entries[Math.min(at, entries.length - 1)]
  if (!next) return showNothing()
  choose(next)
  next.button.focus()
}

/** Shows the picture `by` places further. */
export function move(by) {
  const at = entries.indexOf(chosen)
  const next = entries[Math.min(entries.length - 1, Math.max(0, at + by))]
  if (!next) return
  isHeld = true
  choose(next)
  next.button.focus()
}

const picture = byId('picture')
picture.addEventListener('load', () => {
  picture.style.setProperty('--ratio', picture.naturalWidth / picture.naturalHeight)
})

list.addEventListener('keydown', (event) => {
  const columns = getComputedStyle(list).gridTemplateColumns.split(' ').length
  const steps = {
    ...{ ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns },
    ...{ Home: -entries.length, End: entries.length },
  }
  if (event.key === 'Delete') removeChosen()
  else if (event.key in steps) move(steps[event.key])
  else return
  event.preventDefault()
})

function insert(kept) {
  const url = URL.createObjectURL(kept.blob)
  const title = titleOf(kept.settings)
  const button = element(
    'button',
    { type: 'button', tabIndex: -1 },
    element('img', { src: url, alt: title, loading: 'lazy' }),
  )
  const entry = { ...kept, url, button }
  button.addEventListener('click', () => {
    isHeld = true
    choose(entry)
  })
  entries.unshift(entry)
  list.prepend(element('li', {}, button))
  byId('gallery-section').hidden = false
  return entry
}

function choose(entry) {
  mark(entry)
  byId('empty').hidden = true
  byId('shown').hidden = false
  byId('shown').classList.remove('preview')
  const title = titleOf(entry.settings)
  byId('picture').src = entry.url
  byId('picture').alt = title
  byId('caption').textContent = title
  byId('recipe').replaceChildren(
    ...factsOf(entry.recipe).map(([name, value]) =>
      element('div', {}, element('dt', { textContent: name }), element('dd', { textContent: value })),
    ),
  )
  byId('download').href = entry.url
  byId('download').download =
    `${title.replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 60) || 'picture'}-${entry.recipe.seed}.png`
}

/** Only one of them is in the order of the Tab key. */
function mark(entry) {
  for (const { button } of entries) {
    button.tabIndex = -1
    button.removeAttribute('aria-current')
  }
  chosen = entry
  const first = entry ?? entries[0]
  if (first) first.button.tabIndex = 0
  entry?.button.setAttribute('aria-current', 'true')
}

function showNothing() {
  mark(undefined)
  byId('empty').hidden = false
  byId('shown').hidden = true
  byId('gallery-section').hidden = entries.length === 0
}

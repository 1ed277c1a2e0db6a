// A dialog to draw on the start picture, and to mask what is made anew. Strokes are kept, so that the last one can be undone.
import { byId, toBlob } from './elements.js'

const dialog = byId('editor')
const board = byId('board')
const layerRadios = [...dialog.querySelectorAll('[name=layer]')]
const MASK = '#6e5bd6'
const MASK_OPACITY = 0.6

/** @type {ImageBitmap} */
let picture
let strokes = []
let paint
let mask
let drawing
let erases = false
let finish

/**
 * @param {{ picture: Blob, strokes: object[] }} start
 * @param {'mask' | 'paint'} layer
 * @returns {Promise<object | undefined>} with `flat` and, if something is masked, `mask`; undefined if nothing shall change
 */
export async function openEditor(start, layer) {
  picture = await createImageBitmap(start.picture)
  const { width, height } = picture
  paint = canvasOf(width, height)
  mask = canvasOf(width, height)
  Object.assign(board, { width, height })
  strokes = [...start.strokes]
  for (const radio of layerRadios) radio.checked = radio.value === layer
  setEraser(false)
  showLayer()
  replay()
  dialog.showModal()
  board.focus()
  const isDone = await new Promise((resolve) => {
    finish = resolve
  })
  if (dialog.open) dialog.close()
  if (!isDone) return undefined
  return { picture: start.picture, strokes, flat: await flatten(), mask: await maskBlob() }
}

byId('editor-done').addEventListener('click', () => finish(true))
byId('editor-cancel').addEventListener('click', () => finish(false))
dialog.addEventListener('close', () => finish?.(false))
byId('brush').addEventListener('click', () => setEraser(false))
byId('eraser').addEventListener('click', () => setEraser(true))
byId('undo').addEventListener('click', undo)
byId('invert').addEventListener('click', () => push({ layer: 'mask', kind: 'invert' }))
byId('clear').addEventListener('click', () => push({ layer: layerNow(), kind: 'clear' }))
for (const radio of layerRadios) radio.addEventListener('change', showLayer)

dialog.addEventListener('keydown', (event) => {
  const key = event.key.toLowerCase()
  if ((event.ctrlKey || event.metaKey) && key === 'z') undo()
  else if (event.ctrlKey || event.metaKey || event.altKey) return
  else if (key === 'b') setEraser(false)
  else if (key === 'e') setEraser(true)
  else return
  event.preventDefault()
})

board.addEventListener('pointerdown', (event) => {
  if (event.button !== 0) return
  board.setPointerCapture(event.pointerId)
  drawing = {
    ...{ layer: layerNow(), kind: 'line', erases, colour: byId('colour').value, points: [pointOf(event)] },
    size: (Number(byId('brush-size').value) / 100) * Math.max(board.width, board.height),
  }
  push(drawing)
})
board.addEventListener('pointermove', (event) => {
  if (!drawing) return
  for (const each of event.getCoalescedEvents?.() ?? [event]) drawing.points.push(pointOf(each))
  apply({ ...drawing, points: drawing.points.slice(-8) })
  render()
})
for (const name of ['pointerup', 'pointercancel'])
  board.addEventListener(name, () => {
    drawing = undefined
  })

function layerNow() {
  return layerRadios.find(({ checked }) => checked).value
}

function pointOf({ clientX, clientY }) {
  const { left, top, width, height } = board.getBoundingClientRect()
  return [((clientX - left) / width) * board.width, ((clientY - top) / height) * board.height]
}

function push(stroke) {
  strokes.push(stroke)
  apply(stroke)
  render()
}

function undo() {
  strokes.pop()
  replay()
}

function replay() {
  for (const { canvas } of [paint, mask]) canvas.getContext('2d').clearRect(0, 0, canvas.width, canvas.height)
  for (const stroke of strokes) apply(stroke)
  render()
}

function apply({ layer, kind, erases, colour, size, points }) {
  const { context, canvas } = layer === 'mask' ? mask : paint
  context.save()
  if (kind === 'clear') context.clearRect(0, 0, canvas.width, canvas.height)
  else if (kind === 'invert') {
    context.globalCompositeOperation = 'xor'
    context.fillStyle = 'white'
    context.fillRect(0, 0, canvas.width, canvas.height)
  } else {
    context.globalCompositeOperation = erases ? 'destination-out' : 'source-over'
    context.strokeStyle = layer === 'mask' ? 'white' : colour
    Object.assign(context, { lineWidth: size, lineCap: 'round', lineJoin: 'round' })
    context.fillStyle = context.strokeStyle
    const [[x, y], ...rest] = points
    // Where it began, as a line of no length is not drawn by every browser.
    context.beginPath()
    context.arc(x, y, size / 2, 0, 2 * Math.PI)
    context.fill()
    context.beginPath()
    context.moveTo(x, y)
    for (const [nextX, nextY] of rest) context.lineTo(nextX, nextY)
    context.stroke()
  }
  context.restore()
}

function render() {
  const context = board.getContext('2d')
  const { width, height } = board
  context.clearRect(0, 0, width, height)
  context.drawImage(picture, 0, 0, width, height)
  context.drawImage(paint.canvas, 0, 0)
  const tinted = canvasOf(width, height)
  tinted.context.drawImage(mask.canvas, 0, 0)
  tinted.context.globalCompositeOperation = 'source-in'
  tinted.context.fillStyle = MASK
  tinted.context.fillRect(0, 0, width, height)
  context.globalAlpha = MASK_OPACITY
  context.drawImage(tinted.canvas, 0, 0)
  context.globalAlpha = 1
  byId('undo').disabled = strokes.length === 0
  byId('clear').disabled = strokes.length === 0
}

function setEraser(value) {
  erases = value
  byId('brush').ariaPressed = String(!value)
  byId('eraser').ariaPressed = String(value)
}

function showLayer() {
  const isMask = layerNow() === 'mask'
  dialog.querySelector('.colour').hidden = isMask
  byId('invert').hidden = !isMask
  byId('editor-hint').textContent = isMask
    ? 'What you paint over is made anew.'
    : 'The picture starts from what you draw.'
}

function canvasOf(width, height) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height })
  return { canvas, context: canvas.getContext('2d') }
}

async function flatten() {
  const { canvas, context } = canvasOf(board.width, board.height)
  context.drawImage(picture, 0, 0, canvas.width, canvas.height)
  context.drawImage(paint.canvas, 0, 0)
  return toBlob(canvas)
}

/** White on black; undefined if nothing is masked. */
async function maskBlob() {
  const { width, height } = board
  const { data } = mask.context.getImageData(0, 0, width, height)
  if (!data.some((value, i) => i % 4 === 3 && value > 0)) return undefined
  const { canvas, context } = canvasOf(width, height)
  context.fillRect(0, 0, width, height)
  context.drawImage(mask.canvas, 0, 0)
  return toBlob(canvas)
}

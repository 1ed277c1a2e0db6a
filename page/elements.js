// Small helpers for the page's elements.

/** @param {string} name an id in index.html */
export const byId = (name) => document.getElementById(name)

/** An element with properties and children; texts are texts, never markup. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

/** Asks for one picture file; undefined if none was chosen. */
export function chooseFile() {
  const input = byId('file')
  input.value = ''
  return new Promise((resolve) => {
    input.onchange = () => resolve(input.files[0])
    input.oncancel = () => resolve(undefined)
    input.click()
  })
}

/** Sides of what is sent: servers take 16 megapixels, and cameras make more. */
const MAX_SIDE = 2048

/**
 * A picture as the server takes it: as it is if it is a PNG of a fitting size, else drawn anew, upright.
 * @returns {Promise<{ blob: Blob, width: number, height: number }>}
 * @throws Error for a file that is no picture
 */
export async function readPicture(file) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error('This file is no picture that the browser can read.')
  })
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height))
  if (scale === 1 && file.type === 'image/png') return { blob: file, width: bitmap.width, height: bitmap.height }
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)))
  const canvas = element('canvas', { width, height })
  const context = canvas.getContext('2d')
  context.imageSmoothingQuality = 'high'
  context.drawImage(bitmap, 0, 0, width, height)
  return { blob: await toBlob(canvas), width, height }
}

/** Says something to who cannot see it. */
export function announce(text) {
  byId('announce').textContent = text
}

/** What a picture or drawing is encoded to. */
export function toBlob(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'))
}

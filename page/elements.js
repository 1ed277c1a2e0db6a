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

/** Says something to who cannot see it. */
export function announce(text) {
  byId('announce').textContent = text
}

/** What a picture or drawing is encoded to. */
export function toBlob(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'))
}

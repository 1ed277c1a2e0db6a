// The page: shows what the bridge (window.studio, preload.cjs) says, and asks it for pictures.
const { studio } = window
const [form, prompt, cancel, start, forget, progress, message, preview, history] = [
  'form',
  'prompt',
  'cancel',
  'start',
  'forget',
  'progress',
  'message',
  'preview',
  'history',
].map((id) => document.getElementById(id))

let id = 0
let picture

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  studio.cancel(id)
  id++
  cancel.disabled = false
  progress.value = 0
  message.textContent = 'Drawing …'
  const request = { id, prompt: prompt.value || prompt.placeholder, picture }
  const answer = await studio.draw(request)
  if (answer.png) remember(answer.png, request.prompt)
  if (answer.id !== id) return // a later picture is being drawn
  cancel.disabled = true
  message.textContent = answer.error ?? (answer.cancelled ? 'Cancelled.' : 'Done.')
})

cancel.addEventListener('click', () => studio.cancel(id))
forget.addEventListener('click', () => startFrom(undefined))

studio.onStep((step) => {
  if (step.id !== id) return
  progress.value = step.step / step.steps
  message.textContent = `Step ${step.step} of ${step.steps}`
  if (step.preview) show(step.preview)
})

/** RGB pixels, as they come while a picture is being drawn. */
function show({ data, width, height }) {
  preview.width = width
  preview.height = height
  const image = new ImageData(width, height)
  for (let i = 0; i < width * height; i++) {
    for (let channel = 0; channel < 3; channel++) image.data[i * 4 + channel] = data[i * 3 + channel]
    image.data[i * 4 + 3] = 255
  }
  preview.getContext('2d').putImageData(image, 0, 0)
}

function remember(png, text) {
  const image = document.createElement('img')
  image.src = URL.createObjectURL(new Blob([png], { type: 'image/png' }))
  image.alt = text
  image.title = text
  image.addEventListener('load', () => {
    preview.width = image.naturalWidth
    preview.height = image.naturalHeight
    preview.getContext('2d').drawImage(image, 0, 0)
  })
  history.prepend(image)
}

function startFrom(bytes) {
  picture = bytes
  start.hidden = !bytes
}

document.addEventListener('dragover', (event) => event.preventDefault())
document.addEventListener('drop', async (event) => {
  event.preventDefault()
  const file = event.dataTransfer?.files[0]
  if (file) startFrom(new Uint8Array(await file.arrayBuffer()))
})

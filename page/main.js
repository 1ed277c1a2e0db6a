// The page: a form, what is being made, and a gallery. Nothing is loaded from elsewhere; the server is asked in server.js.
import { announce, byId } from './elements.js'
import { offer, readSettings, startFrom, writeSettings } from './form.js'
import { chosenPicture, openGallery, removeChosen } from './gallery.js'
import { cancelFirst, generate, resume } from './jobs.js'
import { readRecipe, settingsOf } from './recipe.js'
import { json, onToken } from './server.js'

const form = byId('form')

onToken(async (isWrong) => {
  const dialog = byId('token')
  byId('token-error').hidden = !isWrong
  byId('token-value').value = ''
  dialog.oncancel = (event) => event.preventDefault()
  dialog.showModal()
  await new Promise((resolve) => dialog.addEventListener('close', resolve, { once: true }))
  return byId('token-value').value
})

async function submit(settings) {
  say('')
  try {
    await generate(settings ?? readSettings())
  } catch (error) {
    say(error.message)
    error.field?.focus()
  }
}

/** What went wrong; nothing with ''. */
function say(text) {
  byId('error').textContent = text
  byId('error').hidden = text === ''
}

form.addEventListener('submit', (event) => {
  event.preventDefault()
  void submit()
})
document.addEventListener('keydown', (event) => {
  if (document.querySelector('dialog[open]')) return
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault()
    void submit()
  } else if (event.key === 'Escape') cancelFirst()
})

byId('again').addEventListener('click', () => submit({ ...chosenPicture().settings, seed: '' }))
byId('restore').addEventListener('click', async () => {
  const { settings, recipe } = chosenPicture()
  await writeSettings({ ...settings, seed: String(recipe.seed) })
  form.elements.prompt.focus()
  announce('Settings restored')
})
byId('as-start').addEventListener('click', () => begin(chosenPicture().blob))
form.addEventListener('picture', ({ detail }) => begin(detail))
byId('forget').addEventListener('click', removeChosen)

async function begin(picture) {
  say('')
  try {
    await startFrom(picture)
    announce('Start picture set')
  } catch (error) {
    say(error.message)
  }
}

/** A picture of this package restores its settings; any other one is a start. */
async function take(file) {
  say('')
  try {
    const recipe = await readRecipe(file)
    if (!recipe) return await begin(file)
    const { settings, missing } = settingsOf(recipe)
    await writeSettings(settings)
    announce('Settings restored')
    if (recipe.model && recipe.model !== form.elements.model.value) missing.push(`the model ${recipe.model}`)
    if (missing.length > 0) say(`Settings restored, except ${missing.join(', ')}.`)
  } catch (error) {
    say(error.message)
  }
}

const hasFile = ({ dataTransfer }) => [...(dataTransfer?.items ?? [])].some(({ kind }) => kind === 'file')
document.addEventListener('dragover', (event) => {
  if (!hasFile(event)) return
  event.preventDefault()
  byId('drop').hidden = false
})
document.addEventListener('dragleave', ({ relatedTarget }) => {
  if (!relatedTarget) byId('drop').hidden = true
})
document.addEventListener('drop', (event) => {
  byId('drop').hidden = true
  const [file] = event.dataTransfer?.files ?? []
  if (!file) return
  event.preventDefault()
  void take(file)
})
document.addEventListener('paste', ({ clipboardData }) => {
  const [file] = clipboardData?.files ?? []
  if (file) void take(file)
})

// Settings are open where there is room for them.
byId('more').open = matchMedia('(min-width: 60rem)').matches
await openGallery()
try {
  offer(await json('about'))
  await resume()
} catch (error) {
  say(error.message)
}

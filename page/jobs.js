// Jobs of this page: asked for, followed, shown, cancelled.
import { announce, byId, element } from './elements.js'
import { requestOf } from './form.js'
import { addPicture, endPreview, release, showPreview } from './gallery.js'
import { titleOf } from './recipe.js'
import { follow, json, request } from './server.js'
import { load, remove, save } from './store.js'

/** In the order in which they were asked for. */
const mine = []

/** @throws what the server refuses the job for */
export async function generate(settings) {
  release()
  const { id } = await json('jobs', { method: 'POST', body: await requestOf(settings) })
  await save({ id, settings, made: Date.now() }, 'jobs')
  return begin(id, settings)
}

/** Follows the jobs of this tab again that were not over when the page was left. */
export async function resume() {
  const ids = ownIds()
  for (const { id, settings } of (await load('jobs')).reverse())
    if (ids.includes(id)) begin(id, settings).catch((error) => announce(error.message))
}

/** Those of other tabs are theirs. */
const KEY = 'kandinsky-jobs'
const ownIds = () => JSON.parse(sessionStorage.getItem(KEY) ?? '[]')
const keepIds = () => sessionStorage.setItem(KEY, JSON.stringify(mine.map(({ id }) => id)))

function begin(id, settings) {
  const job = { id, settings, ...rowOf(titleOf(settings)) }
  job.cancel.addEventListener('click', () => cancel(job))
  mine.push(job)
  keepIds()
  byId('jobs').append(job.row)
  announce('Waiting')
  // Where it is not in sight, as on phones.
  byId('stage').scrollIntoView({ block: 'nearest', behavior: 'smooth' })
  return attend(job)
}

/** Ends the one that runs, or the one that is next. */
export function cancelFirst() {
  if (mine[0]) void cancel(mine[0])
}

async function cancel(job) {
  job.cancel.disabled = true
  job.text.textContent = 'Cancelling'
  await request(`jobs/${job.id}`, { method: 'DELETE' }).catch(() => {})
}

async function attend(job) {
  try {
    for await (const state of follow(job.id)) {
      show(job, state)
      if (state.state === 'done') await finish(job, state)
      if (state.state === 'failed') throw new Error(state.error.message)
      if (state.state === 'cancelled') announce('Cancelled')
    }
  } finally {
    mine.splice(mine.indexOf(job), 1)
    keepIds()
    void remove(job.id, 'jobs')
    job.row.remove()
    if (mine.length === 0) endPreview()
    if (job.url) URL.revokeObjectURL(job.url)
  }
}

async function finish(job, { pictures }) {
  // The first picture is shown in the end.
  for (const [i, { recipe }] of [...pictures.entries()].reverse()) {
    const blob = await (await request(`jobs/${job.id}/pictures/${i}`)).blob()
    await addPicture(`${job.id}/${i}`, blob, recipe, { ...job.settings, n: 1 })
  }
  announce(pictures.length === 1 ? 'The picture is done' : `${pictures.length} pictures are done`)
}

function rowOf(title) {
  const bar = element('progress', { max: 1, value: 0, ariaLabel: 'Progress' })
  const text = element('span', { className: 'quiet', textContent: 'Waiting' })
  const cancel = element('button', { type: 'button', textContent: 'Cancel' })
  const says = element('div', {}, element('span', { className: 'title', textContent: title }), text)
  return { row: element('li', {}, says, cancel, bar), bar, text, cancel }
}

function show(job, { state, position, progress, etaMs, preview }) {
  job.bar.value = progress.fraction
  if (!job.cancel.disabled)
    job.text.textContent = [
      sayState(state, position, progress),
      sayTime((state === 'running' && progress.etaMs) || etaMs),
    ]
      .filter(Boolean)
      .join(' · ')
  if (preview && state === 'running') void refresh(job)
}

function sayState(state, position, { stage, step, steps }) {
  if (state === 'queued') return position === 1 ? 'Next in the queue' : `${position} before it in the queue`
  if (stage === 'loading') return 'Loading the model'
  if (stage === 'decoder') return `Step ${step} of ${steps}`
  return 'Starting'
}

function sayTime(ms) {
  if (ms === undefined || ms === 0) return ''
  const seconds = Math.ceil(ms / 1000)
  if (seconds < 60) return `about ${seconds} s`
  return `about ${Math.ceil(seconds / 60)} min`
}

/** One preview at a time: slow connections get fewer. */
async function refresh(job) {
  if (job.isRefreshing) return
  job.isRefreshing = true
  try {
    const url = URL.createObjectURL(await (await request(`jobs/${job.id}/preview`)).blob())
    if (!mine.includes(job)) return URL.revokeObjectURL(url)
    showPreview(url, titleOf(job.settings))
    if (job.url) URL.revokeObjectURL(job.url)
    job.url = url
  } catch {
    // The next one will do.
  } finally {
    job.isRefreshing = false
  }
}

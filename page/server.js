// The server's HTTP API: the token if it asks for one, errors in plain words, events of a job.

/** What went wrong, in words for whoever sits before the page. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message)
    this.status = status
  }
}

const KEY = 'kandinsky-token'
let ask

/** @param {(isWrong: boolean) => Promise<string>} fn asks the user for the token */
export function onToken(fn) {
  ask = fn
}

function authorization() {
  const token = sessionStorage.getItem(KEY)
  if (token === null) return {}
  // As a password, which may hold any character.
  const bytes = new TextEncoder().encode(`:${token}`)
  return { Authorization: `Basic ${btoa(String.fromCharCode(...bytes))}` }
}

/** A response with a good status. @throws ServerError */
export async function request(path, { method = 'GET', body, signal } = {}) {
  const response = await fetch(path, {
    method,
    signal,
    headers: { ...authorization(), ...(body && { 'Content-Type': 'application/json' }) },
    body: body && JSON.stringify(body),
  }).catch((error) => {
    if (signal?.aborted) throw error
    throw new ServerError('The server does not answer. Is it still running?')
  })
  if (response.status === 401) {
    await renewToken(sessionStorage.getItem(KEY))
    return request(path, { method, body, signal })
  }
  if (!response.ok) throw await errorOf(response)
  return response
}

/** One question for all that wait. */
let asking
async function renewToken(used) {
  if (sessionStorage.getItem(KEY) !== used) return
  asking ??= ask(used !== null).then((token) => {
    sessionStorage.setItem(KEY, token)
    asking = undefined
  })
  await asking
}

async function errorOf(response) {
  const { error } = await response.json().catch(() => ({}))
  if (response.status === 429) {
    const seconds = Number(response.headers.get('retry-after') ?? 1)
    return new ServerError(`The queue is full. Try again in ${seconds === 1 ? 'a second' : `${seconds} seconds`}.`, 429)
  }
  if (response.status === 413) return new ServerError('These pictures are too large for the server.', 413)
  return new ServerError(error?.message ?? `The server answered with status ${response.status}.`, response.status)
}

export async function json(path, options) {
  return (await request(path, options)).json()
}

/** What the job is like, whenever that changes, until it is over; a connection that breaks is made again. */
export async function* follow(id, signal) {
  while (true) {
    try {
      const { body } = await request(`jobs/${id}/events`, { signal })
      for await (const data of readEvents(body)) {
        yield data
        if (data.ended !== undefined) return
      }
    } catch (error) {
      if (signal?.aborted || error.status === 404) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 1000))
  }
}

/** Server-sent events by fetch: EventSource sends no token. */
async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  while (true) {
    const { value, done } = await reader.read()
    if (done) return
    const blocks = (rest + value).split('\n\n')
    rest = blocks.pop()
    for (const block of blocks) {
      const lines = block.split('\n').filter((line) => line.startsWith('data:'))
      if (lines.length > 0) yield JSON.parse(lines.map((line) => line.slice(5)).join('\n'))
    }
  }
}

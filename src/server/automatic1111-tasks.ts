// Tasks of AUTOMATIC1111's API: clients name a request (`force_task_id`) and ask for its progress by that name
// (modules/progress.py in its repository).
import { Hono } from 'hono'
import { Fields, RequestError } from './fields.js'
import type { Job } from './jobs.js'
import { enlarge, fractionOf, readJson, type Service, toBase64 } from './service.js'

/** Finished tasks that are remembered, as many as there. */
const MAX_FINISHED = 16
const MAX_NAME = 256

export class Tasks {
  /** by the names that clients gave them, oldest first */
  readonly #jobs = new Map<string, Job>()

  /** The name in a request. @throws RequestError for one that a job here has */
  nameOf(fields: Fields): string | undefined {
    const name = fields.text('force_task_id')
    if (name !== undefined && (name === '' || name.length > MAX_NAME))
      throw fields.wrong('force_task_id', `a text of 1 to ${MAX_NAME} characters`)
    if (name !== undefined && this.#jobs.get(name)?.isOver === false)
      throw new RequestError(409, 'A task of this name is waiting or running', null, 'force_task_id')
    return name
  }

  add(name: string, job: Job): void {
    this.#jobs.delete(name)
    this.#jobs.set(name, job)
    const finished = [...this.#jobs].filter(([, { isOver }]) => isOver)
    for (const [old] of finished.slice(0, Math.max(0, finished.length - MAX_FINISHED))) this.#jobs.delete(old)
  }

  /** `/internal/progress` and `/internal/pending-tasks` */
  routes(service: Service): Hono {
    const app = new Hono()
    app.get('/pending-tasks', (c) => {
      const tasks = [...this.#jobs].filter(([, { state }]) => state === 'queued').map(([name]) => name)
      return c.json({ size: tasks.length, tasks })
    })
    app.post('/progress', async (c) => {
      const fields = new Fields(await readJson(c))
      const job = this.#jobs.get(fields.text('id_task') ?? '')
      const seen = fields.number('id_live_preview') ?? -1
      const wanted = fields.flag('live_preview') ?? true
      const { state, progress } = job ?? {}
      const [preview] = (state === 'running' && wanted && job!.previews !== seen && job!.preview) || []
      const { position } = job ? await service.jobs.outlook(job) : {}
      const waits = state === 'queued' ? `In queue: ${position}` : 'Waiting...'
      return c.json({
        ...{ active: state === 'running', queued: state === 'queued', completed: job?.isOver ?? false },
        progress: state === 'running' ? fractionOf(job!) : null,
        eta: state === 'running' ? (progress?.etaMs ?? 0) / 1000 : null,
        live_preview: preview ? `data:image/png;base64,${await toBase64(enlarge(preview))}` : null,
        id_live_preview: preview ? job!.previews : seen,
        textinfo: state === 'running' ? null : waits,
      })
    })
    return app
  }
}

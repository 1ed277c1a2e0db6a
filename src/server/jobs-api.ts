// Jobs: an id at once, then state, place in the queue, preview and pictures by GET or as server-sent events.
import { type Context, Hono } from 'hono'
import { streamSSE } from 'hono/streaming'
import type { RawImage } from '../images/image.js'
import { Fields, RequestError } from './fields.js'
import type { Job } from './jobs.js'
import type { MixPart } from './request.js'
import { enlarge, explain, fractionOf, readJson, refuse, type Service } from './service.js'

const fieldNames = [
  ...['model', 'prompt', 'negative_prompt', 'n', 'width', 'height', 'steps', 'guidance_scale', 'seed', 'scheduler'],
  ...['image', 'mask', 'strength', 'mix'],
]
const MAX_MIX = 16
const formats = ['png', 'jpeg', 'webp'] as const

export function jobsApi(service: Service): Hono {
  const app = new Hono()
  app.onError((thrown, c) => refuse(c, service, thrown, (error) => ({ error: errorOf(error) })))
  app.post('/', async (c) => {
    const fields = new Fields(await readJson(c))
    fields.expect(fieldNames)
    const { ranges } = service
    const [prompt, mix] = [fields.text('prompt'), mixOf(fields)]
    if ((prompt === undefined) === (mix === undefined)) throw fields.wrong('prompt', 'a text, or a mix instead,')
    const job = await service.submit(c, 'jobs', {
      ...{ prompt, mix, model: fields.text('model'), negativePrompt: fields.text('negative_prompt') },
      count: fields.number('n', ranges.count),
      width: fields.number('width', ranges.side),
      height: fields.number('height', ranges.side),
      steps: fields.number('steps', ranges.steps),
      guidance: fields.number('guidance_scale', ranges.guidance),
      strength: fields.number('strength', ranges.strength),
      ...{ seed: fields.seed('seed'), scheduler: fields.text('scheduler') },
      ...{ image: fields.picture('image'), mask: fields.picture('mask') },
    })
    c.header('Location', `/jobs/${job.id}`)
    return c.json(await describe(job), 202)
  })
  app.get('/:id', async (c) => c.json(await describe(await find(c))))
  app.delete('/:id', async (c) => {
    const job = await find(c)
    job.cancel()
    return c.json(await describe(job))
  })
  app.get('/:id/events', async (c) => {
    const job = await find(c)
    return streamSSE(c, async (stream) => {
      const left = new AbortController()
      stream.onAbort(() => left.abort())
      for await (const _ of job.changes(AbortSignal.any([left.signal, service.closed])))
        await stream.writeSSE({ event: job.state, data: JSON.stringify(await describe(job)) })
    })
  })
  app.get('/:id/pictures/:index', async (c) =>
    send(c, await (await find(c)).pictures[Number(c.req.param('index'))]?.read()),
  )
  app.get('/:id/preview', async (c) => {
    const [preview] = (await find(c)).preview ?? []
    return send(c, preview && enlarge(preview))
  })
  return app

  /** An id is a secret of who made the job: nobody guesses one. */
  async function find(c: Context): Promise<Job> {
    const job = await service.jobs.find(c.req.param('id') ?? '')
    if (!job) throw new RequestError(404, 'There is no such job, or it was too long ago', 'not_found')
    return job
  }

  async function describe(job: Job) {
    const outlook = await service.jobs.outlook(job)
    const { id, state, created, started, ended, progress, preview, pictures, error } = job
    return {
      ...{ id, state, created, started, ended },
      ...outlook,
      progress: { ...progress, fraction: fractionOf(job) },
      ...(preview && { preview: `/jobs/${id}/preview` }),
      ...(state === 'failed' && { error: errorOf(explain(error)) }),
      pictures: pictures.map(({ recipe }, i) => ({ url: `/jobs/${id}/pictures/${i}`, recipe })),
    }
  }
}

/** `[{ "text": "a cat", "weight": 0.5 }, { "image": "<base64>", "weight": 0.5 }]` */
function mixOf(fields: Fields): MixPart[] | undefined {
  const given = fields.get('mix')
  if (given === undefined) return undefined
  if (!Array.isArray(given) || given.length < 1 || given.length > MAX_MIX)
    throw fields.wrong('mix', `a list of 1 to ${MAX_MIX} texts and images with a weight each`)
  return given.map((entry) => {
    const part = new Fields(entry)
    part.expect(['text', 'image', 'weight'])
    const [text, image, weight] = [part.text('text'), part.picture('image'), part.number('weight')]
    if (weight === undefined) throw part.wrong('weight', 'a number')
    if ((text === undefined) === (image === undefined)) throw part.wrong('text', 'a text, or an image instead,')
    return { item: text ?? image!, weight }
  })
}

async function send(c: Context, image: RawImage | undefined): Promise<Response> {
  if (!image) throw new RequestError(404, 'There is no such picture, or not yet', 'not_found')
  const format = new Fields(c.req.query()).oneOf('format', formats) ?? 'png'
  return c.body(new Uint8Array(await image.toBuffer(format)), 200, { 'Content-Type': `image/${format}` })
}

function errorOf({ message, code, field }: RequestError) {
  return { message, code, field }
}

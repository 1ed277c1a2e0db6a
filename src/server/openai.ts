// OpenAI's images API (platform.openai.com/docs/api-reference/images), with what diffusion models need as plain extra fields.
import { type Context, Hono } from 'hono'
import { streamSSE } from 'hono/streaming'
import type { ImageFormat, RawImage } from '../images/image.js'
import { Fields, RequestError } from './fields.js'
import type { Job } from './jobs.js'
import type { PictureRequest } from './request.js'
import { enlarge, explain, readJson, refuse, type Service, toBase64 } from './service.js'

const extras = ['negative_prompt', 'seed', 'steps', 'guidance_scale', 'scheduler', 'strength']
const answers = ['response_format', 'output_format', 'output_compression', 'stream', 'partial_images']
/** What only OpenAI's own models know; clients send them with every request. */
const elsewhere = ['quality', 'style', 'background', 'moderation', 'input_fidelity', 'user']
const allowed = ['model', 'prompt', 'n', 'size', ...extras, ...answers, ...elsewhere]
/** Clients with a fixed model mean whatever is here. */
const anyModel = /^(dall-e|gpt-image|chatgpt-image)/

interface Answer {
  asUrl: boolean
  format: ImageFormat
  quality: number | undefined
  stream: boolean
  partialImages: number
}

export function openAi(service: Service): Hono {
  const app = new Hono()
  app.onError((thrown, c) => refuse(c, service, thrown, errorBody))
  app.get('/models', (c) => c.json({ object: 'list', data: service.models.names.map(describe) }))
  app.get('/models/:model', (c) => c.json(describe(service.models.expect(c.req.param('model')))))
  app.post('/images/generations', async (c) => {
    const fields = new Fields(await readJson(c))
    fields.expect(allowed)
    return answer(c, 'image_generation', fields, requestOf(fields))
  })
  app.post('/images/edits', async (c) => {
    const fields = new Fields(await readForm(c))
    fields.expect([...allowed, 'image', 'mask'])
    const [image, mask] = ['image', 'mask'].map((name) => fields.picture(name))
    if (!image) throw fields.wrong('image', 'a picture')
    // Theirs is repainted where it is transparent; one without transparency is a mask as all others here.
    return answer(c, 'image_edit', fields, { ...requestOf(fields), image, mask, repaint: 'transparent' })
  })
  return app

  function describe(id: string) {
    return { id, object: 'model', created: service.started, owned_by: 'node-kandinsky' }
  }

  function requestOf(fields: Fields): PictureRequest {
    const { ranges } = service
    const prompt = fields.text('prompt')
    if (prompt === undefined) throw fields.wrong('prompt', 'a text')
    const model = fields.text('model')
    return {
      model: model !== undefined && anyModel.test(model) && !service.models.names.includes(model) ? undefined : model,
      ...{ prompt, negativePrompt: fields.text('negative_prompt'), seed: fields.seed('seed') },
      count: fields.number('n', ranges.count),
      ...service.size(fields, 'size'),
      steps: fields.number('steps', ranges.steps),
      guidance: fields.number('guidance_scale', ranges.guidance),
      strength: fields.number('strength', ranges.strength),
      scheduler: fields.text('scheduler'),
    }
  }

  async function answer(c: Context, type: string, fields: Fields, request: PictureRequest): Promise<Response> {
    const format = fields.oneOf('output_format', ['png', 'jpeg', 'webp']) ?? 'png'
    const how: Answer = {
      asUrl: fields.oneOf('response_format', ['url', 'b64_json']) === 'url',
      format,
      // 0 is theirs for the smallest file, 1 is sharp's.
      quality: format === 'png' ? undefined : Math.max(1, fields.number('output_compression', compression) ?? 100),
      stream: fields.flag('stream') ?? false,
      partialImages: fields.number('partial_images', { integer: true, min: 0, max: 3 }) ?? 0,
    }
    const job = await service.submit(c, type, request, c.req.raw.signal)
    if (how.stream) return stream(c, type, job, how)
    const images = await job.result()
    const data = await Promise.all(images.map((image, index) => picture(c, job, image, index, how)))
    return c.json({ created: seconds(job.ended!), output_format: format, size: sizeOf(images[0]!), data })
  }
}

const compression = { integer: true, min: 0, max: 100 }

async function picture(c: Context, job: Job, image: RawImage, index: number, { asUrl, format, quality }: Answer) {
  const { seed } = image.recipe ?? {}
  if (!asUrl) return { b64_json: await toBase64(image, format, quality), seed }
  const query = format === 'png' ? '' : `?format=${format}`
  return { url: new URL(`/jobs/${job.id}/pictures/${index}${query}`, c.req.url).href, seed }
}

/** Partial pictures and the result as events, named as theirs. */
function stream(c: Context, type: string, job: Job, { format, quality, partialImages }: Answer): Response {
  return streamSSE(c, async (events) => {
    events.onAbort(() => job.cancel())
    const send = (name: string, data: object) =>
      events.writeSSE({ event: name, data: JSON.stringify({ type: name, ...data }) })
    const body = async (image: RawImage, at: number) => ({
      b64_json: await toBase64(image, format, quality),
      ...{ created_at: seconds(at), size: sizeOf(image), output_format: format },
      ...{ quality: 'auto', background: 'opaque' },
    })
    try {
      let sent = 0
      for await (const _ of job.changes()) {
        const { preview, progress } = job
        // Spread over the steps; the last one is the result itself.
        const due = progress?.stage === 'decoder' && progress.step * (partialImages + 1) >= (sent + 1) * progress.steps
        if (job.isOver || !preview || sent >= partialImages || !due) continue
        for (const image of preview)
          await send(`${type}.partial_image`, {
            ...(await body(enlarge(image), Date.now())),
            partial_image_index: sent,
          })
        sent++
      }
      for (const image of await job.result())
        await send(`${type}.completed`, { ...(await body(image, job.ended!)), seed: image.recipe?.seed, usage })
    } catch (cause) {
      await send('error', errorBody(explain(cause)))
    }
  })
}

/** Nothing is counted in tokens here. */
const usage = {
  ...{ input_tokens: 0, output_tokens: 0, total_tokens: 0 },
  input_tokens_details: { text_tokens: 0, image_tokens: 0 },
}

function errorBody({ status, message, code, field }: RequestError) {
  const type = status < 500 ? 'invalid_request_error' : 'server_error'
  return { error: { message, type: status === 429 ? 'rate_limit_error' : type, param: field, code } }
}

/** Fields of a form, files as bytes. Clients call a list of pictures `image[]`. */
async function readForm(c: Context): Promise<Record<string, unknown>> {
  if (!/^multipart\/form-data/i.test(c.req.header('content-type') ?? ''))
    throw new RequestError(400, 'Expected multipart/form-data in the body')
  const form = await c.req.formData().catch(() => {
    throw new RequestError(400, 'Expected a whole form in the body')
  })
  const fields = new Map<string, unknown>()
  for (const [key, value] of form) {
    const name = key.replace(/\[\]$/, '')
    if (fields.has(name)) throw new RequestError(400, `Expected one ${name} but received several`, null, name)
    fields.set(name, typeof value === 'string' ? value : new Uint8Array(await value.arrayBuffer()))
  }
  return Object.fromEntries(fields)
}

function seconds(ms: number): number {
  return Math.floor(ms / 1000)
}

function sizeOf({ width, height }: RawImage): string {
  return `${width}x${height}`
}

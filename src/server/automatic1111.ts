// The API of AUTOMATIC1111's web UI (modules/api/{api,models}.py in its repository), as SillyTavern, Open WebUI and others
// use it: pictures as base64, one progress for all, and lists that they ask for before they begin.
import { Hono } from 'hono'
import { blend, gaussianBlur } from '../images/blur.js'
import { RawImage } from '../images/image.js'
import { formatParameters } from '../images/recipe.js'
import { schedulerNames, schedulerShortNames } from '../schedulers/registry.js'
import { version } from '../version.js'
import { Tasks } from './automatic1111-tasks.js'
import { Fields, RequestError } from './fields.js'
import type { Job } from './jobs.js'
import { decode, maskOf } from './models.js'
import type { PictureRequest } from './request.js'
import { enlarge, fractionOf, readJson, refuse, type Service, toBase64 } from './service.js'

const API = 'automatic1111'
/** Fields that have an effect here. Clients send dozens of others, which `info` names as ignored. */
const understood = [
  ...['prompt', 'negative_prompt', 'seed', 'sampler_name', 'sampler_index', 'steps', 'cfg_scale', 'width', 'height'],
  ...['batch_size', 'n_iter', 'denoising_strength', 'override_settings', 'send_images', 'init_images', 'mask'],
  ...['inpainting_mask_invert', 'mask_blur', 'enable_hr', 'hr_scale', 'force_task_id'],
]
/** Names of samplers that UIs have in their lists, as ours are called. */
const samplers: readonly (readonly [string, string])[] = [
  ['DDIM', 'ddim'],
  ['Euler', 'euler'],
  ['Euler a', 'euler_a'],
  ['DPM++ 2M', 'dpm++'],
  ['UniPC', 'unipc'],
  ['Heun', 'heun'],
  ['PLMS', 'pndm'],
  ['LCM', 'lcm'],
  ['DDPM', 'ddpm'],
]

/** Routes under `/sdapi/v1`, and those under `/internal` that clients ask for the progress of a request of theirs. */
export function automatic1111(service: Service): { api: Hono; internal: Hono } {
  /** the model that requests without one get, which UIs set as an option */
  let chosen: string | undefined
  const tasks = new Tasks()
  const [app, internal] = [new Hono(), tasks.routes(service)]
  for (const each of [app, internal])
    each.onError((thrown, c) =>
      refuse(c, service, thrown, ({ code, message }) => ({ error: code, detail: message, errors: message })),
    )

  for (const kind of ['txt2img', 'img2img'] as const)
    app.post(`/${kind}`, async (c) => {
      const given = await readJson(c)
      const fields = new Fields(given)
      const request = requestOf(fields, kind)
      const parameters = echoOf(given)
      const blur = fields.number('mask_blur', { min: 0, max: MAX_BLUR })
      const name = tasks.nameOf(fields)
      const job = await service.submit(c, API, request, c.req.raw.signal)
      if (name !== undefined) tasks.add(name, job)
      const made = await resultOf(job)
      const images = request.mask && blur !== undefined ? await feather(made, request, blur) : made
      const encoded =
        fields.flag('send_images') === false ? [] : await Promise.all(images.map((image) => toBase64(image)))
      return c.json({
        images: encoded,
        parameters,
        info: JSON.stringify(infoOf(job, images, fields)),
      })
    })

  app.get('/progress', async (c) => {
    const job = service.jobs.running(API)
    const { step = 0, steps = 0, etaMs = 0 } = job?.progress ?? {}
    const [preview] = c.req.query('skip_current_image') === 'true' ? [] : (job?.preview ?? [])
    return c.json({
      progress: job ? fractionOf(job) : 0,
      eta_relative: etaMs / 1000,
      state: {
        ...{ skipped: false, interrupted: job?.signal.aborted ?? false, stopping_generation: false },
        ...{ job: job?.id ?? '', job_count: job ? 1 : 0, job_no: 0 },
        job_timestamp: job ? timestampOf(job) : '0',
        ...{ sampling_step: step, sampling_steps: steps },
      },
      current_image: preview ? await toBase64(enlarge(preview)) : null,
      textinfo: null,
    })
  })
  // Only what came through this API: other clients' pictures are not theirs to stop.
  for (const name of ['interrupt', 'skip'])
    app.post(`/${name}`, (c) => {
      service.jobs.running(API)?.cancel()
      return c.json({})
    })

  app.get('/options', (c) => c.json({ sd_model_checkpoint: chosen ?? service.models.first, samples_format: 'png' }))
  app.post('/options', async (c) => {
    chosen = modelOf(new Fields(await readJson(c))) ?? chosen
    return c.json(null)
  })
  app.get('/sd-models', (c) =>
    c.json(
      service.models.names.map((name) => ({
        ...{ title: name, model_name: name, hash: null, sha256: null, filename: name, config: null },
      })),
    ),
  )
  app.get('/samplers', (c) => c.json(samplers.map(([name, alias]) => ({ name, aliases: [alias], options: {} }))))
  app.get('/schedulers', (c) =>
    c.json([{ name: 'automatic', label: 'Automatic', aliases: null, default_rho: -1, need_inner_model: false }]),
  )
  app.get('/upscalers', (c) =>
    c.json([{ name: 'None', model_name: null, model_path: null, model_url: null, scale: 4 }]),
  )
  const lists = [
    'latent-upscale-modes',
    'sd-vae',
    'sd-modules',
    'loras',
    'hypernetworks',
    'face-restorers',
    'scripts-info',
  ]
  for (const name of [...lists, 'realesrgan-models', 'prompt-styles']) app.get(`/${name}`, (c) => c.json([]))
  app.get('/embeddings', (c) => c.json({ loaded: {}, skipped: {} }))
  app.get('/scripts', (c) => c.json({ txt2img: [], img2img: [] }))
  app.get('/cmd-flags', (c) => c.json({}))
  app.get('/memory', (c) => c.json({ ram: { used: process.memoryUsage.rss() }, cuda: {} }))
  app.post('/refresh-checkpoints', (c) => c.json(null))
  return { api: app, internal }

  function requestOf(fields: Fields, kind: 'txt2img' | 'img2img'): PictureRequest {
    const { ranges } = service
    const [batch = 1, rounds = 1] = ['batch_size', 'n_iter'].map((name) => fields.number(name, ranges.count))
    if (batch * rounds > ranges.count.max)
      throw fields.wrong('n_iter', `at most ${ranges.count.max} pictures (batch_size times n_iter)`)
    const sampler = fields.text('sampler_name') ?? fields.text('sampler_index')
    const settings = fields.get('override_settings')
    const size = { width: fields.number('width', ranges.side), height: fields.number('height', ranges.side) }
    return {
      model: (settings === undefined ? undefined : modelOf(new Fields(settings))) ?? chosen,
      ...{ prompt: fields.text('prompt') ?? '', negativePrompt: fields.text('negative_prompt') },
      ...{ count: batch * rounds, seed: fields.seed('seed'), scheduler: schedulerOf(fields, sampler) },
      ...size,
      steps: fields.number('steps', ranges.steps),
      guidance: fields.number('cfg_scale', ranges.guidance),
      ...(kind === 'img2img' ? startOf(fields) : hiresOf(fields, size)),
    }
  }

  /** Theirs have the size of the small picture, ours that of the result. */
  function hiresOf(fields: Fields, size: Pick<PictureRequest, 'width' | 'height'>): Partial<PictureRequest> {
    if (fields.flag('enable_hr') !== true) return {}
    const { width, height } = size
    if (width === undefined || height === undefined) throw fields.wrong('width', 'a number, and one for height')
    const scale = fields.number('hr_scale', { min: 1, max: 8 }) ?? HR_SCALE
    const large = { width: Math.round(width * scale), height: Math.round(height * scale) }
    if (Math.max(large.width, large.height) > service.ranges.side.max)
      throw fields.wrong('hr_scale', `a number that makes sides of at most ${service.ranges.side.max} pixels`)
    return { ...large, hiresFix: { scale, strength: fields.number('denoising_strength', service.ranges.strength) } }
  }

  function startOf(fields: Fields): Pick<PictureRequest, 'image' | 'mask' | 'repaint' | 'strength'> {
    const images = fields.get('init_images')
    if (!Array.isArray(images) || images.length !== 1) throw fields.wrong('init_images', 'a list of one picture')
    const image = new Fields({ init_images: images[0] }).picture('init_images')
    const mask = fields.picture('mask')
    const repaint = fields.number('inpainting_mask_invert', { integer: true, min: 0, max: 1 }) === 1 ? 'black' : 'white'
    const strength = fields.number('denoising_strength', service.ranges.strength)
    // Repainting begins from noise, whatever the strength.
    return mask ? { image, mask, repaint } : { image, strength: strength ?? DENOISING_STRENGTH }
  }

  /** UIs write a hash behind the name: `k22 [0123456789]`. */
  function modelOf(fields: Fields): string | undefined {
    const name = fields.text('sd_model_checkpoint')?.replace(/ \[\w+\]$/, '')
    return name === undefined ? undefined : service.models.expect(name)
  }

  function infoOf(job: Job, images: readonly RawImage[], fields: Fields) {
    const recipes = images.map(({ recipe }) => recipe ?? {})
    const [first = {}] = recipes
    const ignored = fields.names.filter((name) => !understood.includes(name))
    const all = <T>(value: T): T[] => images.map(() => value)
    const seeds = recipes.map(({ seed }) => seed)
    const negative = first.negativePrompt ?? ''
    return {
      ...{ prompt: first.prompt, all_prompts: all(first.prompt) },
      ...{ negative_prompt: negative, all_negative_prompts: all(negative) },
      ...{ seed: seeds[0], all_seeds: seeds, subseed: -1, all_subseeds: all(-1), subseed_strength: 0 },
      ...{ width: first.width, height: first.height, batch_size: images.length },
      ...{ sampler_name: first.scheduler, steps: first.numInferenceSteps, cfg_scale: first.guidanceScale },
      ...{ sd_model_name: first.model, sd_model_hash: first.modelHash, denoising_strength: first.strength ?? null },
      ...{ restore_faces: false, index_of_first_image: 0, styles: [], clip_skip: 1 },
      extra_generation_params: ignored.length > 0 ? { Ignored: ignored.join(', ') } : {},
      infotexts: recipes.map(formatParameters),
      ...{
        job_timestamp: timestampOf(job),
        interrupted: job.state === 'cancelled',
        version: `node-kandinsky ${version}`,
      },
    }
  }
}

/** theirs, where none is given */
const DENOISING_STRENGTH = 0.75
const HR_SCALE = 2

/** in pixels, theirs */
const MAX_BLUR = 64

/** Beyond the mask, whose edge is blurred, the pixels of the start picture. */
async function feather(images: readonly RawImage[], request: PictureRequest, sigma: number): Promise<RawImage[]> {
  const [under, mask] = await Promise.all([decode('init_images', request.image!, 'RGB'), maskOf(request)])
  return images.map(({ data, width, height, recipe }) => {
    const soft = gaussianBlur(mask!.resize(width, height), sigma)
    return new RawImage(blend(under.resize(width, height).data, data, soft), width, height, 3, recipe)
  })
}

/** What has been interrupted is answered with what there is of it, as they do. */
async function resultOf(job: Job): Promise<RawImage[]> {
  try {
    return await job.result()
  } catch (error) {
    if (job.state === 'cancelled') return (job.preview ?? []).map(enlarge)
    throw error
  }
}

/** The scheduler of a sampler's name; the checkpoint's own where a client leaves it to the server. */
function schedulerOf(fields: Fields, name: string | undefined): string | undefined {
  if (name === undefined || name === '' || /^automatic$/i.test(name)) return undefined
  const plain = name.toLowerCase()
  const known = samplers.find(([label]) => label.toLowerCase() === plain)?.[1]
  if (known) return known
  if ([...schedulerShortNames, ...schedulerNames.map((className) => className.toLowerCase())].includes(plain))
    return plain
  const field = fields.get('sampler_name') === undefined ? 'sampler_index' : 'sampler_name'
  throw new RequestError(
    404,
    `Sampler not found: expected one of ${samplers.map(([label]) => label).join(', ')}`,
    null,
    field,
  )
}

/** What was asked for, without the megabytes of pictures. @throws RequestError for what is nested too deeply to be said again */
function echoOf(given: unknown): object {
  const { init_images: _, mask: __, ...parameters } = given as Record<string, unknown>
  try {
    JSON.stringify(parameters)
    return parameters
  } catch {
    throw new RequestError(400, 'Expected fields that are nested less deeply')
  }
}

function timestampOf({ created }: Job): string {
  return new Date(created).toISOString().replace(/[-:T]/g, '').slice(0, 14)
}

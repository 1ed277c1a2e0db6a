// What servers and workers of one queue agree on: names in Redis, what a job holds, how previews are written. The queue itself
// is BullMQ's (https://docs.bullmq.io), one for each model, so that workers take jobs only of models that they have.
//
// Few need several machines: BullMQ and its client of Redis are installed beside this package.
import type { Job as Entry, Queue } from 'bullmq'
import type { Redis } from 'ioredis'
import { KandinskyError } from '../errors.js'
import { RawImage } from '../images/image.js'
import type { JobProgress } from './jobs.js'
import type { MixPart, PictureRequest } from './request.js'
import type { ResultStore } from './results.js'

/** Before all names in Redis. */
export const PREFIX = 'kandinsky'
/** Where workers hear which jobs are cancelled. */
export const CANCELLED = `${PREFIX}-cancelled`
/** Deletes what jobs leave, when they were kept long enough. */
export const FORGET = 'forget'

/** Exists for as long as a job that was cancelled is remembered. */
export const cancelledKey = (id: string) => `${CANCELLED}:${id}`
/** What the running job looks like. */
export const previewKey = (id: string) => `${PREFIX}-preview:${id}`
/** Of BullMQ, whose names have no colon. */
export const queueOf = (model: string) => `model ${encodeURIComponent(model)}`
export const pictureKey = (id: string, index: number) => `${id}/${index}.png`

export interface JobData {
  api: string
  client: string
  request: StoredRequest
}
export type JobResult = { recipes: (RawImage['recipe'] | null)[] } | 'cancelled'
export interface Progress extends JobProgress {
  /** counts them */
  previews: number
}
export interface ForgetData {
  model: string
  /** in the store */
  keys: string[]
  keepMs: number
}
export type PictureQueue = Queue<JobData, JobResult>
export type PictureEntry = Entry<JobData, JobResult>

export async function loadBullMq() {
  try {
    const [{ Queue, QueueEvents, Worker, DelayedError, UnrecoverableError, WaitingError }, { Redis }] =
      await Promise.all([import('bullmq'), import('ioredis')])
    return { Queue, QueueEvents, Worker, DelayedError, UnrecoverableError, WaitingError, Redis }
  } catch (cause) {
    const message = 'A queue in Redis needs other packages: npm install bullmq ioredis'
    throw new KandinskyError('FILE_NOT_FOUND', message, { cause })
  }
}

/**
 * A connection that is there.
 * @param patient waits for a Redis that went away, where the caller would otherwise be told at once
 * @throws KandinskyError `INVALID_ARGUMENT` if it cannot be reached now
 */
export async function connect(url: string, patient: boolean): Promise<Redis> {
  const { Redis } = await loadBullMq()
  if (!/^rediss?:\/\//.test(url))
    throw new KandinskyError('INVALID_ARGUMENT', 'Expected a URL for queue that begins with redis:// or rediss://')
  const redis = new Redis(url, {
    lazyConnect: true,
    // BullMQ's own connections need null.
    ...(patient ? { maxRetriesPerRequest: null } : { maxRetriesPerRequest: 1, enableOfflineQueue: false }),
  })
  let problem: unknown
  redis.on('error', (error) => {
    problem = error
  })
  try {
    await redis.connect()
    return redis
  } catch (cause) {
    redis.disconnect()
    const { message } = (problem ?? cause) as Error
    const { host } = new URL(url)
    throw new KandinskyError('INVALID_ARGUMENT', `Could not reach Redis at ${host}: ${message}`, { cause })
  }
}

/** A request as JSON holds it: numbers of 64 bits as texts, bytes as names in the store. */
type StoredRequest = Omit<PictureRequest, 'seed' | 'image' | 'mask' | 'mix'> & {
  seed: string
  image?: string
  mask?: string
  mix?: { text?: string; key?: string; weight: number }[]
}

/** @returns the request, and what is to be put into the store for it */
export function pack(id: string, request: PictureRequest & { seed: bigint }) {
  const { seed, image, mask, mix, ...rest } = request
  const inputs: { key: string; bytes: Uint8Array }[] = []
  const keyOf = (bytes: Uint8Array) => {
    const key = `${id}/input-${inputs.length}`
    inputs.push({ key, bytes })
    return key
  }
  const stored: StoredRequest = {
    ...rest,
    seed: String(seed),
    ...(image && { image: keyOf(image) }),
    ...(mask && { mask: keyOf(mask) }),
    ...(mix && {
      mix: mix.map(({ item, weight }) =>
        typeof item === 'string' ? { text: item, weight } : { key: keyOf(item), weight },
      ),
    }),
  }
  return { stored, inputs }
}

export async function unpack({ seed, image, mask, mix, ...rest }: StoredRequest, store: ResultStore) {
  const read = async (key: string) => {
    const bytes = await store.get(key)
    if (!bytes) throw new KandinskyError('FILE_NOT_FOUND', `The results have no ${key}: servers and workers share them`)
    return bytes
  }
  const parts = mix?.map(
    async ({ text, key, weight }): Promise<MixPart> => ({ item: text ?? (await read(key!)), weight }),
  )
  const request: PictureRequest = {
    ...rest,
    seed: BigInt(seed),
    ...(image !== undefined && { image: await read(image) }),
    ...(mask !== undefined && { mask: await read(mask) }),
    ...(parts && { mix: await Promise.all(parts) }),
  }
  return request
}

/** Previews have one pixel per latent cell. */
export function packPreview(images: readonly RawImage[]): string {
  return JSON.stringify(
    images.map(({ data, width, height, channels }) => [Buffer.from(data).toString('base64'), width, height, channels]),
  )
}

export function unpackPreview(text: string): RawImage[] {
  const list = JSON.parse(text) as [string, number, number, 1 | 3 | 4][]
  return list.map(
    ([data, width, height, channels]) => new RawImage(Buffer.from(data, 'base64'), width, height, channels),
  )
}

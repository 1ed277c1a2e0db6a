// Where pictures are kept when the machine that draws is not the one that is asked: a folder that all of them reach, or
// S3-compatible storage.
import { mkdir, rm, rmdir } from 'node:fs/promises'
import path from 'node:path'
import { KandinskyError } from '../errors.js'
import { readBytesOf, writeWhole } from '../files.js'

/** Keeps bytes under names like `<job>/0.png`, for servers and workers alike. */
export interface ResultStore {
  /**
   * Keeps what is whole, or nothing; in place of what was there.
   * @param type media type, for stores that keep it
   */
  put(key: string, bytes: Uint8Array, type: string): Promise<void>
  /** undefined for what is not there */
  get(key: string): Promise<Uint8Array | undefined>
  /** What is not there is no error. */
  delete(key: string): Promise<void>
}

/** Larger is no picture of ours, nor what a body may bring. */
const MAX_BYTES = 2 ** 30

/** @throws KandinskyError `INVALID_ARGUMENT`; `FILE_NOT_FOUND` for S3 where its client is not installed */
export async function openResults(where: string | ResultStore | undefined): Promise<ResultStore> {
  if (where === undefined)
    throw new KandinskyError(
      'INVALID_ARGUMENT',
      'Expected results beside a queue: a folder that servers and workers reach, or s3://bucket/prefix',
    )
  if (typeof where !== 'string') return where
  const [, bucket, prefix = ''] = /^s3:\/\/([^/]+)\/?(.*)$/.exec(where) ?? []
  if (bucket !== undefined) return s3(bucket, prefix === '' ? '' : `${prefix.replace(/\/+$/, '')}/`)
  if (/^\w+:\/\//.test(where))
    throw new KandinskyError('INVALID_ARGUMENT', `Expected a folder or s3://bucket/prefix for results`)
  return folder(path.resolve(where))
}

function folder(root: string): ResultStore {
  return {
    async put(key, bytes) {
      const file = inside(root, key)
      await mkdir(path.dirname(file), { recursive: true })
      await writeWhole(file, bytes)
    },
    async get(key) {
      try {
        return await readBytesOf(inside(root, key), MAX_BYTES)
      } catch (error) {
        if (error instanceof KandinskyError && error.code === 'FILE_NOT_FOUND') return undefined
        throw error
      }
    },
    async delete(key) {
      const file = inside(root, key)
      await rm(file, { force: true })
      // A job's folder goes with its last file.
      await rmdir(path.dirname(file)).catch(() => {})
    },
  }
}

/** Keys come out of Redis, which others may write to. @throws KandinskyError `INVALID_ARGUMENT` */
function inside(root: string, key: string): string {
  const file = path.join(root, key)
  if (file.startsWith(root + path.sep)) return file
  throw new KandinskyError('INVALID_ARGUMENT', `Expected the key of a result but received ${JSON.stringify(key)}`)
}

/** Endpoint, region and credentials are where its users have them: environment, profile, role of the machine. */
async function s3(bucket: string, prefix: string): Promise<ResultStore> {
  const sdk = await import('@aws-sdk/client-s3').catch((cause) => {
    const message = 'Results in S3 need another package: npm install @aws-sdk/client-s3'
    throw new KandinskyError('FILE_NOT_FOUND', message, { cause })
  })
  const client = new sdk.S3Client({
    // Stores of other makers know neither names of buckets as hosts nor the newest checksums.
    forcePathStyle: (process.env.AWS_ENDPOINT_URL_S3 ?? process.env.AWS_ENDPOINT_URL) !== undefined,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  })
  const at = (key: string) => ({ Bucket: bucket, Key: prefix + key })
  return {
    async put(key, bytes, type) {
      await client.send(new sdk.PutObjectCommand({ ...at(key), Body: bytes, ContentType: type }))
    },
    async get(key) {
      try {
        const { Body } = await client.send(new sdk.GetObjectCommand(at(key)))
        return await Body!.transformToByteArray()
      } catch (error) {
        if (error instanceof sdk.NoSuchKey) return undefined
        throw error
      }
    },
    async delete(key) {
      await client.send(new sdk.DeleteObjectCommand(at(key)))
    },
  }
}

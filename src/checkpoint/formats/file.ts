import type { BigIntStats } from 'node:fs'
import { type FileHandle, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { badFile, fileError, readAt, withFile } from '../../files.js'

/** Deeper than any repository of models is; links can form circles. */
const MAX_TREE_DEPTH = 6

/** A file opened for bounds-checked reading. */
export class SourceFile {
  readonly path: string
  /** in bytes, when it was opened */
  readonly size: number
  /** tells versions of the file apart, as native/core/file.h does */
  readonly stamp: string
  readonly #handle: FileHandle

  private constructor(path: string, { size, mtimeNs }: BigIntStats, handle: FileHandle) {
    this.path = path
    this.size = Number(size)
    this.stamp = `${size}@${mtimeNs}`
    this.#handle = handle
  }

  /**
   * Opens `path`, hands the file to `use` and closes it whatever happens.
   * @throws KandinskyError `FILE_NOT_FOUND`, or `BAD_FILE` if it is no regular file or cannot be read
   */
  static async with<T>(path: string, use: (file: SourceFile) => Promise<T>): Promise<T> {
    return withFile(path, (handle, stat) => use(new SourceFile(path, stat, handle)))
  }

  /** Exactly `length` bytes from `offset`, or `BAD_FILE`. */
  async read(offset: number, length: number): Promise<Buffer> {
    if (!isRange(offset, length, this.size))
      throw badFile(this.path, `ends at byte ${this.size}, but ${length} bytes at ${offset} were expected`)
    return readAt(this.#handle, offset, length, this.path)
  }
}

/**
 * The names in a folder. Hidden ones are left out: what systems and editors leave there (macOS writes "._vocab.json"
 * beside vocab.json) is no part of a model.
 * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`
 */
export async function listFolder(path: string): Promise<string[]> {
  const names = await readdir(path).catch((cause) => {
    throw fileError(path, cause)
  })
  return names.filter((name) => !name.startsWith('.')).sort()
}

/** The names of the folders in a folder, whether they lie there or are reached by a link. */
export async function listSubfolders(path: string): Promise<string[]> {
  const names = await listFolder(path)
  const areFolders = await Promise.all(names.map((name) => isFolder(join(path, name))))
  return names.filter((_, i) => areFolders[i])
}

/** Paths, with forward slashes, of what is in a folder and below it that is no folder; links are followed. */
export async function listTree(path: string, depth = MAX_TREE_DEPTH): Promise<string[]> {
  const names = await listFolder(path)
  const inside = await Promise.all(
    names.map(async (name) => {
      if (!(await isFolder(join(path, name)))) return [name]
      return depth > 1 ? (await listTree(join(path, name), depth - 1)).map((below) => `${name}/${below}`) : []
    }),
  )
  return inside.flat()
}

/** False also for a link that leads nowhere. */
async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false
}

/** True if `length` bytes from `offset` lie inside `size` bytes and every number involved is exact. */
export function isRange(offset: number, length: number, size: number): boolean {
  return [offset, length, offset + length].every((n) => Number.isSafeInteger(n) && n >= 0) && offset + length <= size
}

/** What a file holds, judged by its first bytes and never by its name. */
export type FileKind = 'gguf' | 'safetensors' | 'torch-zip' | 'torch-legacy' | 'pickle' | 'lfs-pointer' | 'unknown'

/** How messages call each kind. */
export const KIND_NAMES: Record<FileKind, string> = {
  gguf: 'a GGUF file',
  safetensors: 'a safetensors file',
  'torch-zip': 'a zip archive as torch.save writes it',
  'torch-legacy': 'a file as torch.save wrote it before version 1.6',
  pickle: 'a bare Python pickle',
  'lfs-pointer': 'a Git LFS pointer, not the file itself (run "git lfs pull")',
  unknown: 'data of an unknown format',
}

/** The pickle of torch.save's magic number. */
export const TORCH_LEGACY_HEAD = Buffer.from('80028a0a6cfc9c46f9206aa850192e', 'hex')

const PICKLE_PROTO = 0x80

export async function fileKind(file: SourceFile): Promise<FileKind> {
  const head = await file.read(0, Math.min(file.size, 64))
  const text = head.toString('latin1')
  if (text.startsWith('GGUF')) return 'gguf'
  if (text.startsWith('PK\x03\x04')) return 'torch-zip'
  if (head.subarray(0, TORCH_LEGACY_HEAD.length).equals(TORCH_LEGACY_HEAD)) return 'torch-legacy'
  if (text.startsWith('version https://git-lfs')) return 'lfs-pointer'
  if (head.length > 8 && head[8] === 0x7b && head.readBigUInt64LE(0) <= BigInt(file.size - 8)) return 'safetensors'
  if (head.length > 1 && head[0] === PICKLE_PROTO && head[1]! <= 5) return 'pickle'
  return 'unknown'
}

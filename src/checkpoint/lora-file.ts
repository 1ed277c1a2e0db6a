// What a LoRA file holds, in the names that training scripts give it. One table of forms, which all mean the same: a module
// of the network and, of its two thin matrices, which one.
//   diffusers' attention processors  mid_block.attentions.0.processor.to_q_lora.down.weight    (save_attn_procs)
//   diffusers                        unet.mid_block.attentions.0.to_q.lora.down.weight
//   PEFT                             base_model.model.mid_block.attentions.0.to_q.lora_A.weight
//   kohya                            lora_unet_mid_block_attentions_0_to_q.lora_down.weight, beside it .alpha
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename, dirname, extname, join } from 'node:path'
import { KandinskyError } from '../errors.js'
import { badFile, fileError, readBytesOf } from '../files.js'
import { listFolder, SourceFile } from './formats/file.js'
import { readSafetensors, readSafetensorsMetadata } from './formats/safetensors.js'
import type { StoredTensor } from './formats/stored.js'
import { readTorch } from './formats/torch.js'

/** As diffusers and PEFT call the file, in the order of preference. */
export const LORA_FILES = [
  ...['pytorch_lora_weights.safetensors', 'pytorch_lora_weights.bin'],
  ...['adapter_model.safetensors', 'adapter_model.bin'],
]

/** The addition to one module: scale * up x down. */
export interface LoraModule {
  /** the module as the file calls it, without what marks LoRA */
  name: string
  /** [rank, in], or of a convolution [rank, in, kh, kw] */
  down: StoredTensor
  /** [out, rank], or [out, rank, 1, 1] */
  up: StoredTensor
  /** alpha / rank where the file tells alpha, otherwise 1 */
  scale: number
}

export interface LoraFile {
  path: string
  /** of the whole file: 10 hexadecimal digits */
  hash: string
  modules: LoraModule[]
}

/** What ends a key. The part before it is the module. */
const FORMS: readonly [RegExp, 'down' | 'up'][] = [
  [/\.lora_A(?:\.[^.]+)?\.weight$/, 'down'],
  [/\.lora_B(?:\.[^.]+)?\.weight$/, 'up'],
  [/[._]lora(?:_linear_layer)?[._]down\.weight$/, 'down'],
  [/[._]lora(?:_linear_layer)?[._]up\.weight$/, 'up'],
]
const ALPHA = /(?:[._]lora)?\.alpha$/

/** Other kinds of adapters, which are no pairs of thin matrices. */
const OTHER_KINDS: readonly [RegExp, string][] = [
  [/\.(?:dora_scale|lora_magnitude_vector)\b/, 'DoRA'],
  [/\.hada_/, 'LoHa'],
  [/\.lokr_/, 'LoKr'],
  [/\.oft_/, 'OFT'],
  [/\.lora_embedding_/, 'LoRA of an embedding'],
  [/\.lora_(?:B|up)(?:\.[^.]+)?\.bias$/, 'LoRA with biases'],
  [/\.diff(?:_b)?$/, 'a difference of whole weights'],
  [/_custom_diffusion\./, 'custom diffusion'],
]

/**
 * Finds the LoRA file of a folder.
 * @throws KandinskyError `FILE_NOT_FOUND`
 */
export async function findLoraFile(path: string, weightName?: string): Promise<string> {
  const found = await stat(path).catch((cause) => {
    throw fileError(path, cause)
  })
  if (!found.isDirectory()) return path
  const names = await listFolder(path)
  const tensors = names.filter((name) => /\.(safetensors|bin|pt)$/.test(name))
  const wanted = weightName === undefined ? LORA_FILES : [weightName]
  const name =
    wanted.find((name) => names.includes(name)) ??
    (weightName === undefined && tensors.length === 1 ? tensors[0] : undefined)
  if (name !== undefined) return join(path, name)
  throw new KandinskyError(
    'FILE_NOT_FOUND',
    `Expected ${wanted.slice(0, 2).join(' or ')} in ${path} but it holds ${tensors.join(', ') || 'no weights'}`,
  )
}

/**
 * Reads what a LoRA file says; no matrices yet.
 * @throws KandinskyError `BAD_FILE`, `UNSUPPORTED_MODEL` for adapters of another kind
 */
export async function readLoraFile(path: string): Promise<LoraFile> {
  const isSafetensors = extname(path) === '.safetensors'
  const tensors = await (isSafetensors ? readSafetensors(path) : readTorch(path))
  const config = await loraConfig(path, isSafetensors)
  const parts = new Map<string, { down?: StoredTensor; up?: StoredTensor; alpha?: StoredTensor }>()
  for (const tensor of tensors) {
    const [module, part] = parseKey(tensor.name, path)
    const entry = parts.get(module) ?? {}
    if (entry[part]) throw badFile(path, `has "${entry[part].name}" and "${tensor.name}", which mean the same`)
    entry[part] = tensor
    parts.set(module, entry)
  }
  if (parts.size === 0) throw badFile(path, 'holds no weights')
  const modules: LoraModule[] = []
  for (const [name, { down, up, alpha }] of parts) {
    if (!down || !up) throw badFile(path, `has only one of the two matrices of "${name}"`)
    const rank = down.shape[0] ?? 0
    if (up.shape[1] !== rank || rank < 1)
      throw badFile(
        path,
        `has "${down.name}" of shape [${down.shape.join(', ')}] and "${up.name}" of shape [${up.shape.join(', ')}], ` +
          'which are not of one rank',
      )
    modules.push({ name, down, up, scale: alpha ? (await readScalar(alpha)) / rank : config.scale(name, rank) })
  }
  return { path, hash: await hashOf(path), modules }
}

function parseKey(key: string, path: string): [module: string, part: 'down' | 'up' | 'alpha'] {
  for (const [pattern, kind] of OTHER_KINDS)
    if (pattern.test(key))
      throw new KandinskyError(
        'UNSUPPORTED_MODEL',
        `Expected a LoRA of two matrices for each module but ${path} has "${key.slice(0, 120)}" (${kind})`,
      )
  if (ALPHA.test(key)) return [moduleName(key.replace(ALPHA, '')), 'alpha']
  for (const [pattern, part] of FORMS) if (pattern.test(key)) return [moduleName(key.replace(pattern, '')), part]
  throw new KandinskyError(
    'UNSUPPORTED_MODEL',
    `Expected the keys of a LoRA, such as "….to_q.lora.down.weight" or "….to_q.lora_A.weight", but ${path} has ` +
      `"${key.slice(0, 120)}"`,
  )
}

/** The processor of an attention has the matrices of the attention, whose last one is in a list. */
function moduleName(name: string): string {
  if (!/(^|\.)processor\./.test(name)) return name
  return name.replace(/(^|\.)processor\./, '$1').replace(/\.to_out$/, '.to_out.0')
}

/** What stands beside the matrices: in diffusers' metadata, or in PEFT's adapter_config.json. */
interface LoraConfig {
  scale(module: string, rank: number): number
}

async function loraConfig(path: string, isSafetensors: boolean): Promise<LoraConfig> {
  const metadata = isSafetensors ? (await readSafetensorsMetadata(path)).get('lora_adapter_metadata') : undefined
  if (metadata !== undefined) return configOf(parseObject(metadata, path), path)
  if (!basename(path).startsWith('adapter_model.')) return { scale: () => 1 }
  const file = join(dirname(path), 'adapter_config.json')
  const text = await readBytesOf(file, 1 << 20).catch((error) => {
    if (error instanceof KandinskyError && error.code === 'FILE_NOT_FOUND') return undefined
    throw error
  })
  return text ? configOf(parseObject(text.toString('utf8'), file), file) : { scale: () => 1 }
}

function parseObject(text: string, path: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch {}
  throw badFile(path, 'has LoRA settings that are no JSON object')
}

/** PEFT's LoraConfig; in diffusers' metadata each of its keys begins with the network's name. */
function configOf(config: Record<string, unknown>, path: string): LoraConfig {
  const settingsOf = (module: string) => {
    const own = Object.entries(config).filter(([key]) => !key.includes('.'))
    const prefix = `${module.split('.')[0]}.`
    const prefixed = Object.entries(config)
      .filter(([key]) => key.startsWith(prefix))
      .map(([key, value]) => [key.slice(prefix.length), value])
    return Object.fromEntries([...own, ...prefixed]) as Record<string, unknown>
  }
  return {
    scale(module, rank) {
      const settings = settingsOf(module)
      if (settings.use_dora) throw new KandinskyError('UNSUPPORTED_MODEL', `Expected a LoRA but ${path} says use_dora`)
      const patterns = (settings.alpha_pattern ?? {}) as Record<string, unknown>
      const pattern = Object.keys(patterns).find((end) => module === end || module.endsWith(`.${end}`))
      const alpha = pattern === undefined ? settings.lora_alpha : patterns[pattern]
      if (alpha === undefined) return 1
      if (typeof alpha !== 'number' || !Number.isFinite(alpha))
        throw badFile(path, 'has a lora_alpha that is no number')
      return alpha / (settings.use_rslora ? Math.sqrt(rank) : rank)
    },
  }
}

async function readScalar({ name, path, offset, bytes, type, shape }: StoredTensor): Promise<number> {
  if (shape.some((n) => n !== 1))
    throw badFile(path, `has "${name}" of shape [${shape.join(', ')}], expected one number`)
  const data = await SourceFile.with(path, (file) => file.read(offset, bytes))
  const value = scalarReaders[type]?.(data)
  if (value === undefined || !Number.isFinite(value)) throw badFile(path, `has "${name}" that is no number`)
  return value
}

const scalarReaders: Record<string, (data: Buffer) => number> = {
  f64: (data) => data.readDoubleLE(),
  f32: (data) => data.readFloatLE(),
  bf16: (data) => Buffer.from([0, 0, data[0]!, data[1]!]).readFloatLE(),
  f16: (data) => halfToNumber(data.readUInt16LE()),
  i64: (data) => Number(data.readBigInt64LE()),
  i32: (data) => data.readInt32LE(),
}

function halfToNumber(bits: number): number {
  const exponent = (bits >> 10) & 31
  const mantissa = bits & 1023
  const magnitude = exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25)
  return exponent === 31 ? Number.NaN : bits & 0x8000 ? -magnitude : magnitude
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const piece of createReadStream(path)) hash.update(piece)
  return hash.digest('hex').slice(0, 10)
}

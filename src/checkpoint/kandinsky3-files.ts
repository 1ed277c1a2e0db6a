// The layout in which the authors of Kandinsky 3 publish 3.1 and the inpainting model outside diffusers (`weights` of
// ai-forever/Kandinsky3.1), seen as a checkpoint like any other:
//
//   kandinsky3.pt, kandinsky3_flash.pt, kandinsky3_inpainting.pt   { unet: {...}, null_embedding }
//   movq.pt
//   flan_ul2_encoder/      T5 and its tokenizer as transformers has them; projection.pt, projection_flash.pt,
//                          projection_inpainting.pt, which in diffusers are part of the UNet
//
// Names: as diffusers' scripts/convert_kandinsky3_unet.py and the common ones of autoencoders have them. Sizes are read off the
// weights; what they do not tell (groups of norms, size of heads) is the published code's.
import { join } from 'node:path'
import { KandinskyError } from '../errors.js'
import { badFile } from '../files.js'
import type { Config } from '../native.js'
import { listFolder, listSubfolders } from './formats/file.js'
import type { StoredTensor } from './formats/stored.js'
import { readTorch } from './formats/torch.js'
import { type Component, PipelineFiles } from './pipeline-files.js'
import { openPartFolder } from './repository.js'

const TEXT_FOLDER = 'flan_ul2_encoder'
const UNET_FILE = /^kandinsky3(?:_(\w+))?\.pt$/

/** Of the published code. */
const NORM_GROUPS = 32
const HEAD_DIM = 64

/** What the published pipelines call their networks with, by the suffix of their files. */
const USES: Readonly<Record<string, { scheduler: object; defaults: object }>> = {
  '': {
    scheduler: { _class_name: 'Kandinsky3Scheduler', dynamic_thresholding_ratio: 0.99 },
    defaults: { num_inference_steps: 50, guidance_scale: 3 },
  },
  flash: {
    scheduler: { _class_name: 'Kandinsky3FlashScheduler' },
    defaults: { num_inference_steps: 4, guidance_scale: 1 },
  },
  inpainting: {
    scheduler: { _class_name: 'Kandinsky3Scheduler', dynamic_thresholding_ratio: 0.95 },
    defaults: { num_inference_steps: 50, guidance_scale: 4 },
  },
}

/** Whether a folder with these files is such a checkpoint. */
export function isPublishedKandinsky3(files: readonly string[]): boolean {
  return files.includes('movq.pt') && files.some((name) => UNET_FILE.test(name))
}

/** The one of a folder's files that holds the UNet of a variant. @throws KandinskyError `FILE_NOT_FOUND` */
export function chooseUNet(files: readonly string[], folder: string, variant: string | undefined): string {
  const found = files.filter((name) => UNET_FILE.test(name))
  const wanted = variant ? `kandinsky3_${variant}.pt` : 'kandinsky3.pt'
  if (found.includes(wanted)) return wanted
  if (variant === undefined && found.length === 1) return found[0]!
  const variants = found.map((name) => `'${UNET_FILE.exec(name)![1] ?? ''}'`)
  throw new KandinskyError(
    'FILE_NOT_FOUND',
    `Expected ${wanted} in ${folder} but it has ${found.join(', ')}; choose by the variant ${variants.join(' or ')}`,
  )
}

/** The file beside the text encoder that belongs to a UNet's file. */
export function projectionOf(unetFile: string): string {
  const suffix = UNET_FILE.exec(unetFile)?.[1]
  return `${TEXT_FOLDER}/projection${suffix ? `_${suffix}` : ''}.pt`
}

/**
 * @param variant `flash` or `inpainting`; default: the text-to-image model
 * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL`
 */
export async function openPublishedKandinsky3(folder: string, variant?: string): Promise<PipelineFiles> {
  const unetFile = chooseUNet(await listFolder(folder), folder, variant)
  const suffix = UNET_FILE.exec(unetFile)![1] ?? ''
  const use = USES[suffix]
  if (!use)
    throw new KandinskyError(
      'UNSUPPORTED_MODEL',
      `Expected kandinsky3.pt, kandinsky3_flash.pt or kandinsky3_inpainting.pt but ${folder} has ${unetFile}`,
    )
  if (!(await listSubfolders(folder)).includes(TEXT_FOLDER))
    throw new KandinskyError('FILE_NOT_FOUND', `Expected the folder ${TEXT_FOLDER} in ${folder}`)
  const textFolder = join(folder, TEXT_FOLDER)
  const text = await openPartFolder(textFolder, 'text_encoder', 'T5EncoderModel')
  const json = (value: object) => async () => JSON.stringify(value)
  const slots = new Map([
    ['unet', 'Kandinsky3UNet'],
    ['movq', 'VQModel'],
    ['text_encoder', 'T5EncoderModel'],
    ['tokenizer', 'T5Tokenizer'],
    ['scheduler', (use.scheduler as { _class_name: string })._class_name],
  ])
  const index = {
    _class_name: suffix === 'inpainting' ? 'Kandinsky3InpaintPipeline' : 'Kandinsky3Pipeline',
    ...Object.fromEntries([...slots].map(([slot, className]) => [slot, ['node-kandinsky', className]])),
  }
  const texts = new Map<string, () => Promise<string>>([
    ['model_index.json', json(index)],
    ['scheduler/scheduler_config.json', json(use.scheduler)],
    ['generation_config.json', json(use.defaults)],
    ...[...text.texts].map(([name, read]) => [`tokenizer/${name}`, read] as const),
  ])
  const networks = new Map([
    ['unet', () => openUNet(join(folder, unetFile), join(folder, projectionOf(unetFile)))],
    ['movq', () => openMovq(join(folder, 'movq.pt'))],
    ['text_encoder', text.network],
  ])
  return new PipelineFiles(folder, slots, texts, networks)
}

async function openUNet(path: string, projectionPath: string): Promise<Component> {
  const [unet, projection] = await Promise.all([readTorch(path), readTorch(projectionPath)])
  const tensors = unet.map((tensor) => ({ ...tensor, name: unetName(tensor.name) }))
  for (const tensor of projection) {
    const part = tensor.name.startsWith('0.') ? 'projection_linear' : 'projection_norm'
    tensors.push({ ...tensor, name: `encoder_hid_proj.${part}${tensor.name.slice(1)}` })
  }
  const sizes = new Sizes(tensors, path)
  const levels = sizes.count(/^down_blocks\.(\d+)\./)
  const config: Config = {
    in_channels: sizes.of('conv_in.weight', 1),
    out_channels: sizes.of('conv_out.weight', 0),
    block_out_channels: Array.from({ length: levels }, (_, i) =>
      sizes.of(`down_blocks.${i}.resnets_out.0.resnet_blocks.3.projection.weight`, 0),
    ),
    layers_per_block: sizes.count(/^down_blocks\.0\.resnets_in\.(\d+)\./),
    time_embedding_dim: sizes.of('time_embedding.linear_1.weight', 0),
    cross_attention_dim: sizes.of('add_time_condition.attention.to_k.weight', 1),
    encoder_hid_dim: sizes.of('encoder_hid_proj.projection_linear.weight', 1),
    groups: NORM_GROUPS,
    attention_head_dim: HEAD_DIM,
    null_embedding: true,
  }
  return { name: 'unet', className: 'Kandinsky3UNet', config, tensors }
}

const UNET_NAMES: readonly [RegExp, string][] = [
  [/^unet\./, ''],
  [/^to_time_embed\.1\./, 'time_embedding.linear_1.'],
  [/^to_time_embed\.3\./, 'time_embedding.linear_2.'],
  [/^in_layer\./, 'conv_in.'],
  [/^out_layer\.0\./, 'conv_norm_out.'],
  [/^out_layer\.2\./, 'conv_out.'],
  [/^down_samples\./, 'down_blocks.'],
  [/^up_samples\./, 'up_blocks.'],
  [/^feature_pooling\./, 'add_time_condition.'],
  [/\bself_attention_block\./, 'attentions.0.'],
  [/\bresnet_attn_blocks\.(\d+)\.0\./, 'resnets_in.$1.'],
  [/\bresnet_attn_blocks\.(\d+)\.2\./, 'resnets_out.$1.'],
  [/\bto_query\./, 'to_q.'],
  [/\bto_key\./, 'to_k.'],
  [/\bto_value\./, 'to_v.'],
  [/\boutput_layer\./, 'to_out.0.'],
]

function unetName(name: string): string {
  const renamed = UNET_NAMES.reduce((current, [pattern, by]) => current.replace(pattern, by), name)
  return renamed.replace(/\bresnet_attn_blocks\.(\d+)\.1\./, (_, index) => `attentions.${Number(index) + 1}.`)
}

async function openMovq(path: string): Promise<Component> {
  const stored = await readTorch(path)
  const levels = new Sizes(stored, path).count(/^decoder\.up\.(\d+)\./)
  const tensors = stored.map((tensor) => {
    const name = movqName(tensor.name, levels)
    // Kernels of 1 x 1 that are matrices since.
    const { shape } = tensor
    const isMatrix = /\.to_(q|k|v|out\.0)\.weight$/.test(name) && shape.length === 4 && shape[2] === 1 && shape[3] === 1
    if (!isMatrix) return { ...tensor, name }
    return { ...tensor, name, shape: shape.slice(0, 2), ...(tensor.stride && { stride: tensor.stride.slice(0, 2) }) }
  })
  const sizes = new Sizes(tensors, path)
  const types = (side: string, plain: string, kind: string) =>
    Array.from({ length: levels }, (_, i) =>
      tensors.some(({ name }) => name.startsWith(`${side}_blocks.${i}.attentions.`)) ? `Attn${kind}` : plain,
    )
  const config: Config = {
    in_channels: sizes.of('encoder.conv_in.weight', 1),
    out_channels: sizes.of('decoder.conv_out.weight', 0),
    latent_channels: sizes.of('encoder.conv_out.weight', 0),
    vq_embed_dim: sizes.of('quant_conv.weight', 0),
    block_out_channels: Array.from({ length: levels }, (_, i) =>
      sizes.of(`encoder.down_blocks.${i}.resnets.0.conv1.weight`, 0),
    ),
    layers_per_block: sizes.count(/^encoder\.down_blocks\.0\.resnets\.(\d+)\./),
    down_block_types: types('encoder.down', 'DownEncoderBlock2D', 'DownEncoderBlock2D'),
    up_block_types: types('decoder.up', 'UpDecoderBlock2D', 'UpDecoderBlock2D'),
    norm_num_groups: NORM_GROUPS,
    norm_type: 'spatial',
  }
  return { name: 'movq', className: 'VQModel', config, tensors }
}

/** The decoder's levels are counted from the picture on; diffusers counts them from the latents on. */
function movqName(name: string, levels: number): string {
  const isEncoder = name.startsWith('encoder.')
  return name
    .replace(/\bdown\.(\d+)\./, 'down_blocks.$1.')
    .replace(/\bup\.(\d+)\./, (_, level) => `up_blocks.${levels - 1 - Number(level)}.`)
    .replace(/\bmid\.block_(\d)\./, (_, block) => `mid_block.resnets.${Number(block) - 1}.`)
    .replace(/\bmid\.attn_1\./, 'mid_block.attentions.0.')
    .replace(/\bblock\.(\d+)\./, 'resnets.$1.')
    .replace(/\battn\.(\d+)\./, 'attentions.$1.')
    .replace(/\bnin_shortcut\./, 'conv_shortcut.')
    .replace(/\bdownsample\./, 'downsamplers.0.')
    .replace(/\bupsample\./, 'upsamplers.0.')
    .replace(/\bnorm_out\./, 'conv_norm_out.')
    .replace(/(\battentions\.\d+\.)(q|k|v)\./, '$1to_$2.')
    .replace(/(\battentions\.\d+\.)proj_out\./, '$1to_out.0.')
    .replace(/(\battentions\.\d+\.)norm\./, `$1${isEncoder ? 'group_norm' : 'spatial_norm'}.`)
    .replace(isEncoder ? /\bnorm_layer\./ : /^$/, '')
}

/** Sizes that the shapes of tensors tell. */
class Sizes {
  readonly #shapes: ReadonlyMap<string, readonly number[]>

  constructor(
    tensors: readonly StoredTensor[],
    private readonly path: string,
  ) {
    this.#shapes = new Map(tensors.map(({ name, shape }) => [name, shape]))
  }

  of(name: string, dimension: number): number {
    const size = this.#shapes.get(name)?.[dimension]
    if (size === undefined) throw badFile(this.path, `has no tensor ${name} of ${dimension + 1} or more dimensions`)
    return size
  }

  /** How many numbers, from 0 on, a pattern's group takes. */
  count(pattern: RegExp): number {
    const found = new Set<string>()
    for (const name of this.#shapes.keys()) {
      const index = pattern.exec(name)?.[1]
      if (index !== undefined) found.add(index)
    }
    if (found.size === 0) throw badFile(this.path, 'has other tensors than the published Kandinsky 3 models')
    return found.size
  }
}

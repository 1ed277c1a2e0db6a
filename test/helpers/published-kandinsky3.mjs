// The authors' files of Kandinsky 3, tiny, as scripts/reference/kandinsky3_published_cases.py had them.
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { Generator } from '../../dist/index.js'
import { checkpoint, fixtures } from './cases.mjs'
import { readSafetensors } from './safetensors.mjs'
import { op, pickle, torchFile } from './torch-zip.mjs'

const recorded = path.join(fixtures, 'extra', 'kandinsky3-published')
export const { files, cases } = JSON.parse(readFileSync(`${recorded}.json`, 'utf8'))
export const tensors = readSafetensors(`${recorded}.safetensors`)

/** The weights of a file, in the order of their seeds: [name, shape, values]. */
export function weights(file) {
  const { seed, tensors } = files[file]
  return tensors.map(([name, shape, factor, offset], i) => {
    const { data } = new Generator(seed + i).randn(shape)
    return [name, shape, data.map((value) => Math.fround(value * factor) + offset)]
  })
}

/** A file of torch.save: dicts of [name, shape, values, strides (default: row-major)], or of such dicts. */
export function torchSave(entries) {
  const storages = {}
  const dict = (list) =>
    op.dict(
      ...list.flatMap(([name, shape, values, strides]) => {
        if (values === undefined) return [op.text(name), dict(shape)]
        const key = String(Object.keys(storages).length)
        storages[key] = Buffer.from(values.buffer, values.byteOffset, values.byteLength)
        const stride = strides ?? shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1))
        return [op.text(name), op.tensor({ key, count: values.length, shape, stride })]
      }),
    )
  return torchFile(pickle(dict(entries)), { storages })
}

/** Writes the folder as the authors publish it: `weights` with all three UNets. @returns its path */
export function writePublished(folder, suffixes = ['', '_flash', '_inpainting']) {
  const inside = path.join(folder, 'weights')
  const text = path.join(inside, 'flan_ul2_encoder')
  mkdirSync(text, { recursive: true })
  for (const part of ['text_encoder', 'tokenizer'])
    for (const file of readdirSync(path.join(checkpoint('kandinsky-3'), part)))
      cpSync(path.join(checkpoint('kandinsky-3'), part, file), path.join(text, file))
  writeFileSync(path.join(inside, 'movq.pt'), torchSave(weights('movq.pt')))
  for (const suffix of suffixes) {
    const unet = weights(`kandinsky3${suffix}.pt`)
    const [[name, shape, values]] = weights(`null_embedding${suffix}`)
    const all = torchSave([
      ['unet', unet],
      [name, shape, values],
    ])
    writeFileSync(path.join(inside, `kandinsky3${suffix}.pt`), all)
    writeFileSync(path.join(text, `projection${suffix}.pt`), torchSave(weights(`projection${suffix}.pt`)))
  }
  return folder
}

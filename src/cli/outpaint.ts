// `kandinsky generate --outpaint`: how much room around the picture.
import { maxSide } from '../pipelines/call/options.js'
import type { OutpaintOptions } from '../pipelines/outpaint.js'
import { type Invocation, textOption, UsageError } from './options.js'

export type Room = Pick<OutpaintOptions, (typeof sides)[number]>

const sides = ['left', 'right', 'top', 'bottom'] as const

/**
 * `left=128,right=64`, or one number for every side.
 * @throws UsageError for anything else, and beside flags that say the same in another way
 */
export function parseRoom(values: Invocation['values']): Room | undefined {
  const text = textOption(values, 'outpaint')
  if (text === undefined) return undefined
  if (values.image === undefined) throw new UsageError('--outpaint needs --image, the picture to paint around')
  for (const flag of ['mask', 'hint', 'width', 'height'])
    if (values[flag] !== undefined) throw new UsageError(`--outpaint and --${flag} exclude each other`)
  const wrong = () =>
    new UsageError(`expected pixels such as 128, or left=128,right=64, for --outpaint but received ${text}`)
  const pixels = (digits: string | undefined) => {
    if (digits === undefined || !/^\d{1,5}$/.test(digits) || Number(digits) > maxSide) throw wrong()
    return Number(digits)
  }
  if (!text.includes('=')) return Object.fromEntries(sides.map((side) => [side, pixels(text)]))
  const room: Room = {}
  for (const part of text.split(',')) {
    const [name, digits, ...rest] = part.split('=').map((word) => word.trim())
    const side = sides.find((side) => side === name)
    if (side === undefined || side in room || rest.length > 0) throw wrong()
    room[side] = pixels(digits)
  }
  return room
}

// Builders of zip archives and pickles, byte by byte, so that tests can break every rule of both.

/** A pickle of protocol 2 from instructions (see `op`), each a Buffer, a string of Latin-1 bytes or a list of these. */
export function pickle(...instructions) {
  return Buffer.concat([Buffer.from([0x80, 2]), ...instructions.flat(9).map(toBytes), Buffer.from('.')])
}

function toBytes(part) {
  return typeof part === 'string' ? Buffer.from(part, 'latin1') : part
}

function uint(value, bytes) {
  const buffer = Buffer.alloc(bytes)
  buffer.writeUIntLE(value, 0, bytes)
  return buffer
}

export const op = {
  text: (value) => ['X', uint(Buffer.byteLength(value), 4), Buffer.from(value)],
  int: (value) => {
    const buffer = Buffer.alloc(4)
    buffer.writeInt32LE(value)
    return ['J', buffer]
  },
  long: (value) => {
    const buffer = Buffer.alloc(8)
    buffer.writeBigInt64LE(BigInt(value))
    return ['\x8a\x08', buffer]
  },
  global: (module, name) => `c${module}\n${name}\n`,
  tuple: (...items) => ['(', ...items, 't'],
  dict: (...items) => ['}(', ...items, 'u'],
  call: (callable, ...args) => [callable, '(', ...args, 'tR'],
  storage: (type, key, count) => [
    op.tuple(op.text('storage'), op.global('torch', type), op.text(key), op.text('cpu'), op.long(count)),
    'Q',
  ],
  /** _rebuild_tensor_v2 of a float32 storage; every part can be replaced */
  tensor: ({ type = 'FloatStorage', key = '0', count = 4, offset = 0, shape = [4], stride = [1] } = {}) =>
    op.call(
      op.global('torch._utils', '_rebuild_tensor_v2'),
      op.storage(type, key, count),
      op.long(offset),
      op.tuple(...shape.map(op.long)),
      op.tuple(...stride.map(op.long)),
      '\x89',
      op.call(op.global('collections', 'OrderedDict')),
    ),
}

/**
 * A zip archive of stored entries [{ name, data, method?, flags?, at? }]; `at` makes the directory point at another
 * entry's header, `bytes` overrides the directory's sizes. `zip64` moves sizes and offsets to 64-bit fields.
 */
export function zip(entries, { zip64 = false } = {}) {
  const locals = []
  const offsets = []
  let position = 0
  for (const { name, data } of entries) {
    // As torch: sizes left to the directory (flag 8), and an extra field that pads the data.
    const header = Buffer.concat([uint(0x04034b50, 4), Buffer.alloc(22), uint(name.length, 2), uint(5, 2)])
    const local = Buffer.concat([header, Buffer.from(name), Buffer.from('FB\x01\x00Z', 'latin1'), data])
    offsets.push(position)
    locals.push(local)
    position += local.length
  }
  const central = entries.map(({ name, data, method = 0, flags = 8, at, bytes = data.length }, i) =>
    centralHeader({ name, method, flags, bytes, offset: offsets[at ?? i], zip64 }),
  )
  const directory = Buffer.concat(central)
  const end = { entries: entries.length, bytes: directory.length, offset: position }
  return Buffer.concat([
    ...locals,
    directory,
    ...(zip64 ? [end64(end, position + directory.length)] : []),
    end32(end, zip64),
  ])
}

function centralHeader({ name, method, flags, bytes, offset, zip64 }) {
  const extra = zip64
    ? Buffer.concat([uint(1, 2), uint(24, 2), uint64(bytes), uint64(bytes), uint64(offset)])
    : Buffer.alloc(0)
  const size = zip64 ? 0xffffffff : bytes
  return Buffer.concat([
    ...[uint(0x02014b50, 4), uint(45, 2), uint(45, 2), uint(flags, 2), uint(method, 2), Buffer.alloc(8)],
    ...[uint(size, 4), uint(size, 4), uint(name.length, 2), uint(extra.length, 2), Buffer.alloc(10)],
    ...[uint(zip64 ? 0xffffffff : offset, 4), Buffer.from(name), extra],
  ])
}

function end32({ entries, bytes, offset }, zip64) {
  const [n, size, at] = zip64 ? [0xffff, 0xffffffff, 0xffffffff] : [entries, bytes, offset]
  return Buffer.concat([
    uint(0x06054b50, 4),
    Buffer.alloc(4),
    uint(n, 2),
    uint(n, 2),
    uint(size, 4),
    uint(at, 4),
    uint(0, 2),
  ])
}

function end64({ entries, bytes, offset }, position) {
  return Buffer.concat([
    ...[
      uint(0x06064b50, 4),
      uint64(44),
      Buffer.alloc(12),
      uint64(entries),
      uint64(entries),
      uint64(bytes),
      uint64(offset),
    ],
    ...[uint(0x07064b50, 4), Buffer.alloc(4), uint64(position), uint(1, 4)],
  ])
}

function uint64(value) {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64LE(BigInt(value))
  return buffer
}

/** A torch.save archive around a pickle, with storage "0" of 16 bytes unless told otherwise. */
export function torchFile(description, { storages = { 0: Buffer.alloc(16) }, byteorder = 'little', options } = {}) {
  return zip(
    [
      { name: 'archive/data.pkl', data: description },
      { name: 'archive/byteorder', data: Buffer.from(byteorder) },
      ...Object.entries(storages).map(([key, data]) => ({ name: `archive/data/${key}`, data })),
      { name: 'archive/version', data: Buffer.from('3\n') },
    ],
    options,
  )
}

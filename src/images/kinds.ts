// Pictures that are recognised only to be refused by name.

const ADVICE = 'save it as PNG or JPEG first'

/** Pictures' first bytes, in base64. */
const BASE64_PICTURE = /^(iVBORw0KGgo|\/9j\/|UklGR|R0lGOD|Qk)[\w+/=\s-]*$/
const SHORTEST_BASE64 = 200
/** The longest path that Linux takes. */
const MAX_PATH = 4096

/** What an unsupported picture is called, judged by its bytes; undefined for everything else. */
export function unsupportedKind(bytes: Buffer): string | undefined {
  if (bytes.length > 26 && bytes.toString('latin1', 0, 2) === 'BM' && bytes.readUInt32LE(14) <= 124)
    return `a BMP picture, which is not supported; ${ADVICE}`
  const brand = bytes.toString('latin1', 4, 12)
  if (/^ftyp(hei[cxms]|hev[cxms]|mif1|msf1)/.test(brand) && !bytes.subarray(16, 64).includes('avif'))
    return `a HEIC picture, which is not supported; ${ADVICE}`
  return undefined
}

/** True for the base64 of a picture, and for anything else too long to name a file. */
export function isNoPath(text: string): boolean {
  return text.length > MAX_PATH || (text.length >= SHORTEST_BASE64 && BASE64_PICTURE.test(text))
}

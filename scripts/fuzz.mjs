// npm run fuzz -- [--seconds N] [--count N] [--seed N] [--keep] [target ...]
//
// Hostile inputs for everything that reads bytes: the readers in TypeScript (fuzz-readers.mjs) and, where clang is installed, the
// native ones (fuzz-native.mjs). Each target, or each that is named, gets N seconds (10) and at most N inputs; `--keep` adds
// what reached new native code to its corpus. What is found lies in build/findings, and the exit status is 1.
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { stop } from './cmake.mjs'
import { fuzzNative, natives } from './fuzz-native.mjs'
import { fuzzReader, readers } from './fuzz-readers.mjs'

const { values, positionals } = parseArgs({
  options: {
    seconds: { type: 'string', default: '10' },
    count: { type: 'string' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 32) },
    keep: { type: 'boolean', default: false },
  },
  allowPositionals: true,
})
const all = [...readers, ...natives]
for (const name of positionals) if (!all.includes(name)) stop(`expected some of ${all.join(', ')} but received ${name}`)
const whole = (name, value) => {
  const number = Number(value)
  if (!Number.isInteger(number) || number < 1)
    stop(`expected a whole number from 1 for --${name} but received ${value}`)
  return number
}
const options = {
  seconds: whole('seconds', values.seconds),
  count: values.count === undefined ? Infinity : whole('count', values.count),
  seed: Number(values.seed),
  keep: values.keep,
  findings: path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', 'build', 'findings'),
}

const isWanted = (name) => positionals.length === 0 || positionals.includes(name)
const found = []
console.log(`seed ${options.seed}`)
for (const name of readers.filter(isWanted)) {
  const { inputs, accepted, found: problems } = await fuzzReader(name, options)
  console.log(`${name}: ${inputs} inputs, ${accepted} accepted, ${problems} findings`)
  if (problems > 0) found.push(name)
}
const wantedNatives = natives.filter(isWanted)
if (wantedNatives.length > 0 && spawnSync('clang++', ['--version']).status !== 0) {
  if (positionals.length > 0) stop('the native targets need clang (Debian: clang)')
  console.log(`${wantedNatives.join(', ')}: left out, as clang is not installed`)
} else for (const name of wantedNatives) if (!fuzzNative(name, options)) found.push(name)
if (found.length > 0) stop(`found something in ${found.join(', ')}; the inputs are in build/findings`)

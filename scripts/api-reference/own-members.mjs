// A plugin of TypeDoc. What the package's modules share among themselves is left out. A class repeats what it inherits only
// from a class of this package that is not exported, so that nobody is sent to a class that is not there; options have all
// of theirs in one table.
import { Converter, ReflectionKind } from 'typedoc'

const own = 'node-kandinsky'

const inner = new Set([
  'constructor', // objects come from fromPretrained, which is a method
  'parts',
  'side',
  'optionNames',
  'components',
  'check',
  'checkCall',
  'checkDecoding',
  'run',
  'fromCheckpoint',
  'fromFiles',
  '[asyncDispose]',
])
/** classes that callers make themselves */
const made = new Set(['Generator', 'KandinskyError', 'RawImage', 'Tensor'])

export function load(app) {
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    const all = Object.values(project.reflections)
    const classes = new Set(all.filter(({ kind }) => kind === ReflectionKind.Class).map(({ name }) => name))
    // What an exported class declares that others inherit by way of classes that are not.
    const shared = new Set(
      all
        .filter(({ parent }) => parent?.kind === ReflectionKind.Class && parent.flags.isAbstract)
        .map(({ name }) => name),
    )
    for (const reflection of all) {
      const { parent, name, inheritedFrom: from } = reflection
      if (parent?.kind !== ReflectionKind.Class) continue
      const isInner = inner.has(name) && !made.has(parent.name)
      const isElsewhere =
        from && (classes.has(from.name.split(/[.<]/)[0]) || (from.package ?? own) !== own || shared.has(name))
      if (isInner || isElsewhere) project.removeReflection(reflection)
    }
  })
}

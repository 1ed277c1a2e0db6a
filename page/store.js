// Pictures of the gallery stay in this browser (IndexedDB) until they are removed, and jobs until they are over.

const NAME = 'kandinsky'
/** the oldest leave first */
const MAX = 200

const promised = (wish) =>
  new Promise((resolve, reject) => {
    wish.onsuccess = () => resolve(wish.result)
    wish.onerror = () => reject(wish.error)
  })

let database
async function store(mode, name = 'pictures') {
  database ??= await (() => {
    const opening = indexedDB.open(NAME, 1)
    opening.onupgradeneeded = () => {
      for (const kind of ['pictures', 'jobs']) opening.result.createObjectStore(kind, { keyPath: 'id' })
    }
    return promised(opening)
  })()
  return database.transaction(name, mode).objectStore(name)
}

/**
 * Newest first; none where the browser keeps nothing, as in private windows.
 * @param {'pictures' | 'jobs'} [name]
 */
export async function load(name) {
  try {
    const all = await promised((await store('readonly', name)).getAll())
    all.sort((a, b) => b.made - a.made)
    for (const { id } of all.slice(MAX)) await remove(id, name)
    return all.slice(0, MAX)
  } catch {
    return []
  }
}

export async function save(entry, name) {
  try {
    await promised((await store('readwrite', name)).put(entry))
  } catch {
    // It is in the page all the same.
  }
}

export async function remove(id, name) {
  try {
    await promised((await store('readwrite', name)).delete(id))
  } catch {
    // as above
  }
}

// Pictures of the gallery stay in this browser (IndexedDB) until they are removed.

const NAME = 'kandinsky'
/** the oldest leave first */
const MAX = 200

const promised = (wish) =>
  new Promise((resolve, reject) => {
    wish.onsuccess = () => resolve(wish.result)
    wish.onerror = () => reject(wish.error)
  })

let database
async function pictures(mode) {
  database ??= await (() => {
    const opening = indexedDB.open(NAME, 1)
    opening.onupgradeneeded = () => opening.result.createObjectStore('pictures', { keyPath: 'id' })
    return promised(opening)
  })()
  return database.transaction('pictures', mode).objectStore('pictures')
}

/** Newest first; none where the browser keeps nothing, as in private windows. */
export async function load() {
  try {
    const all = await promised((await pictures('readonly')).getAll())
    all.sort((a, b) => b.made - a.made)
    for (const { id } of all.slice(MAX)) await remove(id)
    return all.slice(0, MAX)
  } catch {
    return []
  }
}

export async function save(entry) {
  try {
    await promised((await pictures('readwrite')).put(entry))
  } catch {
    // It is in the page all the same.
  }
}

export async function remove(id) {
  try {
    await promised((await pictures('readwrite')).delete(id))
  } catch {
    // as above
  }
}

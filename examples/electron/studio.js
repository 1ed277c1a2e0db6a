// What the application can do, without a window: draws, one picture after the other, in a process of its own.
import { createWorker, loadImage } from 'node-kandinsky'

export class Studio {
  #worker
  #model
  #pipelines = new Map()
  #running = new Map()

  /** @param {string} model a path, a hub id, or 'demo' */
  constructor(model = 'demo') {
    this.#model = model
    this.#worker = createWorker()
  }

  /**
   * @param {{ id: number, prompt: string, steps?: number, strength?: number, picture?: Uint8Array }} request `picture` is a
   *   file's bytes to start from
   * @param {(step: { id: number, step: number, steps: number, preview?: object }) => void} onStep `preview` has RGB pixels
   * @returns {Promise<{ id: number, png?: Uint8Array, error?: string, cancelled?: boolean }>} never rejects
   */
  async draw({ id, prompt, steps = 20, strength = 0.6, picture }, onStep) {
    const cancel = new AbortController()
    this.#running.set(id, cancel)
    try {
      const options = { prompt, numInferenceSteps: steps, preview: true, signal: cancel.signal }
      const pipe = await this.#pipeline(picture ? 'AutoPipelineForImage2Image' : 'AutoPipelineForText2Image')
      const given = picture ? { ...options, image: await loadImage(picture), strength } : options
      for await (const event of pipe.stream(given)) {
        if (event.type === 'result') return { id, png: await event.images[0].toBuffer('png') }
        const { stage, step, steps: all, preview } = event
        if (stage === 'decoder') onStep({ id, step, steps: all, preview: preview && pixels(preview[0]) })
      }
    } catch (error) {
      return cancel.signal.aborted ? { id, cancelled: true } : { id, error: error.message }
    } finally {
      this.#running.delete(id)
    }
  }

  cancel(id) {
    this.#running.get(id)?.abort()
  }

  async close() {
    await this.#worker.dispose()
  }

  /** Loaded once, on first need; a failure is tried again the next time. */
  #pipeline(name) {
    const known = this.#pipelines.get(name)
    if (known) return known
    const loading = this.#worker[name].fromPretrained(this.#model)
    this.#pipelines.set(name, loading)
    loading.catch(() => this.#pipelines.delete(name))
    return loading
  }
}

/** Only plain values pass the bridge to the page. */
function pixels({ data, width, height }) {
  return { data, width, height }
}

// What was made last, by what it was made from: the same prompt with another seed does not read its text again.

/** A prompt's states take some megabytes. */
const KEPT = 8

/** The most recent results; what is got from here is not to be changed. */
export class Recent<Result> {
  readonly #results = new Map<string, Result>()

  /**
   * The result for these inputs, remembered or made. What fails is not remembered.
   * @param inputs all that decides about the result, as JSON can hold it; undefined if that is not possible
   */
  async get(inputs: unknown, make: () => Promise<Result>): Promise<Result> {
    if (inputs === undefined) return make()
    const key = JSON.stringify(inputs)
    const result = this.#results.get(key) ?? (await make())
    this.#results.delete(key)
    this.#results.set(key, result)
    if (this.#results.size > KEPT) this.#results.delete(this.#results.keys().next().value!)
    return result
  }

  clear(): void {
    this.#results.clear()
  }
}

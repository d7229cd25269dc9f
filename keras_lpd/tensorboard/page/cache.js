/** Keeps what was fetched, the least recently used of it only while there is room. */
export class Cache {
  /** @type {Map<string, {run: string, value: unknown, bytes: number}>} */
  #entries = new Map();
  #bytes = 0;
  #limit;

  /** @param {number} limit in bytes; the newest entry stays even if it has more */
  constructor(limit) {
    this.#limit = limit;
  }

  /** Where an entry of a run lies. No run's name can be taken for another's. */
  static key(run, tag, step) {
    return JSON.stringify([run, tag, step]);
  }

  get(key) {
    const entry = this.#entries.get(key);
    if (!entry) {
      return undefined;
    }
    // A Map is ordered by insertion: what was used last goes to the end.
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.value;
  }

  set(key, run, value, bytes) {
    this.#remove(key);
    this.#entries.set(key, { run, value, bytes });
    this.#bytes += bytes;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#limit || oldest === key) {
        break;
      }
      this.#remove(oldest);
    }
  }

  /** Forgets a run, as when it was trained anew in the same folder. */
  forget(run) {
    for (const [key, entry] of [...this.#entries]) {
      if (entry.run === run) {
        this.#remove(key);
      }
    }
  }

  #remove(key) {
    const entry = this.#entries.get(key);
    if (entry) {
      this.#entries.delete(key);
      this.#bytes -= entry.bytes;
    }
  }
}

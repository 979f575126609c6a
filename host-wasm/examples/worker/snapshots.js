const KEY = "cache";
/** What KV takes as one value is 25 MiB. */
const SIZE_LIMIT = 24 << 20;
/** KV keeps nothing for less than this. */
const KEEP_LEAST_S = 60;
/** How long the first requests of an isolate may wait for the snapshot. */
export const RESTORE_LIMIT_MS = 2000;

/**
 * Snapshots of the cache in Workers KV, so that it survives its isolate: the names of topics as a line of JSON, and what
 * `Cache.snapshot` gives. All isolates write the same key, and the last one wins. No fault of KV fails a request.
 */
export class Snapshots {
  #store;
  #intervalMs;
  #savedAt = 0;
  #saving = false;

  /** @param {KVNamespace | undefined} store none where the platform has none @param {number} intervalMs between two of them */
  constructor(store, intervalMs) {
    this.#store = store;
    this.#intervalMs = intervalMs;
  }

  async restore(cache, names) {
    // The next one is written when the interval has passed from here on.
    this.#savedAt = Date.now();
    if (!this.#store) return;
    try {
      const stored = await this.#store.get(KEY, "arrayBuffer");
      if (stored === null) return;
      const bytes = new Uint8Array(stored);
      const end = bytes.indexOf(10);
      if (end < 0) throw new Error("it has no end of its first line");
      names.restore(JSON.parse(new TextDecoder().decode(bytes.subarray(0, end))));
      const { batches } = cache.restore(bytes.subarray(end + 1));
      console.log(`restored ${batches} batches`);
    } catch (error) {
      console.warn(`the snapshot cannot be restored: ${error.message}`);
    }
  }

  /** Whether there is one to write. */
  isDue() {
    return this.#store !== undefined && !this.#saving && Date.now() - this.#savedAt >= this.#intervalMs;
  }

  async save(cache, names, maxStaleness) {
    this.#saving = true;
    this.#savedAt = Date.now();
    try {
      const head = new TextEncoder().encode(`${JSON.stringify(names.entries())}\n`);
      const snapshot = cache.snapshot({ sizeLimit: SIZE_LIMIT - head.length });
      const value = new Uint8Array(head.length + snapshot.length);
      value.set(head);
      value.set(snapshot, head.length);
      const seconds = Math.ceil(maxStaleness / 1000);
      const keep = Number.isFinite(seconds) ? { expirationTtl: Math.max(seconds, KEEP_LEAST_S) } : {};
      await this.#store.put(KEY, value, keep);
    } catch (error) {
      console.warn(`the snapshot cannot be written: ${error.message}`);
    } finally {
      this.#saving = false;
    }
  }
}

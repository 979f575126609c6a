/** How long the gateway may take to answer, in milliseconds. */
const LIMIT_MS = 15_000;

/** The gateway cannot be asked; what is cached may still be read. */
export class Unreachable extends Error {}

/** A Kachet gateway, read from a page of another origin: start it with `--cors-origin`. */
export class Gateway {
  #url;
  #headers;

  constructor(url, token) {
    this.#url = url.replace(/\/+$/, "");
    this.#headers = token === "" ? {} : { authorization: `Bearer ${token}` };
  }

  /** What the cache asks upstream by: Kafka's Fetch, without a length in front, both ways. */
  fetch = async (request, { signal }) => {
    const headers = { ...this.#headers, "content-type": "application/vnd.kafka.fetch" };
    const response = await this.#ask("/v1/fetch", { method: "POST", body: request, headers, signal });
    return response.arrayBuffer();
  };

  /** Names of topics that begin like this. */
  async topics(prefix) {
    const { topics } = await this.#json(`/v1/topics?count=200&prefix=${encodeURIComponent(prefix)}`);
    return topics.map(({ name }) => name);
  }

  /** The id that a topic has now. */
  async topicId(name) {
    const { id } = await this.#json(`/v1/topics/${encodeURIComponent(name)}`);
    if (id === null) throw new Error("the brokers tell no topic ids: they are older than Kafka 3.1");
    return id;
  }

  /** The first offset of a log, and the one behind its last. */
  async bounds(topic, partition) {
    const told = await this.#json(`/v1/topics/${encodeURIComponent(topic)}/${partition}`);
    return { start: BigInt(told.log_start_offset), end: BigInt(told.end_offset) };
  }

  async #json(path) {
    const headers = { ...this.#headers, accept: "application/json" };
    return (await this.#ask(path, { headers, signal: AbortSignal.timeout(LIMIT_MS) })).json();
  }

  async #ask(path, init) {
    let response;
    try {
      response = await fetch(`${this.#url}${path}`, init);
    } catch (error) {
      if (init.signal.aborted) throw new Unreachable("The gateway did not answer in time.");
      throw new Unreachable(
        `There is no answer from ${this.#url}. Does the gateway run, and was it started with --cors-origin ${location.origin}?`,
        { cause: error },
      );
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    throw new Error(`The gateway says: ${problem.detail ?? problem.title ?? `status ${response.status}`}`);
  }
}

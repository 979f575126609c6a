import { Problem } from "./problem.js";

/** How long an answer in JSON may be, in bytes. */
const JSON_LIMIT = 1 << 20;
/** For how many topics it is remembered what ids their names stand for. */
const NAMES_LIMIT = 1000;
const JSON_TIMEOUT_MS = 10_000;

/** The Kachet gateway that this Worker reads through. */
export class Gateway {
  #url;
  #headers;
  #responseLimit;

  /**
   * @param {string} url such as `https://gateway.example.org`
   * @param {string | undefined} token one of its `--bearer-token-file`
   * @param {number} responseLimit how long an answer to a fetch may be, in bytes
   */
  constructor(url, token, responseLimit) {
    this.#url = url.replace(/\/+$/, "");
    this.#responseLimit = responseLimit;
    this.#headers = token ? { authorization: `Bearer ${token}` } : {};
  }

  /** Kafka's own Fetch: frames without a length in front, both ways. An {@link import("kachet").Upstream}. */
  fetch = async (request, { signal }) => {
    const headers = { ...this.#headers, "content-type": "application/vnd.kafka.fetch" };
    const response = await this.#ask("/v1/fetch", { method: "POST", body: request, headers, signal });
    return read(response, this.#responseLimit);
  };

  /** The id that a topic has now. */
  async topicId(name) {
    const { id } = await this.#json(`/v1/topics/${encodeURIComponent(name)}`);
    if (typeof id !== "string") {
      throw new Problem(502, "upstream-error", "the brokers tell no topic ids: they are older than Kafka 3.1");
    }
    return id;
  }

  /** From which offset to which, not included, a log reaches. */
  async bounds(topic, partition) {
    const told = await this.#json(`/v1/topics/${encodeURIComponent(topic)}/${partition}`);
    return { log_start_offset: told.log_start_offset, end_offset: told.end_offset };
  }

  /** What the gateway itself answers to a path. For the case that the cache has failed. */
  relay(path, headers) {
    return this.#send(path, { headers: { ...headers, ...this.#headers } });
  }

  async #json(path) {
    const signal = AbortSignal.timeout(JSON_TIMEOUT_MS);
    const response = await this.#ask(path, { headers: { ...this.#headers, accept: "application/json" }, signal });
    const body = await read(response, JSON_LIMIT);
    try {
      return JSON.parse(new TextDecoder().decode(body));
    } catch {
      throw new Problem(502, "upstream-error", `the gateway's answer to ${path} is no JSON`);
    }
  }

  async #ask(path, init) {
    const response = await this.#send(path, init);
    if (!response.ok) throw await problemOf(response);
    return response;
  }

  async #send(path, init) {
    try {
      return await fetch(`${this.#url}${path}`, { redirect: "manual", ...init });
    } catch (error) {
      throw unreachable(error);
    }
  }
}

/** A body of so many bytes at most. */
async function read(response, limit) {
  const chunks = [];
  let size = 0;
  try {
    for await (const chunk of response.body ?? []) {
      size += chunk.length;
      if (size > limit) throw new Problem(502, "upstream-error", `the gateway's answer is longer than ${limit} bytes`);
      chunks.push(chunk);
    }
  } catch (error) {
    throw error instanceof Problem ? error : unreachable(error);
  }
  const body = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    body.set(chunk, at);
    at += chunk.length;
  }
  return body;
}

function unreachable(error) {
  if (error?.name === "TimeoutError" || error?.code === "UPSTREAM_TIMEOUT") {
    return new Problem(504, "upstream-timed-out", "the gateway did not answer in time");
  }
  // What exactly is wrong names addresses, which are none of a client's business.
  console.warn(`the gateway cannot be reached: ${error?.message ?? error}`);
  return new Problem(503, "upstream-down", "the gateway cannot be reached, and this is not cached");
}

/** The gateway's own problem where it concerns the client; else what it means for this Worker. */
async function problemOf(response) {
  const told = await read(response, JSON_LIMIT).then((body) => JSON.parse(new TextDecoder().decode(body))).catch(() => ({}));
  const { type: _type, title: _title, status = response.status, code, detail, ...more } = told ?? {};
  if (status === 401 || status === 403 || status === 421) {
    return new Problem(502, "upstream-refuses", `the gateway refuses this Worker: ${code ?? status}`);
  }
  if (typeof code !== "string") {
    return new Problem(502, "upstream-error", `the gateway answered with status ${response.status}`);
  }
  return new Problem(status, code, String(detail ?? code), more);
}

/**
 * What ids the names of topics stand for. A topic that is deleted and created again has another id, so each is asked for
 * again once it is older than the bound of staleness.
 */
export class TopicNames {
  #known = new Map();
  #asked = new Map();
  #maxStaleness;
  #onChange;

  /** @param {number} maxStaleness in milliseconds @param {(id: string) => void} onChange hears of ids that no longer hold */
  constructor(maxStaleness, onChange) {
    this.#maxStaleness = maxStaleness;
    this.#onChange = onChange;
  }

  /** The id of a topic. Whoever asks while it is asked for waits for that answer. */
  async idOf(name, gateway) {
    const known = this.#known.get(name);
    const now = Date.now();
    if (known && known.at <= now && now - known.at < this.#maxStaleness) return known.id;
    const underWay = this.#asked.get(name);
    if (underWay) return underWay;
    const asked = this.#ask(name, gateway, now).finally(() => this.#asked.delete(name));
    this.#asked.set(name, asked);
    return asked;
  }

  async #ask(name, gateway, now) {
    try {
      const id = await gateway.topicId(name);
      this.confirm(name, id, now);
      return id;
    } catch (error) {
      if (error.code === "no-such-topic") this.forget(name);
      throw error;
    }
  }

  /** Takes note that a topic had this id at a moment: it was told, or a fetch of the id has succeeded. */
  confirm(name, id, at) {
    const known = this.#known.get(name);
    if (known?.id === id) at = Math.max(at, known.at);
    else if (known) this.#onChange(known.id);
    this.#known.delete(name);
    this.#known.set(name, { id, at });
    if (this.#known.size > NAMES_LIMIT) this.#known.delete(this.#known.keys().next().value);
  }

  /** Forgets a topic, and has what is cached of it dropped. */
  forget(name) {
    const known = this.#known.get(name);
    this.#known.delete(name);
    if (known) this.#onChange(known.id);
  }

  /** For a snapshot. */
  entries() {
    return [...this.#known].map(([name, { id, at }]) => [name, id, at]);
  }

  /** From a snapshot; what has been asked for since is newer. */
  restore(entries) {
    for (const [name, id, at] of entries) {
      if (!this.#known.has(name)) this.confirm(name, id, at);
    }
  }
}

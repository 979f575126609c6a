import { monotonic } from "./clock.js";
import { KachetError, invalid } from "./errors.js";
import { Flights, until } from "./flights.js";
import { RawCache, RawPlan, request as rawRequest } from "./kachet_wasm.js";
import { call, memory, works } from "./module.js";
import { type KafkaRecord, type Records, readBlock } from "./records.js";
import { type Offset, type TopicId, halves, offset, whole } from "./topic.js";

/** Settings of a {@link Cache}. */
export interface CacheOptions {
  /** The most that the cache holds, in bytes, its index included. 0 passes every fetch through. 16 MiB by default. */
  sizeLimit?: number;
  /**
   * How old an answer of upstream may be when it is served, in milliseconds; `Infinity` serves what is cached without ever
   * asking. One second by default. What is cached of a partition is dropped as a whole when the oldest answer among it is
   * older, because only a fetch tells this cache what a broker still serves.
   */
  maxStaleness?: number;
  /** How large segments become, in bytes; a 256th of the limit and a mebibyte at most by default. */
  segmentSize?: number;
  /** The longest response that is taken from upstream, in bytes; 64 MiB by default. */
  responseLimit?: number;
  /** The most that a batch may expand to when records are read from it, in bytes; 32 MiB by default. */
  decompressedLimit?: number;
  /** The id of the cluster upstream. Snapshots of another one are refused. */
  clusterId?: string;
  /** How long upstream may take to answer, in milliseconds; 30 seconds by default. */
  upstreamTimeout?: number;
  /** How many fetches go upstream at a time; 64 by default. Others wait. */
  fetchLimit?: number;
  /** How many may wait; 1024 by default. What comes then is refused with `TOO_MANY_FETCHES`. */
  waitingLimit?: number;
  /** A clock in milliseconds that never goes back, instead of the platform's own. */
  clock?: () => number;
}

/**
 * Asks upstream: takes the bytes of a Kafka Fetch request without the length in front (header and body) and gives those of
 * the response, likewise. `signal` aborts when the cache has given up waiting.
 */
export type Upstream = (
  request: Uint8Array,
  context: { signal: AbortSignal },
) => Promise<Uint8Array | ArrayBuffer> | Uint8Array | ArrayBuffer;

/** A partition that the cache answers. */
export interface CachedPart {
  /** The topic's id, as a UUID. */
  topic: string;
  /** The partition. */
  partition: number;
  /** The offset that was asked for. */
  offset: bigint;
  /** From the first offset of the first batch to the last of the last; `null` where nothing fits the request's limits. */
  span: Span | null;
  /** Bytes of batches. */
  size: number;
}

/** Offsets from the first to the last, both included. */
export interface Span {
  first: bigint;
  last: bigint;
}

/** What is cached of a partition, whatever its age. */
export interface Covered {
  /** The topic's id, as a UUID. */
  topic: string;
  /** The partition. */
  partition: number;
  /** The offsets, in ascending order. */
  spans: Span[];
}

/** Where to read records. */
export interface Range {
  /** The topic. */
  topic: TopicId;
  /** The partition. */
  partition: number;
  /** The first offset. */
  offset: Offset;
  /** So many records at most; 1000 by default. */
  count?: number;
  /** So many bytes of keys, values and headers at most, and one record more; 16 MiB by default. */
  sizeLimit?: number;
  /** Whether to leave out what is not committed, and aborted transactions; false by default. */
  committed?: boolean;
}

/** What a request for one partition asks for. */
export interface RequestOptions {
  /** The version of Fetch, from 13 (Kafka 3.1) to 18; 13 by default. */
  version?: number;
  /** How many bytes of batches; one mebibyte by default. The first batch always comes whole. */
  maxBytes?: number;
  /** How many bytes the broker waits for; 1 by default. */
  minBytes?: number;
  /** How long it waits, in milliseconds; not at all by default. */
  maxWait?: number;
}

/** What to drop. */
export interface Invalidation {
  /** The topic; everything if there is none. */
  topic?: TopicId;
  /** The partition; all of the topic if there is none. */
  partition?: number;
  /** Only batches that end before this offset. */
  below?: Offset;
}

/** The figures of a cache, by the names that they have in every output of Kachet. */
export type Statistics = Record<
  | "size_bytes"
  | "limit_bytes"
  | "effective_limit_bytes"
  | "unwritten_bytes"
  | "batches"
  | "partitions"
  | "segments"
  | "lookups"
  | "hits"
  | "misses"
  | "inserts"
  | "evictions"
  | "rejected"
  | "errors"
  | "storage_errors"
  | "storage_paused"
  | "upstream_fetches"
  | "bytes_saved",
  number
> & {
  /** What the module's memory takes, in bytes, of all caches together. It grows and never shrinks. */
  memory_bytes: number;
};

interface Landed {
  /** What upstream answered. */
  response: Uint8Array;
  correlationId: number;
  /** The whole answer of whoever asked, if that is another one. */
  merged: Uint8Array | undefined;
}

const MEBI = 1 << 20;
const U32_MAX = 0xffff_ffff;
const I32_MAX = 0x7fff_ffff;
const VERSION = 13;
/** The longest delay that timers know. */
const TIMEOUT_MAX = I32_MAX;

/** A read-through cache of the Fetch responses of one Kafka cluster. */
export class Cache {
  readonly #raw: RawCache;
  readonly #now: () => number;
  readonly #maxStaleness: number;
  readonly #upstreamTimeout: number;
  readonly #flights: Flights<Landed>;
  readonly #names: string[];
  /** How many others wait for a flight, so that each gets bytes of its own. */
  readonly #joined = new WeakSet<Promise<Landed>>();

  constructor(options: CacheOptions = {}) {
    const maxStaleness = options.maxStaleness ?? 1000;
    if (!(maxStaleness >= 0)) throw invalid(`maxStaleness: ${maxStaleness} is no time in milliseconds`);
    const sizeLimit = whole(options.sizeLimit ?? 16 * MEBI, "sizeLimit", 0, U32_MAX);
    const segmentSize =
      options.segmentSize === undefined ? undefined : whole(options.segmentSize, "segmentSize", 1, U32_MAX);
    const responseLimit = whole(options.responseLimit ?? 64 * MEBI, "responseLimit", 1, I32_MAX);
    const decompressedLimit = whole(options.decompressedLimit ?? 32 * MEBI, "decompressedLimit", 1, I32_MAX);
    this.#upstreamTimeout = whole(options.upstreamTimeout ?? 30_000, "upstreamTimeout", 1, TIMEOUT_MAX);
    this.#flights = new Flights(
      whole(options.fetchLimit ?? 64, "fetchLimit", 1, I32_MAX),
      whole(options.waitingLimit ?? 1024, "waitingLimit", 0, I32_MAX),
    );
    this.#now = options.clock ?? monotonic();
    this.#maxStaleness = maxStaleness;
    this.#raw = call(
      () =>
        new RawCache(
          BigInt(sizeLimit),
          maxStaleness,
          segmentSize,
          responseLimit,
          decompressedLimit,
          options.clusterId,
        ),
    );
    this.#names = call(() => this.#raw.statistic_names()).split(",");
  }

  /**
   * What is cached of a Fetch request, and which bytes to ask upstream. Hand the answer to {@link absorb}.
   *
   * @param request A Kafka Fetch request without the length in front: header and body.
   */
  plan(request: Uint8Array): Plan {
    return new Plan(call(() => this.#raw.plan_whole(request, this.#now())));
  }

  /** Keeps what upstream answered to {@link Plan.upstream}, and gives the whole answer. Uses the plan up. */
  absorb(plan: Plan, response: Uint8Array): Uint8Array {
    const raw = plan.take();
    return call(() => this.#raw.absorb(raw, response, this.#now())) ?? response;
  }

  /**
   * Answers a Fetch request out of the cache, asking upstream for what is not cached. Requests for the same that come
   * meanwhile share the answer, and its failure. A fetch that has begun is finished and kept although `signal` aborts.
   *
   * @param request A Kafka Fetch request without the length in front: header and body.
   * @returns The response, likewise.
   */
  async fetch(request: Uint8Array, upstream: Upstream, options: { signal?: AbortSignal } = {}): Promise<Uint8Array> {
    const { signal } = options;
    signal?.throwIfAborted();
    try {
      return await this.#fetch(request, upstream, signal);
    } catch (error) {
      if (!(error instanceof KachetError && error.code === "TRAPPED")) throw error;
      // No fault of the cache fails a fetch that upstream could serve.
      return until(this.#ask(request, upstream), signal);
    }
  }

  async #fetch(request: Uint8Array, upstream: Upstream, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const now = this.#now();
    const answer = call(() => this.#raw.plan(request, now));
    if (answer !== undefined) return answer;
    const plan = call(() => this.#raw.pending())!;
    const rest = call(() => plan.upstream());
    if (!plan.is_cacheable()) {
      plan.free();
      return until(
        this.#flights.begin(null, now, async () => this.#alone(await this.#ask(rest, upstream))),
        signal,
      ).then((landed) => landed.response);
    }
    const key = keyOf(plan.version(), rest, plan.header_bytes());
    const underWay = this.#flights.find(key, now - this.#maxStaleness);
    if (underWay !== undefined) {
      this.#joined.add(underWay);
      return this.#share(plan, await until(underWay, signal).catch((error: unknown) => freed(plan, error)));
    }
    const flight = this.#flights.begin(key, now, () => this.#fly(plan, rest, upstream));
    const { response, merged } = await until(flight, signal);
    return merged ?? (this.#joined.has(flight) ? response.slice() : response);
  }

  #alone(response: Uint8Array): Landed {
    return { response, correlationId: 0, merged: undefined };
  }

  async #fly(plan: RawPlan, rest: Uint8Array, upstream: Upstream): Promise<Landed> {
    const correlationId = plan.correlation_id();
    let absorbed = false;
    const absorb = (response: Uint8Array): Landed => {
      absorbed = true;
      const merged = call(() => this.#raw.absorb(plan, response, this.#now()));
      return { response, correlationId, merged };
    };
    try {
      return await this.#ask(rest, upstream, absorb);
    } catch (error) {
      if (!absorbed && !(error instanceof KachetError && error.code === "UPSTREAM_TIMEOUT")) plan.free();
      throw error;
    }
  }

  /** Asks upstream, for as long as it may take. An answer that comes later is still kept. */
  #ask(request: Uint8Array, upstream: Upstream): Promise<Uint8Array>;
  #ask<T>(request: Uint8Array, upstream: Upstream, then: (response: Uint8Array) => T): Promise<T>;
  #ask<T>(request: Uint8Array, upstream: Upstream, then?: (response: Uint8Array) => T): Promise<T | Uint8Array> {
    const controller = new AbortController();
    const limit = this.#upstreamTimeout;
    const timer = setTimeout(() => {
      controller.abort(new KachetError("UPSTREAM_TIMEOUT", `upstream did not answer within ${limit} ms`));
    }, limit);
    if (works()) call(() => this.#raw.count_upstream_fetch());
    const answer = (async () => {
      const response = bytesOf(await upstream(request, { signal: controller.signal }));
      return then === undefined ? response : then(response);
    })();
    // Where it comes too late, nobody else hears of its failure.
    answer.catch(() => {});
    return until(answer, controller.signal).finally(() => clearTimeout(timer));
  }

  /** The answer of one who has waited for the flight of another. */
  #share(plan: RawPlan, landed: Landed): Uint8Array {
    if (!plan.is_all_upstream()) {
      return call(() => this.#raw.merge_shared(plan, landed.response, landed.correlationId));
    }
    const response = landed.response.slice();
    new DataView(response.buffer).setInt32(0, plan.correlation_id());
    plan.free();
    return response;
  }

  /** A Fetch request for one partition, as {@link fetch} takes it. */
  static request(range: Range, options: RequestOptions = {}): Uint8Array {
    const [high, low] = halves(range.topic);
    const partition = whole(range.partition, "partition", 0, I32_MAX);
    const from = offset(range.offset);
    const version = whole(options.version ?? VERSION, "version", 13, 18);
    const maxBytes = whole(options.maxBytes ?? MEBI, "maxBytes", 0, I32_MAX);
    const minBytes = whole(options.minBytes ?? 1, "minBytes", 0, I32_MAX);
    const maxWait = whole(options.maxWait ?? 0, "maxWait", 0, I32_MAX);
    return call(() =>
      rawRequest(version, high, low, partition, from, maxBytes, minBytes, maxWait, range.committed ?? false),
    );
  }

  /**
   * The record at an offset, if it is cached.
   *
   * @returns `undefined` if it is not cached, `null` if it is known that there is no record at that offset: the cleaner has
   * taken it, or a transaction's marker stands there.
   */
  record(
    topic: TopicId,
    partition: number,
    at: Offset,
    options: { committed?: boolean } = {},
  ): KafkaRecord | null | undefined {
    const range = { topic, partition, offset: at, count: 1, ...options };
    const found = this.records(range);
    return found && exactly(found, at);
  }

  /** The cached records from an offset on, up to the first that is not cached; `undefined` if the first one is not. */
  records(range: Range): Records | undefined {
    const [high, low] = halves(range.topic);
    const partition = whole(range.partition, "partition", 0, I32_MAX);
    const from = offset(range.offset);
    const { count, sizeLimit } = limits(range);
    const committed = range.committed ?? false;
    const block = call(() => this.#raw.records(high, low, partition, from, count, sizeLimit, committed, this.#now()));
    return block === 0 ? undefined : this.#lent(block);
  }

  /** Copies what the module lends, and gives it back. */
  #lent(block: number): Records {
    let next = -1n;
    let records: KafkaRecord[];
    try {
      records = readBlock(memory(), block);
    } finally {
      next = call(() => this.#raw.release());
    }
    return { records, next: next < 0n ? null : next };
  }

  /** The records from an offset on: those that are cached, or else those of one fetch. */
  async fetchRecords(
    range: Range,
    upstream: Upstream,
    options: RequestOptions & { signal?: AbortSignal } = {},
  ): Promise<Records> {
    options.signal?.throwIfAborted();
    const cached = works() ? this.records(range) : undefined;
    if (cached !== undefined) return cached;
    const response = await this.fetch(Cache.request(range, options), upstream, options);
    return this.decode(response, range, options.version);
  }

  /** The record at an offset, from the cache or else upstream; `null` if there is none. */
  async fetchRecord(
    topic: TopicId,
    partition: number,
    at: Offset,
    upstream: Upstream,
    options: RequestOptions & { committed?: boolean; signal?: AbortSignal } = {},
  ): Promise<KafkaRecord | null> {
    const { committed = false, ...rest } = options;
    const range = { topic, partition, offset: at, count: 1, committed };
    return exactly(await this.fetchRecords(range, upstream, rest), at);
  }

  /** The records of the response to {@link request}, from the range's offset on. Checksums are verified. */
  decode(response: Uint8Array, range: Range, version = VERSION): Records {
    const [high, low] = halves(range.topic);
    const partition = whole(range.partition, "partition", 0, I32_MAX);
    const from = offset(range.offset);
    const { count, sizeLimit } = limits(range);
    return this.#lent(call(() => this.#raw.decode(response, version, 0, high, low, partition, from, count, sizeLimit)));
  }

  /** The cached batch that holds an offset, or the next one behind a gap, to the byte as the broker sent it. */
  batch(topic: TopicId, partition: number, at: Offset): Uint8Array | undefined {
    return this.batchView(topic, partition, at)?.slice();
  }

  /**
   * Like {@link batch}, without a copy: a view of the module's memory. It is right until the next call of any method of any
   * cache; afterwards it shows other bytes or none.
   */
  batchView(topic: TopicId, partition: number, at: Offset): Uint8Array | undefined {
    const [high, low] = halves(topic);
    const index = whole(partition, "partition", 0, I32_MAX);
    const from = offset(at);
    const address = call(() => this.#raw.batch(high, low, index, from, this.#now()));
    if (address === 0) return undefined;
    return new Uint8Array(memory(), address, this.#raw.view_bytes());
  }

  /** The figures of this moment. */
  stats(): Statistics {
    const values = call(() => this.#raw.statistics());
    const named = this.#names.map((name, at): [string, number] => [name, values[at]!]);
    return { ...Object.fromEntries(named), memory_bytes: memory().byteLength } as Statistics;
  }

  /** What is cached, whatever its age, in order of topic ids and partitions. */
  covered(): Covered[] {
    type Found = { topic: string; partition: number; spans: [string, string][] };
    const found = JSON.parse(call(() => this.#raw.covered())) as Found[];
    return found.map(({ spans, ...rest }) => ({ ...rest, spans: spans.map(spanOf) }));
  }

  /** Drops everything, or what is named. What comes of it from then on is cached again. */
  invalidate(what: Invalidation = {}): void {
    const { topic, partition, below } = what;
    if (topic === undefined) {
      if (partition !== undefined || below !== undefined) throw invalid("topic: is needed with a partition");
      return call(() => this.#raw.invalidate());
    }
    const [high, low] = halves(topic);
    if (partition === undefined) {
      if (below !== undefined) throw invalid("partition: is needed with an offset");
      return call(() => this.#raw.invalidate_topic(high, low));
    }
    const index = whole(partition, "partition", 0, I32_MAX);
    if (below === undefined) return call(() => this.#raw.invalidate_partition(high, low, index));
    const end = offset(below, "below");
    return call(() => this.#raw.invalidate_below(high, low, index, end));
  }

  /** Changes the size limit, in bytes; a lower one takes effect at once. */
  setSizeLimit(sizeLimit: number): void {
    const limit = BigInt(whole(sizeLimit, "sizeLimit", 0, U32_MAX));
    call(() => this.#raw.set_size_limit(limit));
  }

  /**
   * The cache as bytes for {@link restore}. Only what may still be served is in it, with its age by the wall clock.
   *
   * @param options.sizeLimit How long it may become, in bytes; what does not fit is left out.
   */
  snapshot(options: { sizeLimit?: number } = {}): Uint8Array {
    const limit = options.sizeLimit ?? Infinity;
    const pieces: Uint8Array[] = [];
    let size = 0;
    const cursor = call(() => this.#raw.begin_snapshot());
    try {
      for (;;) {
        const piece = call(() => this.#raw.next_of_snapshot(cursor, this.#now(), Date.now()));
        if (piece === undefined || size + piece.length > limit) break;
        pieces.push(piece);
        size += piece.length;
      }
    } finally {
      if (works()) cursor.free();
    }
    const snapshot = new Uint8Array(size);
    let at = 0;
    for (const piece of pieces) {
      snapshot.set(piece, at);
      at += piece.length;
    }
    return snapshot;
  }

  /**
   * Takes a snapshot over. What has become older than the bound meanwhile is left out, and so is what claims to be from the
   * future; with a bound of `Infinity` everything is served. Parts in front of a damaged one are kept.
   */
  restore(snapshot: Uint8Array): { batches: number; staleParts: number } {
    const restored = { batches: 0, staleParts: 0 };
    const view = new DataView(snapshot.buffer, snapshot.byteOffset, snapshot.byteLength);
    let at = call(() => this.#raw.restore_head(snapshot.subarray(0, 64 * 1024)));
    while (at < snapshot.length) {
      const end = at + 4 <= snapshot.length ? at + 4 + view.getUint32(at) : Infinity;
      if (end > snapshot.length) throw new KachetError("MALFORMED_SNAPSHOT", "this is no whole snapshot: it is cut off");
      const part = snapshot.subarray(at, end);
      const batches = call(() => this.#raw.restore_part(part, this.#now(), Date.now()));
      if (batches < 0) restored.staleParts += 1;
      else restored.batches += batches;
      at = end;
    }
    return restored;
  }

  /** Gives the memory back to the module, for its next cache. The cache cannot be used afterwards. */
  free(): void {
    if (works()) this.#raw.free();
  }
}

/** What came of a Fetch request. */
export class Plan {
  /** The request to send upstream, without the length in front; `null` if everything is cached. */
  readonly upstream: Uint8Array | null;
  /** The answer if everything is cached, without the length in front; else `null`. */
  readonly response: Uint8Array | null;
  /** Which partitions the cache answers. */
  readonly cached: CachedPart[];
  #raw: RawPlan | undefined;

  /** @internal */
  constructor(raw: RawPlan) {
    type Found = { topic: string; partition: number; offset: string; size_bytes: number; span?: [string, string] };
    const found = JSON.parse(call(() => raw.cached())) as Found[];
    this.cached = found.map(({ topic, partition, offset: at, size_bytes: size, span }) => {
      return { topic, partition, offset: BigInt(at), span: span === undefined ? null : spanOf(span), size };
    });
    if (raw.needs_upstream()) {
      this.upstream = call(() => raw.upstream());
      this.response = null;
      this.#raw = raw;
    } else {
      this.upstream = null;
      this.response = call(() => raw.into_response());
    }
  }

  /** @internal */
  take(): RawPlan {
    const raw = this.#raw;
    this.#raw = undefined;
    if (raw === undefined) throw new KachetError("PLAN_SPENT", "the plan was absorbed or freed, or needs no upstream");
    return raw;
  }

  /** Lets go of what it holds of the cache, if it is not going to be absorbed. */
  free(): void {
    const raw = this.#raw;
    this.#raw = undefined;
    if (works()) raw?.free();
  }
}

function freed(plan: RawPlan, error: unknown): never {
  if (works()) plan.free();
  throw error;
}

function bytesOf(response: Uint8Array | ArrayBuffer): Uint8Array {
  if (response instanceof Uint8Array) return response;
  if (response instanceof ArrayBuffer) return new Uint8Array(response);
  throw new KachetError("MALFORMED_RESPONSE", "upstream gave something else than a Uint8Array or an ArrayBuffer");
}

/** The version and the body: requests are the same whoever sends them. */
function keyOf(version: number, request: Uint8Array, headerBytes: number): string {
  let key = `${version}:`;
  for (let at = headerBytes; at < request.length; at += 4096) {
    key += String.fromCharCode(...request.subarray(at, at + 4096));
  }
  return key;
}

function limits(range: Range): { count: number; sizeLimit: number } {
  return {
    count: whole(range.count ?? 1000, "count", 1, I32_MAX),
    sizeLimit: whole(range.sizeLimit ?? 16 * MEBI, "sizeLimit", 1, I32_MAX),
  };
}

function exactly({ records }: Records, at: Offset): KafkaRecord | null {
  const [record] = records;
  return record !== undefined && record.offset === BigInt(at) ? record : null;
}

function spanOf([first, last]: [string, string]): Span {
  return { first: BigInt(first), last: BigInt(last) };
}

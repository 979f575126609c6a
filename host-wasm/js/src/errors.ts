/** What went wrong, for programs. */
export type ErrorCode =
  /** The module is not there yet: `await init()` first (browsers and bundlers). */
  | "NOT_INITIALISED"
  /** An argument makes no sense; the message says which and why. */
  | "INVALID_ARGUMENT"
  /** The bytes are no Fetch request of version 4 to 18. */
  | "MALFORMED_REQUEST"
  /** The request is of another API than Fetch. */
  | "NOT_A_FETCH"
  /** What upstream answered is no Fetch response. */
  | "MALFORMED_RESPONSE"
  /** What upstream answered belongs to another request. */
  | "CORRELATION_MISMATCH"
  /** A request or a response is longer than allowed, see {@link CacheOptions.responseLimit}. */
  | "TOO_LONG"
  /** A record batch is not what Kafka writes. */
  | "MALFORMED_BATCH"
  /** A message is from before Kafka 0.11; such pass through and are never read here. */
  | "LEGACY_FORMAT"
  /** A batch cannot be decompressed, or expands to more than {@link CacheOptions.decompressedLimit}. */
  | "CODEC"
  /** The broker gave an error in the place of records; {@link KachetError.brokerErrorCode} has Kafka's code. */
  | "BROKER"
  /** The bytes are no snapshot, or a damaged one. */
  | "MALFORMED_SNAPSHOT"
  /** The snapshot is of another version of this package. */
  | "SNAPSHOT_VERSION"
  /** The snapshot is of another cluster. */
  | "SNAPSHOT_CLUSTER"
  /** A plan was absorbed or freed already. */
  | "PLAN_SPENT"
  /** Upstream did not answer within {@link CacheOptions.upstreamTimeout}. */
  | "UPSTREAM_TIMEOUT"
  /** More fetches wait for upstream than {@link CacheOptions.waitingLimit} allows. */
  | "TOO_MANY_FETCHES"
  /** The module ran out of memory or met a defect. No cache of it works any more; `fetch` goes on asking upstream. */
  | "TRAPPED";

/** An error of the cache. What an upstream callback throws passes through as it is. */
export class KachetError extends Error {
  /** What went wrong, for programs. */
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "KachetError";
    this.code = code;
  }

  /** Kafka's code of the error where {@link code} is `BROKER`, such as 1 for an offset out of range. */
  get brokerErrorCode(): number | undefined {
    const found = this.code === "BROKER" ? /error (-?\d+)$/.exec(this.message) : null;
    return found === null ? undefined : Number(found[1]);
  }
}

/** An argument makes no sense. */
export function invalid(message: string): KachetError {
  return new KachetError("INVALID_ARGUMENT", message);
}

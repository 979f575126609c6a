export { Cache, Plan } from "./cache.js";
export type {
  CacheOptions,
  CachedPart,
  Covered,
  Invalidation,
  Range,
  RequestOptions,
  Span,
  Statistics,
  Upstream,
} from "./cache.js";
export { KachetError, type ErrorCode } from "./errors.js";
export type { Header, KafkaRecord, Records } from "./records.js";
export type { Offset, TopicId } from "./topic.js";

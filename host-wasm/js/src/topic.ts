import { invalid } from "./errors.js";

/**
 * A topic's id: a UUID with or without hyphens, the 22 characters by which Kafka's own tools print it, or its 16 bytes.
 * A topic that is deleted and created again under the same name has another id, so a name would not say which is meant.
 */
export type TopicId = string | Uint8Array;

/** The two halves of a topic id. */
export type Halves = readonly [high: bigint, low: bigint];

/** Ids that were read lately, because reading one takes longer than a lookup. */
const known = new Map<string, Halves>();
const KNOWN_LIMIT = 1024;

/** Reads a topic id. */
export function halves(id: TopicId): Halves {
  if (typeof id !== "string") return ofBytes(id);
  const found = known.get(id);
  if (found !== undefined) return found;
  const read = ofText(id);
  if (known.size >= KNOWN_LIMIT) known.clear();
  known.set(id, read);
  return read;
}

function ofText(id: string): Halves {
  if (/^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i.test(id)) {
    return nonZero(BigInt(`0x${id.replaceAll("-", "")}`), id);
  }
  if (/^[\w-]{21}[AQgw]$/.test(id)) {
    const text = atob(id.replaceAll("-", "+").replaceAll("_", "/"));
    return ofBytes(Uint8Array.from(text, (character) => character.charCodeAt(0)));
  }
  throw invalid(`topic: "${id}" is no topic id (a UUID, or 22 characters as Kafka's tools print it)`);
}

function ofBytes(id: Uint8Array): Halves {
  if (id.length !== 16) throw invalid(`topic: an id has 16 bytes, this one ${id.length}`);
  let bits = 0n;
  for (const byte of id) bits = (bits << 8n) | BigInt(byte);
  return nonZero(bits, "the id");
}

/** Zero stands for no id, and makes brokers fall silent when asked for it. */
function nonZero(bits: bigint, name: string): Halves {
  if (bits === 0n) throw invalid(`topic: ${name} is zero, which stands for no topic`);
  return [bits >> 64n, bits & 0xffff_ffff_ffff_ffffn];
}

/** An offset: a `bigint`, or a number that is exact. */
export type Offset = bigint | number;

/** Reads an offset of a partition. */
export function offset(value: Offset, name = "offset"): bigint {
  if (typeof value === "bigint" ? value < 0n || value >> 63n !== 0n : !Number.isSafeInteger(value) || value < 0) {
    throw invalid(`${name}: ${value} is no offset`);
  }
  return BigInt(value);
}

/** Reads a whole number within a range. */
export function whole(value: number, name: string, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw invalid(`${name}: ${value} is not a whole number from ${least} to ${most}`);
  }
  return value;
}

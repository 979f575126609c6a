/** A header of a record. */
export interface Header {
  /** Its name. */
  key: string;
  /** Its value, or null. */
  value: Uint8Array | null;
}

/**
 * A record. Its bytes stay as they are whatever becomes of the cache. Those of records that were read together share one buffer,
 * which lives as long as any of them: `slice()` what is kept for long out of much.
 */
export interface KafkaRecord {
  /** Its offset in the partition. */
  offset: bigint;
  /** Its time, in milliseconds since 1970; of a topic that uses the time of the append, that. */
  timestamp: bigint;
  /** Its key, or null. */
  key: Uint8Array | null;
  /** Its value, or null (a tombstone). */
  value: Uint8Array | null;
  /** Its headers, in their order. */
  headers: Header[];
}

/** Of 32 bits, in front of the places of pieces. */
const LAYOUT_WORDS = 6;
/** Of 64 bits, as they stand in the tables. */
const RECORD_WORDS = 6;
const HEADER_WORDS = 2;
const NULL = -1;
const text = new TextDecoder();

/** Records that were read, and where to read on. */
export interface Records {
  /** In ascending order of offsets. */
  records: KafkaRecord[];
  /** The offset to go on from; `null` if there was nothing. */
  next: bigint | null;
}

/**
 * Reads what `Block::layout` of `host-wasm/records` says at an address of the module's memory, and copies the bytes out of there, once
 * for all of them: keys and values are views of the copy.
 */
export function readBlock(memory: ArrayBuffer, layoutAt: number): KafkaRecord[] {
  const layout = new Uint32Array(memory, layoutAt, LAYOUT_WORDS);
  const longs = new BigInt64Array(memory, layout[0], layout[1]);
  const words = new Int32Array(memory, layout[0], 2 * layout[1]!);
  const headers = new Int32Array(memory, layout[2], 2 * layout[3]!);
  const bytes = copied(memory, new Uint32Array(memory, layoutAt + 4 * LAYOUT_WORDS, 2 * layout[5]!), layout[4]!);
  const count = longs.length / RECORD_WORDS;
  const records = new Array<KafkaRecord>(count);
  for (let at = 0, word = 0; at < count; at += 1, word += RECORD_WORDS) {
    records[at] = {
      offset: longs[word]!,
      timestamp: longs[word + 1]!,
      key: place(bytes, words, 2 * word + 4),
      value: place(bytes, words, 2 * word + 6),
      headers: words[2 * word + 9] === 0 ? [] : headersOf(bytes, headers, words[2 * word + 8]!, words[2 * word + 9]!),
    };
  }
  return records;
}

/** The bytes of all pieces, one behind another; `pieces` has the address and the length of each. */
function copied(memory: ArrayBuffer, pieces: Uint32Array, size: number): ArrayBuffer {
  if (pieces.length === 2) return memory.slice(pieces[0]!, pieces[0]! + size);
  const bytes = new Uint8Array(size);
  for (let piece = 0, at = 0; piece < pieces.length; piece += 2) {
    bytes.set(new Uint8Array(memory, pieces[piece], pieces[piece + 1]), at);
    at += pieces[piece + 1]!;
  }
  return bytes.buffer;
}

function place(bytes: ArrayBuffer, words: Int32Array, at: number): Uint8Array | null {
  const length = words[at + 1]!;
  return length === NULL ? null : new Uint8Array(bytes, words[at]!, length);
}

function headersOf(bytes: ArrayBuffer, words: Int32Array, first: number, count: number): Header[] {
  const found: Header[] = [];
  for (let at = first; at < first + count; at += 1) {
    const key = place(bytes, words, 2 * HEADER_WORDS * at)!;
    found.push({ key: text.decode(key), value: place(bytes, words, 2 * HEADER_WORDS * at + 2) });
  }
  return found;
}

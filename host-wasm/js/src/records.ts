/** A header of a record. */
export interface Header {
  /** Its name. */
  key: string;
  /** Its value, or null. */
  value: Uint8Array | null;
}

/** A record. Its bytes are its own: they stay as they are whatever becomes of the cache. */
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

const TABLE_WORDS = 3;
const RECORD_WORDS = 6;
const NULL = -1;
const text = new TextDecoder();

/** Records that were read, and where to read on. */
export interface Records {
  /** In ascending order of offsets. */
  records: KafkaRecord[];
  /** The offset to go on from; `null` if there was nothing. */
  next: bigint | null;
}

/** Reads a block as `records.rs` lays it out. Keys and values are views of the block, which is copied nowhere. */
export function readBlock(block: Uint8Array): Records {
  const longs = new BigInt64Array(block.buffer, block.byteOffset, block.byteLength >> 3);
  const words = new Int32Array(block.buffer, block.byteOffset, block.byteLength >> 2);
  const count = words[0]!;
  const headersAt = TABLE_WORDS + count * RECORD_WORDS;
  const { buffer } = block;
  const bytesAt = block.byteOffset + (headersAt + words[2]! * 2) * 8;
  const place = (word: number): Uint8Array | null => {
    const length = words[2 * word + 1]!;
    if (length === NULL) return null;
    return new Uint8Array(buffer, bytesAt + words[2 * word]!, length);
  };
  const headers = (word: number): Header[] => {
    const length = words[2 * word + 1]!;
    const found: Header[] = [];
    for (let at = 0; at < length; at += 1) {
      const header = headersAt + 2 * (words[2 * word]! + at);
      found.push({ key: text.decode(place(header)!), value: place(header + 1) });
    }
    return found;
  };
  const records = new Array<KafkaRecord>(count);
  for (let at = 0; at < count; at += 1) {
    const word = TABLE_WORDS + at * RECORD_WORDS;
    records[at] = {
      offset: longs[word]!,
      timestamp: longs[word + 1]!,
      key: place(word + 2),
      value: place(word + 3),
      headers: headers(word + 4),
    };
  }
  const next = longs[2]!;
  return { records, next: next < 0n ? null : next };
}

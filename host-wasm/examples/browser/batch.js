const CODECS = ["none", "gzip", "snappy", "lz4", "zstd"];
const CODEC = 0b111;
const LOG_APPEND_TIME = 1 << 3;
const TRANSACTIONAL = 1 << 4;
const CONTROL = 1 << 5;
/** The header of a record batch of Kafka's format 2. */
const HEADER_BYTES = 61;

/** What the header of a record batch says. */
export function readBatch(bytes) {
  if (bytes.length < HEADER_BYTES) throw new RangeError(`a batch has ${HEADER_BYTES} bytes at least, not ${bytes.length}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const attributes = view.getInt16(21);
  const base = view.getBigInt64(0);
  return {
    base,
    last: base + BigInt(view.getInt32(23)),
    sizeBytes: bytes.length,
    leaderEpoch: view.getInt32(12),
    crc: view.getUint32(17),
    codec: CODECS[attributes & CODEC] ?? `codec ${attributes & CODEC}`,
    isLogAppendTime: (attributes & LOG_APPEND_TIME) !== 0,
    isTransactional: (attributes & TRANSACTIONAL) !== 0,
    isControl: (attributes & CONTROL) !== 0,
    firstTimestamp: view.getBigInt64(27),
    lastTimestamp: view.getBigInt64(35),
    producerId: view.getBigInt64(43),
    producerEpoch: view.getInt16(51),
    baseSequence: view.getInt32(53),
    count: view.getInt32(57),
  };
}

// Batches of format 2 and responses of version 13, made here: for what measures and wears, where no broker is to be had.
import { gzipSync } from "node:zlib";

export const topic = "00112233-4455-6677-8899-aabbccddeeff";

const table = new Uint32Array(256).map((_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = (value >>> 1) ^ (0x82f6_3b78 & -(value & 1));
  return value;
});
const crc32c = (bytes) => {
  let crc = 0xffff_ffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ table[(crc ^ byte) & 255];
  return (crc ^ 0xffff_ffff) >>> 0;
};
const varint = (value) => {
  let zigzag = value >= 0 ? value * 2 : -value * 2 - 1;
  const bytes = [];
  for (; zigzag >= 128; zigzag = Math.floor(zigzag / 128)) bytes.push((zigzag % 128) | 128);
  return Buffer.from([...bytes, zigzag]);
};

const sized = (text) => [varint(text.length), Buffer.from(text)];

/** A batch with `records` records of `size` bytes and so many headers. It says that it is compressed by `codec`. */
export function batch(base, { records, size, headers = 0, gzip = false, codec = gzip ? 1 : 0 }) {
  const listed = Array.from({ length: headers }, (_, at) => [...sized(`name-${at}`), ...sized(`value-${at}`)]).flat();
  const body = Buffer.concat(
    Array.from({ length: records }, (_, at) => {
      const key = Buffer.from(`key-${base + at}`);
      const value = Buffer.from(`value-${base + at}-`.padEnd(size, "abcdefghijklmnopqrstuvwxyz"));
      const record = Buffer.concat([Buffer.from([0]), varint(at), varint(at), varint(key.length), key, varint(value.length), value, varint(headers), ...listed]);
      return Buffer.concat([varint(record.length), record]);
    }),
  );
  const payload = gzip ? gzipSync(body) : body;
  const header = Buffer.alloc(61);
  header.writeBigInt64BE(BigInt(base), 0);
  header.writeInt32BE(49 + payload.length, 8);
  header.writeInt32BE(0, 12);
  header[16] = 2;
  header.writeInt16BE(codec, 21);
  header.writeInt32BE(records - 1, 23);
  header.writeBigInt64BE(1_700_000_000_000n, 27);
  header.writeBigInt64BE(1_700_000_000_000n, 35);
  header.writeBigInt64BE(-1n, 43);
  header.writeInt16BE(-1, 51);
  header.writeInt32BE(-1, 53);
  header.writeInt32BE(records, 57);
  const whole = Buffer.concat([header, payload]);
  whole.writeUInt32BE(crc32c(whole.subarray(21)), 17);
  return whole;
}

/** The response of version 13 that holds these batches. */
export function response(batches, highWatermark) {
  const data = Buffer.concat(batches);
  const unsigned = (value) => {
    const bytes = [];
    for (; value >= 128; value >>>= 7) bytes.push((value & 127) | 128);
    return Buffer.from([...bytes, value]);
  };
  const long = (value) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64BE(BigInt(value));
    return bytes;
  };
  const id = Buffer.from(topic.replaceAll("-", ""), "hex");
  return new Uint8Array(
    Buffer.concat([
      Buffer.from([0, 0, 0, 0, 0]),
      Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
      id,
      Buffer.from([2, 0, 0, 0, 0, 0, 0]),
      long(highWatermark),
      long(highWatermark),
      long(0),
      Buffer.from([0, 255, 255, 255, 255]),
      unsigned(data.length + 1),
      data,
      Buffer.from([0, 0, 0]),
    ]),
  );
}

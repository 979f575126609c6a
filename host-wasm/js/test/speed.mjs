// How long hits and decoding take, beside kafkajs's decoder on the same batches. `node speed.mjs`; the last numbers are ratios.
import { createRequire } from "node:module";
import { gzipSync } from "node:zlib";

import { Cache } from "kachet";

const require = createRequire(import.meta.url);
const topic = "00112233-4455-6677-8899-aabbccddeeff";
const records = Number(process.env.RECORDS ?? 100);
const size = Number(process.env.SIZE ?? 200);

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

/** A batch of format 2. */
function batch(base, gzip) {
  const body = Buffer.concat(
    Array.from({ length: records }, (_, at) => {
      const key = Buffer.from(`key-${base + at}`);
      const value = Buffer.from(`value-${base + at}-`.padEnd(size, "abcdefghijklmnopqrstuvwxyz"));
      const record = Buffer.concat([Buffer.from([0]), varint(at), varint(at), varint(key.length), key, varint(value.length), value, varint(0)]);
      return Buffer.concat([varint(record.length), record]);
    }),
  );
  const payload = gzip ? gzipSync(body) : body;
  const header = Buffer.alloc(61);
  header.writeBigInt64BE(BigInt(base), 0);
  header.writeInt32BE(49 + payload.length, 8);
  header.writeInt32BE(0, 12);
  header[16] = 2;
  header.writeInt16BE(gzip ? 1 : 0, 21);
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
function response(batches, highWatermark) {
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

async function median(rounds, body) {
  const times = [];
  for (let round = 0; round < rounds; round += 1) {
    const start = process.hrtime.bigint();
    await body();
    times.push(Number(process.hrtime.bigint() - start));
  }
  return times.sort((one, other) => one - other)[rounds >> 1];
}

const count = 64;
for (const gzip of [false, true]) {
  const batches = Array.from({ length: count }, (_, at) => batch(at * records, gzip));
  const cache = new Cache({ sizeLimit: 64 << 20, maxStaleness: Infinity });
  const plan = cache.plan(Cache.request({ topic, partition: 0, offset: 0 }, { maxBytes: 1 << 30 }));
  cache.absorb(plan, response(batches, count * records));
  if (cache.stats().batches !== count) throw new Error(`only ${cache.stats().batches} batches are cached`);

  const requests = batches.map((_, at) => Cache.request({ topic, partition: 0, offset: at * records }, { maxBytes: 1 }));
  const turns = 200;
  const each = (time) => time / (turns * count);
  const never = () => {
    throw new Error("upstream was asked");
  };
  const view = each(
    await median(9, () => {
      for (let turn = 0; turn < turns; turn += 1) for (let at = 0; at < count; at += 1) cache.batchView(topic, 0, at * records);
    }),
  );
  const copy = each(
    await median(9, () => {
      for (let turn = 0; turn < turns; turn += 1) for (let at = 0; at < count; at += 1) cache.batch(topic, 0, at * records);
    }),
  );
  const fetched = each(
    await median(9, async () => {
      for (let turn = 0; turn < turns; turn += 1) for (const request of requests) await cache.fetch(request, never);
    }),
  );

  const Decoder = require("kafkajs/src/protocol/decoder");
  const decodeBatch = require("kafkajs/src/protocol/recordBatch/v0/decoder");
  const all = count * records;
  let sum = 0;
  const theirs = await median(15, async () => {
    for (const bytes of batches) {
      const decoded = await decodeBatch(new Decoder(bytes));
      for (const record of decoded.records) sum += record.key.length + record.value.length;
    }
  });
  const ours = await median(15, () => {
    for (let at = 0; at < count; at += 1) {
      const decoded = cache.records({ topic, partition: 0, offset: at * records, count: records });
      for (const record of decoded.records) sum += record.key.length + record.value.length;
    }
  });
  if (sum === 0) throw new Error("nothing was decoded");
  const micro = (time) => `${(time / 1000).toFixed(2)} µs`;
  console.log(`${gzip ? "gzip" : "none"}: ${records} records of ${size} bytes a batch of ${batches[1].length} bytes`);
  console.log(`  hit of a batch: view ${micro(view)}, copy ${micro(copy)}, fetch of a frame ${micro(fetched)}`);
  console.log(`  a record: kafkajs ${micro(theirs / all)}, kachet ${micro(ours / all)}, ratio ${(theirs / ours).toFixed(2)}`);
}

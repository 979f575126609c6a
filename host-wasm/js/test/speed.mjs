// How long hits and decoding take, beside kafkajs's decoder on the same batches. `node speed.mjs`; the last numbers are ratios.
import { createRequire } from "node:module";

import { Cache } from "kachet";

import { batch, response, topic } from "./batches.mjs";

const require = createRequire(import.meta.url);
const records = Number(process.env.RECORDS ?? 100);
const size = Number(process.env.SIZE ?? 200);
const headers = Number(process.env.HEADERS ?? 0);

/** Nanoseconds of the quickest round: whatever else runs on the machine only makes others longer. */
async function quickest(rounds, body) {
  let best = Infinity;
  for (let round = 0; round < rounds; round += 1) {
    const start = process.hrtime.bigint();
    await body();
    best = Math.min(best, Number(process.hrtime.bigint() - start));
  }
  return best;
}

const count = 64;
for (const gzip of [false, true]) {
  const batches = Array.from({ length: count }, (_, at) => batch(at * records, { records, size, headers, gzip }));
  const cache = new Cache({ sizeLimit: 64 << 20, maxStaleness: Infinity });
  const plan = cache.plan(Cache.request({ topic, partition: 0, offset: 0 }, { maxBytes: 1 << 30 }));
  cache.absorb(plan, response(batches, count * records));
  if (cache.stats().batches !== count) throw new Error(`only ${cache.stats().batches} batches are cached`);

  const requests = batches.map((_, at) => Cache.request({ topic, partition: 0, offset: at * records }, { maxBytes: 1 }));
  const turns = 50;
  const each = (time) => time / (turns * count);
  const never = () => {
    throw new Error("upstream was asked");
  };
  const view = each(
    await quickest(21, () => {
      for (let turn = 0; turn < turns; turn += 1) for (let at = 0; at < count; at += 1) cache.batchView(topic, 0, at * records);
    }),
  );
  const copy = each(
    await quickest(21, () => {
      for (let turn = 0; turn < turns; turn += 1) for (let at = 0; at < count; at += 1) cache.batch(topic, 0, at * records);
    }),
  );
  const fetched = each(
    await quickest(21, async () => {
      for (let turn = 0; turn < turns; turn += 1) for (const request of requests) await cache.fetch(request, never);
    }),
  );

  const Decoder = require("kafkajs/src/protocol/decoder");
  const decodeBatch = require("kafkajs/src/protocol/recordBatch/v0/decoder");
  const all = count * records;
  let sum = 0;
  // Whoever reads records looks at every part of each, whichever class it is of.
  const take = (taken, headerBytes) => {
    let offset, timestamp;
    for (const record of taken) {
      if (record.offset !== offset) sum += 1;
      if (record.timestamp !== timestamp) sum += 1;
      ({ offset, timestamp } = record);
      sum += record.key.length + record.value.length + headerBytes(record.headers);
    }
  };
  const inObject = (headers) => {
    let bytes = 0;
    for (const name in headers) bytes += name.length + headers[name].length;
    return bytes;
  };
  const inArray = (headers) => {
    let bytes = 0;
    for (const { key, value } of headers) bytes += key.length + value.length;
    return bytes;
  };
  const theirs = await quickest(40, async () => {
    for (const bytes of batches) take((await decodeBatch(new Decoder(bytes))).records, inObject);
  });
  const theirSum = sum;
  sum = 0;
  const ours = await quickest(40, () => {
    for (let at = 0; at < count; at += 1) {
      take(cache.records({ topic, partition: 0, offset: at * records, count: records }).records, inArray);
    }
  });
  if (sum === 0 || sum !== theirSum) throw new Error(`read ${sum} here, ${theirSum} there`);
  const micro = (time) => `${(time / 1000).toFixed(2)} µs`;
  console.log(`${gzip ? "gzip" : "none"}: ${records} records of ${size} bytes a batch of ${batches[1].length} bytes`);
  console.log(`  hit of a batch: view ${micro(view)}, copy ${micro(copy)}, fetch of a frame ${micro(fetched)}`);
  console.log(`  a record: kafkajs ${micro(theirs / all)}, kachet ${micro(ours / all)}, ratio ${(theirs / ours).toFixed(2)}`);
}

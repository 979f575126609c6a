// Absorbs batches and has them evicted, again and again, and fails if the module's memory grows on the way. The end is one
// JSON object. `CYCLES=1000000 node soak.mjs`.
import { Cache } from "kachet";

import { batch, response, topic } from "./batches.mjs";

const cycles = Number(process.env.CYCLES ?? 60_000);
const sizeLimit = 1 << 20;
/** Where a response of version 13 names its first partition: behind the header, the topic's id and two counts. */
const PARTITION_AT = 33;
const PAGE_BYTES = 65_536;
/** By then every order of sizes has been in the cache, and gone: what the allocator leaves between them is at its most. */
const settled = Math.min(Math.floor(cycles / 2), 100_000);
/** Batches from a hundred bytes to a third of a segment and more, in no order of sizes; some are larger than a segment. */
const shapes = Array.from({ length: 97 }, (_, at) => ({ records: 1 + ((at * 31) % 13), size: 20 + ((at * 7919) % 900) }));
/** Responses whose batch begins at offset 0. */
const responses = shapes.map((shape) => {
  const bytes = batch(0, shape);
  const whole = response([bytes], 2 ** 50);
  return { whole, baseAt: whole.length - 3 - bytes.length, records: shape.records, bytes: bytes.length };
});

const cache = new Cache({ sizeLimit, maxStaleness: Infinity });
const started = process.hrtime.bigint();
/** When the memory grew, and to what. */
const growth = [];
let absorbed = 0;
let wrong = 0;
let at = 0n;
for (let cycle = 0; cycle < cycles; cycle += 1) {
  const { whole, baseAt, records, bytes } = responses[(cycle * 53) % responses.length];
  const request = { topic, partition: cycle % 7, offset: at };
  const view = new DataView(whole.buffer, whole.byteOffset);
  view.setInt32(PARTITION_AT, request.partition);
  // The offset is not part of what the checksum covers.
  view.setBigInt64(baseAt, at);
  const plan = cache.plan(Cache.request(request));
  cache.absorb(plan, whole);
  absorbed += bytes;
  if (cycle % 1000 === 999) {
    const kept = cache.batchView(topic, request.partition, at);
    if (kept === undefined || kept.length !== bytes || kept.some((byte, index) => byte !== whole[baseAt + index])) wrong += 1;
    if (cache.stats().size_bytes > sizeLimit) throw new Error(`${cache.stats().size_bytes} bytes are held after ${cycle} cycles`);
  }
  const now = cycle % 100 === 0 ? cache.stats().memory_bytes : 0;
  if (now > (growth.at(-1)?.memory_bytes ?? 0)) growth.push({ cycle, memory_bytes: now });
  at += BigInt(records);
}
const { memory_bytes, evictions, inserts, size_bytes, errors } = cache.stats();
const seconds = Number(process.hrtime.bigint() - started) / 1e9;
console.log(JSON.stringify({ cycles, seconds, absorbed_bytes: absorbed, inserts, evictions, size_bytes, errors, memory_bytes, growth }));
if (inserts !== cycles || errors !== 0 || wrong !== 0) throw new Error(`${inserts} of ${cycles} batches were kept, ${errors} errors, ${wrong} wrong`);
if (evictions < cycles * 0.9) throw new Error(`only ${evictions} batches were evicted`);
// The allocator fills gaps as they come, so that a page may still be wanted once in a few hundred thousand cycles; a leak would
// want one in four thousand, or sooner.
const settledBytes = growth.findLast(({ cycle }) => cycle <= settled).memory_bytes;
if (memory_bytes > settledBytes + 2 * PAGE_BYTES) throw new Error(`memory has grown to ${memory_bytes} bytes, it was ${settledBytes} after ${settled} cycles`);

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { Cache, KachetError } from "kachet";
import { answerLine, crc32 } from "./answers.mjs";
import { batch as made, response as holding, topic as madeTopic } from "./batches.mjs";
import { asked, names, requestFrame, responseFrame, topicOf, versionOf } from "./frames.mjs";

const answers = readFileSync(new URL(process.env.KACHET_ANSWERS), "utf8").trimEnd().split("\n");
const forever = { maxStaleness: Infinity };
const name = "v13-codecs";

/** An upstream that counts what it is asked. */
function upstream(answer = () => responseFrame(name)) {
  const asked = [];
  const ask = async (request, context) => {
    asked.push(request);
    return answer(request, context);
  };
  return { ask, asked };
}

function code(expected) {
  return (error) => error instanceof KachetError && error.code === expected && error.message.length > 10;
}

const forbidden = () => {
  throw new Error("upstream was asked");
};

test("fixtures give the same bytes as natively", () => {
  const lines = names.map((fixture) => answerLine(Cache, fixture, requestFrame(fixture), responseFrame(fixture)));
  assert.deepEqual(lines, answers);
});

test("a fetch asks upstream once, and then the cache", async () => {
  const cache = new Cache(forever);
  const { ask, asked } = upstream();
  const first = await cache.fetch(requestFrame(name), ask);
  assert.deepEqual(first, responseFrame(name));
  const second = await cache.fetch(requestFrame(name, 99), forbidden);
  assert.equal(new DataView(second.buffer).getInt32(0), 99);
  assert.equal(asked.length, 1);
  const { hits, misses, upstream_fetches: fetches, batches, memory_bytes: memory } = cache.stats();
  assert.deepEqual([hits > 0, misses > 0, fetches, batches], [true, true, 1, 6]);
  assert.ok(memory >= 65536);
});

test("concurrent fetches of the same share one, each under its own id and with bytes of its own", async () => {
  const cache = new Cache(forever);
  let land;
  const { ask, asked } = upstream(() => new Promise((resolve) => (land = () => resolve(responseFrame(name)))));
  const all = Array.from({ length: 50 }, (_, at) => cache.fetch(requestFrame(name, at === 0 ? 7 : at + 100), ask));
  // Whoever gets its answer first may write into it at once.
  all[0] = all[0].then((response) => {
    const copy = response.slice();
    response.fill(0);
    return copy;
  });
  await new Promise((resolve) => setImmediate(resolve));
  land();
  const responses = await Promise.all(all);
  assert.equal(asked.length, 1);
  responses.forEach((response, at) => {
    assert.deepEqual(response, responseFrame(name, at === 0 ? 7 : at + 100));
  });
});

test("a rejected promise reaches all who wait, and poisons nobody", async () => {
  const cache = new Cache(forever);
  const failure = new Error("no route");
  const { ask, asked } = upstream(() => {
    throw failure;
  });
  const all = await Promise.allSettled([cache.fetch(requestFrame(name), ask), cache.fetch(requestFrame(name, 8), ask)]);
  assert.ok(all.every(({ status, reason }) => status === "rejected" && reason === failure));
  assert.equal(asked.length, 1);
  assert.deepEqual(await cache.fetch(requestFrame(name), upstream().ask), responseFrame(name));
});

test("what is malformed is an error with a code, and leaves the cache usable", async () => {
  const cache = new Cache({ ...forever, responseLimit: 5000 });
  const with_ = (answer) => cache.fetch(requestFrame(name), async () => answer);
  for (const cut of [0, 1, 7, 12, 20, requestFrame(name).length - 1]) {
    await assert.rejects(cache.fetch(requestFrame(name).slice(0, cut), forbidden), code("MALFORMED_REQUEST"), `${cut}`);
  }
  const metadata = requestFrame(name);
  metadata[1] = 3;
  await assert.rejects(cache.fetch(metadata, forbidden), code("NOT_A_FETCH"));
  const version = requestFrame(name);
  version[3] = 99;
  await assert.rejects(cache.fetch(version, forbidden), code("MALFORMED_REQUEST"));
  for (let cut = 0; cut < responseFrame(name).length; cut += 7) {
    await assert.rejects(with_(responseFrame(name).slice(0, cut)), code("MALFORMED_RESPONSE"), `${cut}`);
  }
  await assert.rejects(with_(responseFrame(name, 8)), code("CORRELATION_MISMATCH"));
  await assert.rejects(with_(new Uint8Array(5001)), code("TOO_LONG"));
  await assert.rejects(with_("text"), code("MALFORMED_RESPONSE"));
  assert.equal(cache.stats().batches, 0);
  assert.deepEqual(await with_(responseFrame(name)), responseFrame(name));
  assert.deepEqual(await cache.fetch(requestFrame(name), forbidden).then((bytes) => bytes.length > 100), true);
});

test("damaged batches are handed on as they came and never kept", async () => {
  const cache = new Cache(forever);
  const damaged = responseFrame(name);
  damaged[damaged.length - 20] ^= 1;
  assert.deepEqual(await cache.fetch(requestFrame(name), async () => damaged), damaged);
  const { errors, batches } = cache.stats();
  assert.ok(errors > 0 && batches < 6, `${errors} ${batches}`);
});

test("arguments that make no sense are refused", () => {
  const id = "00112233-4455-6677-8899-aabbccddeeff";
  for (const wrong of [{ sizeLimit: -1 }, { sizeLimit: 1.5 }, { maxStaleness: -1 }, { maxStaleness: NaN }, { responseLimit: 0 }]) {
    assert.throws(() => new Cache(wrong), code("INVALID_ARGUMENT"), JSON.stringify(wrong));
  }
  const cache = new Cache();
  for (const wrong of ["numbers", "", "00112233-4455-6677-8899-aabbccddeefg", new Uint8Array(15), new Uint8Array(16)]) {
    assert.throws(() => cache.record(wrong, 0, 0n), code("INVALID_ARGUMENT"), String(wrong));
  }
  for (const wrong of [-1, 0.5, 2 ** 53, -1n, 2n ** 63n, NaN]) {
    assert.throws(() => cache.record(id, 0, wrong), code("INVALID_ARGUMENT"), String(wrong));
  }
  assert.throws(() => cache.record(id, -1, 0n), code("INVALID_ARGUMENT"));
  assert.throws(() => cache.invalidate({ partition: 1 }), code("INVALID_ARGUMENT"));
  assert.throws(() => Cache.request({ topic: id, partition: 0, offset: 0 }, { version: 12 }), code("INVALID_ARGUMENT"));
  assert.equal(cache.record("ABEiM0RVZneImaq7zN3u_w", 0, 0n), undefined);
});

/** A cache that holds all of a fixture. */
async function filled(fixture = name, options = forever) {
  const cache = new Cache(options);
  await cache.fetch(requestFrame(fixture), async () => responseFrame(fixture));
  return cache;
}

test("records are read from every codec, with keys, values, times and headers", async () => {
  const cache = await filled();
  const topic = topicOf(name);
  const [{ topic: uuid, partition, spans }] = cache.covered();
  const { records, next } = cache.records({ topic: uuid, partition, offset: spans[0].first });
  assert.equal(next, spans[0].last + 1n);
  assert.ok(records.length >= 6);
  const direct = cache.decode(responseFrame(name, 0), { topic, partition, offset: 0 }, versionOf(name));
  assert.deepEqual(direct, { records, next });
  const text = (bytes) => bytes && Buffer.from(bytes).toString();
  assert.match(text(records[0].key), /^key-\d+-0$/);
  assert.match(text(records[0].value), /^value-\d+-0-/);
  assert.equal(records[0].timestamp, 1_700_000_000_000n);
});

test("a record is given by its offset; null says that there is none, undefined that it is not cached", async () => {
  const cache = await filled();
  const topic = topicOf(name);
  const { records } = cache.records({ topic, partition: 0, offset: 0 });
  for (const expected of records) {
    assert.deepEqual(cache.record(topic, 0, expected.offset), expected);
    assert.equal(cache.record(topic, 0, Number(expected.offset)).offset, expected.offset);
  }
  assert.equal(cache.record(topic, 0, 1_000_000n), undefined);
  assert.equal(cache.record(topic, 77, 0n), undefined);
  const some = cache.records({ topic, partition: 0, offset: records[1].offset, count: 2 });
  assert.deepEqual(some.records, records.slice(1, 3));
  assert.equal(some.next, records[2].offset + 1n);
  const small = cache.records({ topic, partition: 0, offset: 0, sizeLimit: 1 });
  assert.equal(small.records.length, 1);
});

/** A cache with such batches of ten records, the first of which begins at 0. */
function holds(options) {
  const cache = new Cache(forever);
  const batches = options.map((each, at) => made(10 * at, { records: 10, size: 100, ...each }));
  const plan = cache.plan(Cache.request({ topic: madeTopic, partition: 0, offset: 0 }));
  cache.absorb(plan, holding(batches, 10 * batches.length));
  assert.equal(cache.stats().batches, batches.length);
  return cache;
}

test("records come out of parts of batches and of whole ones, and nobody's writing reaches the cache", () => {
  const cache = holds([{}, { headers: 2 }, { gzip: true }, { gzip: true, headers: 3 }, {}]);
  const text = (bytes) => Buffer.from(bytes).toString();
  const read = (offset, count) => cache.records({ topic: madeTopic, partition: 0, offset, count });
  const headerCount = [0, 2, 0, 3, 0];
  for (const [offset, count] of [[0, 50], [0, 10], [10, 10], [3, 4], [3, 20], [5, 40], [19, 22], [30, 11], [49, 1]]) {
    const { records, next } = read(offset, count);
    assert.equal(next, BigInt(offset + count));
    assert.equal(records.length, count);
    records.forEach((record, at) => {
      const number = offset + at;
      assert.equal(record.offset, BigInt(number));
      assert.equal(record.timestamp, 1_700_000_000_000n + BigInt(number % 10));
      assert.equal(text(record.key), `key-${number}`);
      assert.equal(text(record.value), `value-${number}-`.padEnd(100, "abcdefghijklmnopqrstuvwxyz"));
      const headers = record.headers.map(({ key, value }) => `${key}=${text(value)}`);
      const expected = Array.from({ length: headerCount[Math.trunc(number / 10)] }, (_, n) => `name-${n}=value-${n}`);
      assert.deepEqual(headers, expected);
      // They are nobody else's: the next turn reads the same again.
      record.key.fill(0);
      record.value.fill(0);
    });
  }
  const { records } = read(0, 50);
  const before = structuredClone(records);
  cache.invalidate();
  const other = new Cache(forever);
  other.absorb(other.plan(requestFrame(name)), responseFrame(name));
  assert.deepEqual(records, before);
});

test("who has read what was asked for does not look at the batch behind it", () => {
  // The second says that it is compressed by gzip, and is not.
  const cache = holds([{}, { codec: 1 }]);
  const range = { topic: madeTopic, partition: 0, offset: 0 };
  assert.equal(cache.records({ ...range, count: 10 }).next, 10n);
  assert.equal(cache.record(madeTopic, 0, 9n).offset, 9n);
  assert.throws(() => cache.records({ ...range, count: 11 }), code("CODEC"));
  assert.equal(cache.records({ ...range, count: 10 }).records.length, 10);
});

test("a batch comes as the broker sent it, and a view of it without a copy", async () => {
  const cache = await filled();
  const topic = topicOf(name);
  const batch = cache.batch(topic, 0, 0n);
  const view = cache.batchView(topic, 0, 0n);
  assert.deepEqual(batch, new Uint8Array(view));
  assert.ok(view.buffer.byteLength >= 65536 && batch.buffer.byteLength === batch.length);
  const response = Buffer.from(responseFrame(name));
  assert.ok(response.includes(Buffer.from(batch)));
  assert.equal(cache.batch(topic, 5, 0n), undefined);
});

test("what is too old is fetched anew, a bound of zero always asks, and one of infinity never", async () => {
  let now = 0;
  const clock = () => now;
  const cache = await filled(name, { maxStaleness: 100, clock });
  now = 100;
  await cache.fetch(requestFrame(name), forbidden);
  now = 101;
  const { ask, asked } = upstream();
  await cache.fetch(requestFrame(name), ask);
  assert.equal(asked.length, 1);
  now = 200;
  await cache.fetch(requestFrame(name), forbidden);
  now = 202;
  assert.equal(cache.record(topicOf(name), 0, 0n), undefined);
  assert.ok(cache.covered().every(({ partition }) => partition !== 0));

  const always = await filled(name, { maxStaleness: 0, clock });
  now += 1;
  await always.fetch(requestFrame(name), ask);
  assert.equal(asked.length, 2);
  const never = await filled(name, { ...forever, clock });
  now += 1e12;
  await never.fetch(requestFrame(name), forbidden);
});

test("an answer that was asked for before the bound is no new one when it comes", async () => {
  let now = 0;
  const cache = new Cache({ maxStaleness: 100, clock: () => now });
  await cache.fetch(requestFrame(name), async () => {
    now = 90;
    return responseFrame(name);
  });
  await cache.fetch(requestFrame(name), forbidden);
  now = 101;
  await assert.rejects(cache.fetch(requestFrame(name), forbidden), /upstream was asked/);
});

test("requests by name pass through, and nothing of them is kept", async () => {
  const cache = await filled("v12-codecs");
  assert.equal(cache.stats().batches, 0);
  await assert.rejects(cache.fetch(requestFrame("v12-codecs"), forbidden), /upstream was asked/);
});

test("a limit of zero passes everything through", async () => {
  const cache = await filled(name, { ...forever, sizeLimit: 0 });
  const { ask, asked } = upstream();
  await cache.fetch(requestFrame(name), ask);
  assert.deepEqual([asked.length, cache.stats().batches], [1, 0]);
  assert.deepEqual(asked[0], requestFrame(name));
});

test("what is invalidated is asked for again", async () => {
  const topic = topicOf(name);
  for (const what of [undefined, {}, { topic }, { topic, partition: 0 }]) {
    const cache = await filled();
    assert.equal(cache.record(topic, 0, 0n).offset, 0n);
    cache.invalidate(what);
    assert.equal(cache.record(topic, 0, 0n), undefined, JSON.stringify(what));
  }
  const cache = await filled();
  cache.invalidate({ topic: new Uint8Array(16).fill(1) });
  cache.invalidate({ topic, partition: 77 });
  assert.equal(cache.stats().batches, 6);
  const { spans } = cache.covered()[0];
  cache.invalidate({ topic, partition: 0, below: spans[0].last });
  assert.equal(cache.record(topic, 0, 0n), undefined);
  assert.equal(cache.record(topic, 0, spans[0].last).offset, spans[0].last);
  cache.setSizeLimit(0);
  assert.equal(cache.stats().batches, 0);
});

test("a snapshot brings a cache back, with its age", async () => {
  const cache = await filled();
  const snapshot = cache.snapshot();
  const topic = topicOf(name);
  const back = new Cache(forever);
  assert.deepEqual(back.restore(snapshot), { batches: 6, staleParts: 0 });
  assert.deepEqual(await back.fetch(requestFrame(name), forbidden), await cache.fetch(requestFrame(name), forbidden));
  assert.deepEqual(back.records({ topic, partition: 0, offset: 0 }), cache.records({ topic, partition: 0, offset: 0 }));
  assert.deepEqual(back.snapshot().length, snapshot.length);

  const old = new Cache({ maxStaleness: 50 });
  await new Promise((resolve) => setTimeout(resolve, 80));
  const restored = old.restore(snapshot);
  assert.deepEqual([restored.batches, restored.staleParts > 0, old.stats().batches], [0, true, 0]);
  const young = new Cache({ maxStaleness: 1e9 });
  assert.equal(young.restore(snapshot).batches, 6);
});

test("a snapshot that is damaged, cut off, foreign or too long for its place is refused or shortened", async () => {
  const cache = await filled(name, { ...forever, clusterId: "one" });
  const snapshot = cache.snapshot();
  for (let at = 0; at < snapshot.length; at += 3) {
    const damaged = snapshot.slice();
    damaged[at] ^= 0x40;
    const back = new Cache({ ...forever, clusterId: "one" });
    assert.throws(() => back.restore(damaged), KachetError, `byte ${at}`);
    back.free();
  }
  for (let cut = 0; cut < snapshot.length; cut += 5) {
    const back = new Cache(forever);
    try {
      back.restore(snapshot.slice(0, cut));
    } catch (error) {
      assert.ok(error instanceof KachetError, `${cut}: ${error}`);
    }
    back.free();
  }
  assert.throws(() => new Cache({ clusterId: "two" }).restore(snapshot), code("SNAPSHOT_CLUSTER"));
  const newer = snapshot.slice();
  newer[8] = 2;
  assert.throws(() => new Cache().restore(newer), code("SNAPSHOT_VERSION"));
  const short = cache.snapshot({ sizeLimit: 100 });
  assert.ok(short.length <= 100);
  assert.equal(new Cache(forever).restore(short).batches, 0);
});

test("upstream that does not answer is given up on, and a late answer is kept", async () => {
  const cache = new Cache({ ...forever, upstreamTimeout: 30 });
  let land;
  let aborted = false;
  const slow = (_, { signal }) => {
    signal.addEventListener("abort", () => (aborted = true));
    return new Promise((resolve) => (land = () => resolve(responseFrame(name))));
  };
  await assert.rejects(cache.fetch(requestFrame(name), slow), code("UPSTREAM_TIMEOUT"));
  assert.ok(aborted);
  land();
  await new Promise((resolve) => setImmediate(resolve));
  await cache.fetch(requestFrame(name), forbidden);
});

test("a caller who gives up does not end the fetch of the others", async () => {
  const cache = new Cache(forever);
  const controller = new AbortController();
  let land;
  const { ask, asked } = upstream(() => new Promise((resolve) => (land = () => resolve(responseFrame(name)))));
  const first = cache.fetch(requestFrame(name), ask, { signal: controller.signal });
  const second = cache.fetch(requestFrame(name, 8), ask);
  controller.abort();
  await assert.rejects(first, { name: "AbortError" });
  land();
  assert.deepEqual(await second, responseFrame(name, 8));
  assert.equal(asked.length, 1);
  await assert.rejects(cache.fetch(requestFrame(name), ask, { signal: controller.signal }), { name: "AbortError" });
});

test("no more fetches run than allowed, the others wait, and beyond that they are refused", async () => {
  const cache = new Cache({ ...forever, fetchLimit: 2, waitingLimit: 3 });
  let running = 0;
  let most = 0;
  const ask = async () => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((resolve) => setTimeout(resolve, 10));
    running -= 1;
    throw new Error("down");
  };
  const topic = topicOf(name);
  const all = Array.from({ length: 8 }, (_, offset) => cache.fetchRecords({ topic, partition: 0, offset }, ask));
  const reasons = (await Promise.allSettled(all)).map(({ reason }) => reason.code ?? reason.message);
  assert.equal(most, 2);
  assert.deepEqual(reasons.toSorted?.() ?? [...reasons].sort(), [...Array(3).fill("TOO_MANY_FETCHES"), ...Array(5).fill("down")]);
  await assert.rejects(cache.fetchRecords({ topic, partition: 0, offset: 1 }, ask), /down/);
});

test("records come from one fetch where they are not cached, and a broker's error is one", async () => {
  const topic = topicOf(name);
  const answer = async (request) => {
    const response = responseFrame(name, new DataView(request.buffer, request.byteOffset).getInt32(4));
    return response;
  };
  const cache = new Cache(forever);
  const record = await cache.fetchRecord(topic, 0, 0n, answer);
  assert.equal(record.offset, 0n);
  assert.deepEqual(await cache.fetchRecord(topic, 0, 0n, forbidden), record);
  const { records } = await cache.fetchRecords({ topic, partition: 0, offset: 0, count: 3 }, forbidden);
  assert.equal(records.length, 3);

  const failing = responseFrame("v13-errors", 0);
  const errors = new Cache(forever);
  const plan = errors.plan(requestFrame("v13-errors", 0));
  assert.deepEqual(errors.absorb(plan, failing), failing);
  assert.throws(() => errors.absorb(plan, failing), code("PLAN_SPENT"));
  const codes = [];
  for (const { topic, partition } of asked("v13-errors")) {
    try {
      errors.decode(failing, { topic, partition, offset: 0 }, 13);
    } catch (error) {
      assert.ok(error instanceof KachetError && error.code === "BROKER", String(error));
      codes.push(error.brokerErrorCode);
    }
  }
  assert.ok(codes.includes(1) && codes.every((each) => each > 0), String(codes));
});

test("absorbing and evicting leaves memory flat and within the limit", async () => {
  const cache = new Cache({ ...forever, sizeLimit: 4096, segmentSize: 512 });
  const cycle = () => {
    cache.absorb(cache.plan(requestFrame(name)), responseFrame(name));
    cache.invalidate();
  };
  for (let at = 0; at < 500; at += 1) cycle();
  const before = cache.stats().memory_bytes;
  for (let at = 0; at < 5000; at += 1) cycle();
  assert.equal(cache.stats().memory_bytes, before);
  assert.ok(cache.stats().size_bytes <= 4096);
});

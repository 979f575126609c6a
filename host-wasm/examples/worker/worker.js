import { Cache, KachetError } from "kachet";
import { Gateway, TopicNames } from "./gateway.js";
import { Problem } from "./problem.js";
import { jsonLine } from "./record.js";
import { settingsOf } from "./settings.js";
import { RESTORE_LIMIT_MS, Snapshots } from "./snapshots.js";

/** The most that one answer takes: records, bytes of records, records of a POST, bytes of its body. */
const COUNT_LIMIT = 10_000;
const RANGE_LIMIT = 4 << 20;
const PLACES_LIMIT = 100;
const BODY_LIMIT = 64 << 10;
const COUNT = 100;
/** The longest response and the largest batch once decompressed, in bytes. */
const RESPONSE_LIMIT = 8 << 20;
const DECOMPRESSED_LIMIT = 16 << 20;
/** What one fetch asks for, in bytes. The first batch always comes whole. */
const FETCH_BYTES = 1 << 20;
/** As many connections as Workers open at a time. */
const FETCH_LIMIT = 6;
const ANSWER_LIMIT_MS = 30_000;
/** Kafka's error codes. */
const OFFSET_OUT_OF_RANGE = 1;
const UNKNOWN_TOPIC_OR_PARTITION = 3;
const UNKNOWN_TOPIC_IDS = [100, 103];

const I32_MAX = 0x7fff_ffffn;
const I64_MAX = (1n << 63n) - 1n;

/** One for each isolate; it is begun by the first request, because nothing can be read before there is one. */
let edge;

export default {
  /** @returns {Promise<Response>} */
  fetch(request, env, ctx) {
    const answer = respond(request, env, ctx);
    // Others may wait for a fetch that this request has begun; it must not end with this request's connection.
    ctx.waitUntil(answer);
    return answer;
  },
};

async function respond(request, env, ctx) {
  try {
    edge ??= new Edge(env);
    await authorise(request, env.CLIENT_TOKEN);
    await within(edge.restored, RESTORE_LIMIT_MS);
    const response = await edge.respond(request);
    edge.saveIn(ctx);
    return request.method === "HEAD" ? new Response(null, response) : response;
  } catch (error) {
    if (error instanceof Problem) return error.toResponse();
    console.error(error);
    return new Problem(500, "internal-error", "the Worker has a defect or is set up wrongly; its log says more").toResponse();
  }
}

class Edge {
  #cache;
  #gateway;
  #names;
  #snapshots;
  #maxStaleness;
  #absorbed = 0;
  #saved = 0;

  constructor(env) {
    const settings = settingsOf(env);
    this.#maxStaleness = settings.MAX_STALENESS_MS;
    this.#cache = new Cache({
      sizeLimit: settings.SIZE_LIMIT,
      maxStaleness: this.#maxStaleness,
      responseLimit: RESPONSE_LIMIT,
      decompressedLimit: DECOMPRESSED_LIMIT,
      fetchLimit: FETCH_LIMIT,
    });
    this.#gateway = new Gateway(env.GATEWAY_URL, env.GATEWAY_TOKEN, RESPONSE_LIMIT);
    this.#names = new TopicNames(this.#maxStaleness, (topic) => this.#cache.invalidate({ topic }));
    this.#snapshots = new Snapshots(env.SNAPSHOTS, settings.SNAPSHOT_INTERVAL_MS);
    this.restored = this.#snapshots.restore(this.#cache, this.#names);
  }

  async respond(request) {
    const url = new URL(request.url);
    const parts = url.pathname.split("/").slice(1).map(decoded);
    const [resource, topic, partition, at, form] = parts;
    const isRecords = resource === "records" && parts.length === 1;
    const allowed = isRecords ? ["POST"] : ["GET", "HEAD"];
    const isKnown = isRecords || (resource === "stats" && parts.length === 1) || isTopicPath(parts);
    if (!isKnown) throw new Problem(404, "no-such-resource", `there is nothing under ${url.pathname}`);
    if (!allowed.includes(request.method)) {
      const allow = allowed.join(", ");
      throw new Problem(405, "method-not-allowed", `${request.method} is not known here; ${allow} is`, { allow });
    }
    if (isRecords) return this.#several(request);
    if (resource === "stats") return Response.json(this.#cache.stats(), { headers: { "cache-control": "no-store" } });
    const place = placeOf({ topic, partition, offset: at ?? url.searchParams.get("offset") ?? "" });
    try {
      if (form === "batch") return await this.#batch(place);
      if (at !== undefined) return await this.#record(place, url.searchParams, request.headers);
      return await this.#range(place, url.searchParams);
    } catch (error) {
      if (!(error instanceof KachetError && error.code === "TRAPPED") || form === "batch") throw asProblem(error);
      // No fault of the cache fails a read that the gateway could serve.
      console.error(error);
      const path = `/v1/topics/${topic}/${partition}/records${at === undefined ? "" : `/${at}`}${url.search}`;
      return this.#gateway.relay(path, { accept: request.headers.get("accept") ?? "*/*" });
    }
  }

  /** Writes a snapshot behind the answer if something is new and the last one is old enough. */
  saveIn(ctx) {
    if (this.#absorbed === this.#saved || !this.#snapshots.isDue()) return;
    this.#saved = this.#absorbed;
    ctx.waitUntil(this.#snapshots.save(this.#cache, this.#names, this.#maxStaleness));
  }

  async #record(place, query, headers) {
    const committed = isolation(query, ["isolation"]);
    const { record, hit } = await this.#one(place, committed);
    const { topic, partition } = place;
    if (!prefersBytes(headers)) {
      return answer(jsonLine(topic, partition, record), "application/json", hit);
    }
    const told = { "kachet-offset": `${record.offset}`, "kachet-timestamp": `${record.timestamp}` };
    if (record.key !== null && record.key.length <= 4096) told["kachet-key"] = `:${record.key.toBase64()}:`;
    return answer(record.value, "application/octet-stream", hit, told);
  }

  async #one(place, committed) {
    const { offset } = place;
    const { records, next, hit } = await this.#read({ ...place, count: 1, committed });
    const [record] = records;
    if (record?.offset === offset) return { record, hit };
    if (record === undefined && next === null) {
      throw new Problem(404, "beyond-end", `${place.topic}/${place.partition} does not hold offset ${offset} yet`);
    }
    const behind = Number(record?.offset ?? next);
    const why = "compaction took it, or it is a marker's or an aborted transaction's";
    throw new Problem(404, "no-record-at-offset", `there is no record at ${offset}: ${why}`, { next_offset: behind });
  }

  async #range(place, query) {
    const committed = isolation(query, ["isolation", "offset", "count"]);
    const count = Number(whole(query.get("count") ?? `${COUNT}`, "count", 1n, BigInt(COUNT_LIMIT)));
    const lines = [];
    let [offset, left, allHit] = [place.offset, RANGE_LIMIT, true];
    while (lines.length < count && left > 0) {
      const range = { ...place, offset, count: count - lines.length, sizeLimit: left, committed };
      const { records, next, hit } = await this.#read(range);
      allHit &&= hit;
      for (const record of records) {
        lines.push(jsonLine(place.topic, place.partition, record));
        left -= sizeOf(record);
      }
      // The end of the log. Each turn else goes on by an offset at least, and there is an end to it.
      if (next === null || next <= offset) break;
      offset = next;
    }
    return answer(lines.join(""), "application/x-ndjson", allHit, { "kachet-next-offset": `${offset}` });
  }

  /** The batch that an offset lies in, to the byte as the broker sent it. */
  async #batch(place) {
    const { hit } = await this.#one(place, false);
    const id = await this.#names.idOf(place.topic, this.#gateway);
    const batch = this.#cache.batch(id, place.partition, place.offset);
    if (batch === undefined) {
      throw new Problem(503, "too-busy", "the batch was dropped before it could be answered: come again");
    }
    return answer(batch, "application/octet-stream", hit);
  }

  /** Records at several places, each as a line in the order in which they were asked for, or what is wrong with it. */
  async #several(request) {
    const places = await placesOf(request);
    const lines = new Array(places.length);
    let allHit = true;
    const read = async (at) => {
      const { topic, partition, offset } = places[at];
      try {
        const { record, hit } = await this.#one(places[at], false);
        allHit &&= hit;
        lines[at] = jsonLine(topic, partition, record);
      } catch (error) {
        const problem = JSON.stringify(asProblem(error));
        lines[at] = `{"topic":${JSON.stringify(topic)},"partition":${partition},"offset":${offset},"problem":${problem}}\n`;
      }
    };
    // One after another within a partition, so that what lies in one batch is fetched once.
    const readAll = async (all) => {
      for (const at of all) await read(at);
    };
    await Promise.all([...grouped(places).values()].map(readAll));
    return answer(lines.join(""), "application/x-ndjson", allHit);
  }

  /** Records from an offset on, from the cache or of one fetch. */
  async #read({ topic: name, ...place }) {
    for (let attempt = 0; ; attempt += 1) {
      const topic = await this.#names.idOf(name, this.#gateway);
      const range = { topic, ...place };
      const cached = this.#cache.records(range);
      if (cached !== undefined) return { ...cached, hit: true };
      let asked;
      const upstream = async (frame, context) => {
        const at = Date.now();
        const answer = await this.#gateway.fetch(frame, context);
        this.#absorbed += 1;
        asked = at;
        return answer;
      };
      try {
        const options = { maxBytes: FETCH_BYTES, signal: AbortSignal.timeout(ANSWER_LIMIT_MS) };
        const read = await this.#cache.fetchRecords(range, upstream, options);
        if (asked !== undefined) this.#names.confirm(name, topic, asked);
        return { ...read, hit: false };
      } catch (error) {
        const code = error instanceof KachetError ? error.brokerErrorCode : undefined;
        if (UNKNOWN_TOPIC_IDS.includes(code)) {
          this.#names.forget(name);
          // It may have been created again; who knows its new id reads on.
          if (attempt === 0) continue;
          throw new Problem(404, "no-such-topic", `the cluster has no topic ${name}`);
        }
        throw code === OFFSET_OUT_OF_RANGE ? await this.#outOfRange(name, place) : error;
      }
    }
  }

  async #outOfRange(topic, { partition, offset }) {
    const bounds = await this.#gateway.bounds(topic, partition);
    const { log_start_offset: start, end_offset: end } = bounds;
    const detail = `offset ${offset} of ${topic}/${partition} is out of range; the log holds offsets from ${start} up to, not including, ${end}`;
    return offset < start ? new Problem(410, "below-log-start", detail, bounds) : new Problem(404, "beyond-end", detail, bounds);
  }
}

function asProblem(error) {
  if (error instanceof Problem) return error;
  if (error?.name === "TimeoutError") return new Problem(504, "upstream-timed-out", "it was not answered in time");
  if (!(error instanceof KachetError)) throw error;
  if (error.code === "TOO_MANY_FETCHES") return new Problem(503, "too-busy", error.message);
  if (error.code === "UPSTREAM_TIMEOUT") return new Problem(504, "upstream-timed-out", error.message);
  const code = error.brokerErrorCode;
  if (code === UNKNOWN_TOPIC_OR_PARTITION) return new Problem(404, "no-such-partition", "the topic has no such partition");
  const more = code === undefined ? {} : { kafka_error_code: code };
  return new Problem(502, "upstream-error", error.message, more);
}

function answer(body, type, hit, more = {}) {
  // A tombstone has no value.
  const status = body === null ? 204 : 200;
  const headers = { "content-type": type, vary: "accept", "cache-control": "no-store", "kachet-cache": hit ? "hit" : "miss", ...more };
  if (body === null) delete headers["content-type"];
  return new Response(body, { status, headers });
}

function isTopicPath([resource, ...rest]) {
  return resource === "topics" && (rest.length === 2 || rest.length === 3 || (rest.length === 4 && rest[3] === "batch"));
}

function placeOf({ topic, partition, offset }) {
  if (typeof topic !== "string" || !/^[\w.-]{1,249}$/.test(topic) || topic === "." || topic === "..") {
    throw bad("topic", "Kafka allows no such name of a topic");
  }
  return { topic, partition: Number(whole(partition, "partition", 0n, I32_MAX)), offset: whole(offset, "offset", 0n, I64_MAX) };
}

/** A whole number, written in digits or, in JSON, as a number that is exact. */
function whole(given, parameter, least, most) {
  const isExact = typeof given === "string" ? /^\d{1,19}$/.test(given) : Number.isSafeInteger(given);
  const value = isExact ? BigInt(given) : -1n;
  if (value < least || value > most) throw bad(parameter, `${parameter} takes a whole number from ${least} to ${most}`);
  return value;
}

function isolation(query, known) {
  for (const name of query.keys()) {
    if (!known.includes(name)) throw bad(name, `the parameter ${name} is not known here`);
    if (query.getAll(name).length > 1) throw bad(name, `the parameter ${name} is given twice`);
  }
  const given = query.get("isolation") ?? "uncommitted";
  if (given !== "uncommitted" && given !== "committed") {
    throw bad("isolation", "isolation takes committed or uncommitted");
  }
  return given === "committed";
}

async function placesOf(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request.body ?? []) {
    size += chunk.length;
    if (size > BODY_LIMIT) throw new Problem(413, "request-too-large", `the body may have ${BODY_LIMIT} bytes`);
    chunks.push(chunk);
  }
  let places;
  try {
    places = JSON.parse(await new Blob(chunks).text());
  } catch {
    throw new Problem(400, "bad-request", "the body is no JSON");
  }
  if (!Array.isArray(places) || places.length === 0 || places.length > PLACES_LIMIT) {
    throw new Problem(400, "bad-request", `the body takes an array of 1 to ${PLACES_LIMIT} objects with topic, partition and offset`);
  }
  return places.map((place) => placeOf(place ?? {}));
}

/** Indexes of places by partition, in order of offsets. */
function grouped(places) {
  const groups = new Map();
  places.forEach(({ topic, partition }, at) => {
    const key = `${topic}/${partition}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(at);
  });
  for (const group of groups.values()) {
    group.sort((one, other) => (places[one].offset < places[other].offset ? -1 : 1));
  }
  return groups;
}

function bad(parameter, detail) {
  return new Problem(400, "bad-parameter", detail, { parameter });
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    throw bad("path", "the path is not encoded as paths are");
  }
}

function prefersBytes(headers) {
  return (headers.get("accept") ?? "").split(",").some((form) => form.split(";")[0].trim() === "application/octet-stream");
}

function sizeOf({ key, value, headers }) {
  const ofHeaders = headers.reduce((sum, header) => sum + header.key.length + (header.value?.length ?? 0), 0);
  return (key?.length ?? 0) + (value?.length ?? 0) + ofHeaders;
}

/** Compares digests, whose length does not depend on what was given, in constant time. */
async function authorise(request, token) {
  if (!token) return;
  const given = /^Bearer (.+)$/i.exec(request.headers.get("authorization") ?? "")?.[1] ?? "";
  const digest = (text) => crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  if (!crypto.subtle.timingSafeEqual(await digest(given), await digest(token))) {
    throw new Problem(401, "unauthorised", "bring `Authorization: Bearer TOKEN` with a valid token");
  }
}

/** Waits for a promise, but for so long only. It settles without a value in any case. */
function within(promise, limitMs) {
  let timer;
  const limit = new Promise((resolve) => (timer = setTimeout(resolve, limitMs)));
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}

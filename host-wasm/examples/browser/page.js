import { Cache, KachetError, init } from "kachet";
import { readBatch } from "./batch.js";
import { Gateway, Unreachable } from "./gateway.js";
import { drawStrip, offsetAt } from "./strip.js";

const MEBI = 1 << 20;
/** A page is looked at by one person: what is cached is served for a minute. */
const MAX_STALENESS_MS = 60_000;
const OFFSET_OUT_OF_RANGE = 1;
const I32_MAX = 0x7fff_ffff;
const I64_MAX = (1n << 63n) - 1n;

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const settings = new URLSearchParams(location.hash.slice(1));
const strict = new TextDecoder("utf-8", { fatal: true });

let cache;
let gateway;
/** What was read last: its topic, partition and offset, and how far its log reaches. */
let shown;
/** What was told of logs, by topic and partition. */
const known = new Map();
/** Counts readings, so that one that comes late does not overwrite a later one. */
let turn = 0;

element.gateway.value = settings.get("gateway") ?? "http://localhost:8080";
for (const name of ["topic", "partition", "offset"]) {
  if (settings.has(name)) element[name].value = settings.get(name);
}

element["gateway-form"].addEventListener("submit", (event) => {
  event.preventDefault();
  connect();
});
element.place.addEventListener("submit", (event) => {
  event.preventDefault();
  read();
});
element.previous.addEventListener("click", () => go(shown.offset - 1n));
element.next.addEventListener("click", () => go(shown.offset + 1n));
element.slider.addEventListener("change", () => go(shown.log.start + BigInt(element.slider.value)));
element.strip.addEventListener("click", (event) => {
  const { left, width } = element.strip.getBoundingClientRect();
  go(offsetAt(shown.log, (event.clientX - left) / width));
});
element.forget.addEventListener("click", () => {
  cache.invalidate();
  show();
  say("Nothing is cached any more.");
});

await start();

async function start() {
  try {
    await init();
    cache = new Cache({ sizeLimit: 16 * MEBI, maxStaleness: MAX_STALENESS_MS });
  } catch (error) {
    return say(`The cache cannot be loaded: ${error.message}`, true);
  }
  for (const button of ["read", "connect", "forget"]) element[button].disabled = false;
  figures();
  // The age of what is cached runs while nobody clicks.
  setInterval(show, 5000);
  await connect();
  if (settings.has("topic") && element.place.checkValidity()) await read();
}

/** Another gateway may be one of another cluster, of which nothing is cached. */
async function connect() {
  cache.invalidate();
  known.clear();
  gateway = new Gateway(element.gateway.value, element.token.value);
  try {
    const names = await gateway.topics("");
    element.topics.replaceChildren(...names.map((name) => new Option(name)));
    if (element.topic.value === "" && names.length > 0) element.topic.value = names[0];
    say(names.length === 0 ? "The cluster has no topics." : "Give a topic, a partition and an offset.");
  } catch (error) {
    say(error.message, true);
  }
}

function go(offset) {
  element.offset.value = `${offset}`;
  return read();
}

async function read() {
  const mine = ++turn;
  const name = element.topic.value.trim();
  const partition = Number(element.partition.value);
  const offset = BigInt(element.offset.value);
  if (partition > I32_MAX || offset > I64_MAX) return say("No partition or offset is as large as that.", true);
  say("Reading …");
  try {
    const { topic, log } = await logOf(name, partition);
    const found = await recordAt({ topic, partition, offset });
    if (mine !== turn) return;
    shown = { name, topic, partition, offset, log, ...found };
    settings.set("gateway", element.gateway.value);
    for (const [field, value] of Object.entries({ topic: name, partition, offset })) settings.set(field, `${value}`);
    history.replaceState(null, "", `#${settings}`);
    show();
    say(sentence(found, offset, log), found.record === null);
  } catch (error) {
    if (mine === turn) say(await explained(error, name, partition, offset), true);
  }
}

/** The topic's id and how far the log reaches; as it was told last, within the bound, while the gateway cannot be asked. */
async function logOf(name, partition) {
  const key = `${name}/${partition}`;
  const at = Date.now();
  try {
    const [topic, log] = await Promise.all([gateway.topicId(name), gateway.bounds(name, partition)]);
    known.set(key, { topic, log, at });
    return { topic, log };
  } catch (error) {
    const told = known.get(key);
    if (error instanceof Unreachable && told !== undefined && at - told.at < MAX_STALENESS_MS) return told;
    throw error;
  }
}

/** The record, how it came and how long that took. */
async function recordAt({ topic, partition, offset }) {
  const begin = performance.now();
  let fetched;
  const upstream = async (request, context) => {
    const answer = await gateway.fetch(request, context);
    fetched = answer.byteLength;
    return answer;
  };
  const { records, next } = await cache.fetchRecords({ topic, partition, offset, count: 1 }, upstream, { maxBytes: 64 << 10 });
  const [record] = records;
  const isThere = record !== undefined && record.offset === offset;
  return { record: isThere ? record : null, behind: record?.offset ?? next, fetched, took: performance.now() - begin };
}

function sentence({ record, behind, fetched, took }, offset, log) {
  if (record === null && behind === null) return `The log ends at ${log.end}: offset ${offset} is not there yet.`;
  if (record === null) return `There is no record at ${offset}: compaction took it, or it is a transaction's marker. The next may be at ${behind}.`;
  const time = took < 1 ? "less than a millisecond" : `${Math.round(took)} ms`;
  return fetched === undefined
    ? `From the cache, in ${time}; the gateway was not asked for records.`
    : `From the gateway, ${bytes(fetched)} in ${time}. It is cached now, and so is the rest of what came.`;
}

async function explained(error, name, partition, offset) {
  if (!(error instanceof KachetError) || error.brokerErrorCode !== OFFSET_OUT_OF_RANGE) return error.message;
  const { start, end } = await gateway.bounds(name, partition).catch(() => ({}));
  return start === undefined ? error.message : `Offset ${offset} is out of range: the log holds ${start} up to, not including, ${end}.`;
}

function show() {
  figures();
  if (shown === undefined) return;
  const { topic, partition, offset, log, record, fetched } = shown;
  const held = cache.batch(topic, partition, offset);
  const batch = held && readBatch(held);
  const spans = cache.covered().find((known) => known.topic === topic && known.partition === partition)?.spans ?? [];
  // A batch behind a gap is not the record's.
  const own = batch && batch.base <= offset && offset <= batch.last ? batch : undefined;
  showRecord(record, fetched);
  showBatch(own);
  showStrip(spans, own, offset, log);
}

function showRecord(record, fetched) {
  element["no-record"].hidden = record !== null;
  element["no-record"].textContent = "There is no record at this offset.";
  element.source.hidden = record === null;
  element.source.className = `badge ${fetched === undefined ? "hit" : "miss"}`;
  element.source.textContent = fetched === undefined ? "from the cache" : "from the gateway";
  const rows = [];
  if (record !== null) {
    rows.push(["Offset", `${record.offset}`], ["Time", time(record.timestamp)], ["Key", value(record.key)], ["Value", value(record.value)]);
    for (const header of record.headers) rows.push([`Header ${header.key}`, value(header.value)]);
  }
  list(element.record, rows);
}

function showBatch(batch) {
  element["no-batch"].hidden = batch !== undefined;
  if (batch === undefined) element["no-batch"].textContent = "It is not cached, or older than may be served.";
  list(element.batch, batch === undefined ? [] : [
    ["Offsets", `${batch.base} – ${batch.last}`],
    ["Records", `${batch.count}`],
    ["Size", bytes(batch.sizeBytes)],
    ["Compression", batch.codec],
    ["Earliest time", time(batch.firstTimestamp)],
    ["Latest time", time(batch.lastTimestamp)],
    ["Kind of time", batch.isLogAppendTime ? "when it was appended" : "when it was created"],
    ["Leader epoch", `${batch.leaderEpoch}`],
    ["Producer", batch.producerId < 0n ? "without an id" : `${batch.producerId}, epoch ${batch.producerEpoch}, from sequence ${batch.baseSequence}`],
    ["Transaction", batch.isControl ? "a marker" : batch.isTransactional ? "part of one" : "none"],
    ["Checksum", batch.crc.toString(16).padStart(8, "0")],
  ]);
}

function showStrip(spans, batch, offset, log) {
  element["strip-frame"].hidden = false;
  drawStrip(element.strip, { spans, batch, offset, log });
  const length = log.end - log.start;
  element.slider.max = `${length > 0n ? length - 1n : 0n}`;
  element.slider.value = `${offset - log.start}`;
  element.slider.setAttribute("aria-valuetext", `offset ${offset}`);
  element["log-start"].textContent = `${log.start}`;
  element["log-end"].textContent = `${log.end}`;
  const runs = spans.map(({ first, last }) => (first === last ? `${first}` : `${first}–${last}`));
  const count = spans.reduce((sum, { first, last }) => sum + last - first + 1n, 0n);
  const place = `${shown.name}, partition ${shown.partition}`;
  element.runs.textContent = runs.length === 0
    ? `Of ${place}, nothing is cached.`
    : `Of ${place}: ${count} of ${length} offsets (${runs.slice(0, 20).join(", ")}${runs.length > 20 ? " …" : ""}).`;
  element.previous.disabled = offset <= log.start;
  element.next.disabled = offset + 1n >= log.end;
}

function figures() {
  const stats = cache.stats();
  const told = [
    ["Hits", stats.hits], ["Misses", stats.misses], ["Asked upstream", stats.upstream_fetches], ["Batches", stats.batches],
    ["Size", bytes(stats.size_bytes)], ["Size limit", bytes(stats.limit_bytes)], ["Module memory", bytes(stats.memory_bytes)],
  ];
  element.figures.replaceChildren(...told.map(([name, figure]) => {
    const group = document.createElement("div");
    group.append(tag("dt", name), tag("dd", `${figure}`));
    return group;
  }));
}

function list(target, rows) {
  target.replaceChildren(...rows.flatMap(([name, content]) => [tag("dt", name), tag("dd", content)]));
}

/** Bytes as text where they are text, pretty where they are JSON, else in hexadecimal digits. */
function value(given) {
  if (given === null) return tag("span", "none", "none");
  if (given.length === 0) return tag("span", "empty", "none");
  const shownBytes = given.subarray(0, 64 << 10);
  const rest = given.length > shownBytes.length ? `\n… ${bytes(given.length)} in all` : "";
  return tag("pre", text(shownBytes, rest !== "") + rest);
}

function text(given, isCut) {
  let said;
  try {
    said = strict.decode(given, { stream: isCut });
    // A cut inside a character is no error; nothing of it stays for the next.
    if (isCut) try { strict.decode(); } catch { /* the half character */ }
  } catch {
    return [...given.subarray(0, 4096)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  }
  if (!isCut && /^\s*[[{]/.test(said)) {
    try {
      return JSON.stringify(JSON.parse(said), null, 2);
    } catch {
      // It only looks like JSON.
    }
  }
  return said;
}

function tag(name, content, className = "") {
  const made = document.createElement(name);
  made.append(content);
  if (className !== "") made.className = className;
  return made;
}

function time(milliseconds) {
  if (milliseconds < 0n) return "unknown";
  const date = new Date(Number(milliseconds));
  return Number.isNaN(date.getTime()) ? `${milliseconds} ms` : date.toISOString().replace("T", " ").replace("Z", " UTC");
}

function bytes(count) {
  if (count < 1024) return `${count} bytes`;
  return count < MEBI ? `${(count / 1024).toFixed(1)} KiB` : `${(count / MEBI).toFixed(1)} MiB`;
}

function say(sentence, isBad = false) {
  element.said.textContent = sentence;
  element.said.classList.toggle("bad", isBad);
}

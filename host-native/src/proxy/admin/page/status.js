"use strict";
// Everything that comes from a broker, names of topics for instance, is put into the page as text and never as markup.

const POLL_MS = 2000;
const HIDDEN_POLL_MS = 15000;
const PATIENCE_MS = 10000;
const FILTER_DELAY_MS = 200;
const SVG = "http://www.w3.org/2000/svg";
const BUCKETS = 120;

const by = (id) => document.getElementById(id);
const view = { topic: "", sort: "topic", order: "up", from: 0, limit: 50, matching: 0 };
let isPaused = false;
let lastAnswer = null;

const number = new Intl.NumberFormat(undefined);
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

function bytes(count) {
  let unit = 0;
  while (count >= 1024 && unit < UNITS.length - 1) {
    count /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || count >= 100 ? 0 : 1;
  return `${count.toFixed(digits)} ${UNITS[unit]}`;
}

const rate = (count) => `${bytes(count)}/s`;
const perSecond = (count) => `${count >= 100 ? number.format(Math.round(count)) : count.toFixed(1)}/s`;

// Everything and nothing are said only where they are true.
function percent(share) {
  if (share === null || share === undefined) return "–";
  const rounded = share * 100;
  if (rounded > 0 && rounded < 0.1) return "< 0.1 %";
  if (rounded > 99.9 && rounded < 100) return "> 99.9 %";
  return `${rounded.toFixed(rounded > 0 && rounded < 100 ? 1 : 0)} %`;
}

function duration(seconds) {
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min` : `${seconds} s`;
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const say = (id, text) => put(by(id), text);

function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function draw(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// --- now ---

const lastOf = (values) => (values.length > 0 ? values[values.length - 1] : 0);

function showNow(status) {
  const { cache, proxy, history } = status;
  const badge = by("state");
  say("state", status.is_ready ? "ready" : "ending");
  badge.className = `badge ${status.is_ready ? "good" : "bad"}`;
  const cluster = status.cluster_id === null ? "" : `cluster ${status.cluster_id} · `;
  say("facts", `${cluster}${proxy.brokers.length} ${proxy.brokers.length === 1 ? "broker" : "brokers"} · up for ${duration(status.uptime_seconds)}`);
  say("version", status.version);
  say("hit-ratio", cache.lookups === 0 ? "–" : percent(cache.hits / cache.lookups));
  say("hit-ratio-note", `${number.format(cache.hits)} of ${number.format(cache.lookups)} lookups`);
  say("bytes-saved", bytes(cache.bytes_saved));
  const brought = cache.bytes_saved + cache.upstream_bytes;
  say("bytes-saved-note", brought === 0 ? "nothing was read yet" : `${percent(cache.bytes_saved / brought)} of what was read`);
  const limit = cache.effective_limit_bytes;
  say("size", bytes(cache.size_bytes));
  by("size-meter").value = limit === 0 ? 0 : Math.min(1, cache.size_bytes / limit);
  say("size-note", limit === 0 ? "caches nothing: the limit is 0" : `${percent(cache.size_bytes / limit)} of ${bytes(limit)}`);
  say("client-rate", rate(lastOf(history.sent_bytes_per_second)));
  say("client-note", `${perSecond(lastOf(history.requests_per_second))} requests`.replace("/s requests", " requests/s"));
  say("upstream-rate", rate(lastOf(history.upstream_bytes_per_second)));
  say("upstream-note", `${perSecond(lastOf(history.upstream_fetches_per_second))} fetches`.replace("/s fetches", " fetches/s"));
  say("connections", number.format(proxy.connections));
  say("connections-note", `of ${number.format(proxy.connections_limit)} at most`);
}

// --- before ---

const CHARTS = [
  { title: "Hit ratio", series: [{ of: "hit_ratio" }], format: percent, top: () => 1 },
  { title: "Bytes saved", series: [{ of: "bytes_saved_per_second" }], format: rate },
  { title: "Traffic", series: [{ of: "sent_bytes_per_second", name: "to clients" }, { of: "upstream_bytes_per_second", name: "from brokers" }], format: rate },
  { title: "Cache size", series: [{ of: "size_bytes", name: "held" }, { limit: true, name: "limit" }], format: bytes },
];
const WIDTH = 600;
const HEIGHT = 120;

function makeCharts() {
  for (const [index, chart] of CHARTS.entries()) {
    const says = make("figcaption", { id: `chart-${index}` });
    const title = make("h3", {}, chart.title);
    const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": chart.title, "aria-describedby": `chart-${index}` });
    svg.append(draw("path", { class: "grid", d: `M0 1H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}` }));
    chart.lines = chart.series.map((_, at) => {
      const line = draw("path", { class: at === 0 ? "first" : "second", d: "" });
      svg.append(line);
      return line;
    });
    const legend = make("span", { class: "legend", "aria-hidden": "true" });
    if (chart.series.length > 1) {
      chart.series.forEach((series, at) => legend.append(make("i", { class: at === 0 ? "first" : "second" }), series.name));
    }
    chart.scale = make("span", {});
    chart.begin = make("span", {});
    chart.says = says;
    const figure = make("figure", { class: "chart" },
      make("div", { class: "head" }, title, legend),
      make("div", { class: "scale", "aria-hidden": "true" }, chart.scale, make("span", {}, "0")),
      svg,
      make("div", { class: "when", "aria-hidden": "true" }, chart.begin, make("span", {}, "now")),
      says);
    by("charts").append(figure);
  }
}

// The next 1, 2 or 5 times a power of ten of B, KiB, MiB and so on.
function roundUp(value) {
  if (value <= 0) return 1024;
  const base = 1024 ** Math.floor(Math.log(value) / Math.log(1024));
  const step = 10 ** Math.floor(Math.log10(value / base));
  const factor = [1, 2, 5, 10].find((each) => each * step * base >= value) ?? 10;
  return factor * step * base;
}

function path(values, top, length) {
  let isDown = false;
  let d = "";
  values.forEach((value, at) => {
    if (value === null) {
      isDown = false;
      return;
    }
    const x = (at / length) * WIDTH;
    const y = 1 + (1 - Math.min(1, value / top)) * (HEIGHT - 2);
    d += `${isDown ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    // A value is one of a stretch of time, and seen between gaps, too.
    if (at + 1 === length || values[at + 1] === null) d += `h${(WIDTH / length).toFixed(1)}`;
    isDown = true;
  });
  return d;
}

function showBefore(status) {
  const { history } = status;
  const length = history.hit_ratio.length;
  const ago = duration(length * history.interval_seconds);
  for (const chart of CHARTS) {
    const columns = chart.series.map((series) => (series.limit ? Array(length).fill(status.cache.effective_limit_bytes) : history[series.of]));
    const all = columns.flat().filter((value) => value !== null);
    const top = chart.top ? chart.top() : roundUp(Math.max(0, ...all));
    put(chart.scale, chart.format(top));
    put(chart.begin, `${ago} ago`);
    columns.forEach((values, at) => chart.lines[at].setAttribute("d", path(values, top, length)));
    put(chart.says, columns.map((values, at) => words(chart, chart.series[at], values)).join("; "));
  }
}

function words(chart, series, values) {
  const known = values.filter((value) => value !== null);
  const name = series.name ? `${series.name} ` : "";
  if (known.length === 0) return `${name}nothing yet`;
  if (series.limit) return `${name}${chart.format(known[0])}`;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  return `${name}${chart.format(known[known.length - 1])} now, ${chart.format(low)} to ${chart.format(high)}`;
}

// --- what is cached ---

function label(partition) {
  const ranges = partition.ranges_count === 1 ? "1 range" : `${number.format(partition.ranges_count)} ranges`;
  const told = partition.ranges.map(([first, last]) => `${first}–${last}`).join(", ");
  const more = partition.ranges_count > partition.ranges.length ? " and more" : "";
  return `${percent(partition.cached_percent / 100)} cached, ${ranges}: ${told}${more}`;
}

function strip(svg, partition) {
  const levels = partition.buckets;
  svg.setAttribute("viewBox", `0 0 ${Math.max(1, levels.length)} 1`);
  const text = label(partition);
  svg.setAttribute("aria-label", text);
  const title = draw("title", {});
  title.textContent = text;
  const pieces = [title];
  let at = 0;
  while (at < levels.length) {
    let end = at + 1;
    while (end < levels.length && levels[end] === levels[at]) end += 1;
    if (levels[at] > 0) {
      // What is there at all has to be seen.
      const opacity = levels[at] === 100 ? 1 : 0.35 + 0.4 * (levels[at] / 100);
      pieces.push(draw("rect", { x: at, y: 0, width: end - at, height: 1, "fill-opacity": opacity.toFixed(2) }));
    }
    at = end;
  }
  svg.replaceChildren(...pieces);
}

const rows = new Map();

function makeRow() {
  const row = {
    topic: make("th", { scope: "row" }),
    partition: make("td", { class: "number" }),
    strip: draw("svg", { class: "strip", role: "img", preserveAspectRatio: "none" }),
    first: make("span", {}),
    last: make("span", {}),
    share: make("td", { class: "number" }),
    ranges: make("td", { class: "number extra" }),
    size: make("td", { class: "number extra" }),
    drawn: "",
  };
  const wide = make("td", { class: "wide" });
  wide.append(row.strip, make("div", { class: "ends", "aria-hidden": "true" }, row.first, row.last));
  row.element = make("tr", {}, row.topic, row.partition, wide, row.share, row.ranges, row.size);
  return row;
}

function fill(row, partition) {
  put(row.topic, partition.topic);
  put(row.partition, String(partition.partition));
  put(row.first, number.format(partition.log_start_offset));
  put(row.last, number.format(partition.high_watermark));
  put(row.share, percent(partition.cached_percent / 100));
  put(row.ranges, number.format(partition.ranges_count));
  put(row.size, number.format(partition.high_watermark - partition.log_start_offset));
  const drawn = JSON.stringify([partition.buckets, partition.ranges, partition.ranges_count]);
  if (drawn !== row.drawn) {
    row.drawn = drawn;
    strip(row.strip, partition);
  }
}

// Rows are kept, so that what a reader stands on does not vanish under it every two seconds.
function showCoverage(coverage) {
  const shown = [];
  const wanted = new Set();
  for (const partition of coverage.partitions) {
    const key = `${partition.topic_id}/${partition.partition}`;
    wanted.add(key);
    const row = rows.get(key) ?? makeRow();
    rows.set(key, row);
    fill(row, partition);
    shown.push(row.element);
  }
  for (const key of [...rows.keys()]) if (!wanted.has(key)) rows.delete(key);
  const body = by("rows");
  const isSame = body.children.length === shown.length && shown.every((row, at) => body.children[at] === row);
  if (!isSame) body.replaceChildren(...shown);
  view.matching = coverage.matching;
  const { from, partitions, matching, total } = coverage;
  const what = matching === total ? `${number.format(total)}` : `${number.format(matching)} that match, of ${number.format(total)}`;
  say("found", matching === 0 ? `none of ${number.format(total)} partitions` : `Partitions ${number.format(from + 1)}–${number.format(from + partitions.length)} of ${what}`);
  by("table").hidden = matching === 0;
  const empty = by("empty");
  empty.hidden = matching !== 0;
  say("empty", total === 0 ? "Nothing is cached yet. What clients fetch through the proxy shows here." : "No partition is called so.");
  showPager();
}

function showPager() {
  const pages = Math.max(1, Math.ceil(view.matching / view.limit));
  const page = Math.floor(view.from / view.limit) + 1;
  say("page", `Page ${number.format(page)} of ${number.format(pages)}`);
  by("first").disabled = page <= 1;
  by("previous").disabled = page <= 1;
  by("next").disabled = page >= pages;
  by("last").disabled = page >= pages;
}

// --- asking ---

async function ask(path, parameters, signal) {
  const answer = await fetch(`${path}?${new URLSearchParams(parameters)}`, { signal, cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status} ${(await answer.text()).trim()}`);
  return answer.json();
}

let coverageAsked = 0;

async function askCoverage(signal) {
  coverageAsked += 1;
  const mine = coverageAsked;
  const { topic, sort, order, from, limit } = view;
  const coverage = await ask("api/coverage", { topic, sort, order, from, limit, buckets: BUCKETS }, signal);
  // A later question may have been answered already.
  if (mine !== coverageAsked) return;
  if (coverage.partitions.length === 0 && coverage.matching > 0) {
    view.from = Math.floor((coverage.matching - 1) / view.limit) * view.limit;
    await askCoverage(signal);
    return;
  }
  showCoverage(coverage);
}

async function askStatus(signal) {
  const status = await ask("api/status", { history: by("span").value }, signal);
  showNow(status);
  showBefore(status);
}

async function attempt(...questions) {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), PATIENCE_MS);
  try {
    await Promise.all(questions.map((question) => question(patience.signal)));
    lastAnswer = new Date();
    by("trouble").hidden = true;
    document.body.classList.remove("stale");
  } catch (error) {
    const since = lastAnswer === null ? "" : ` What is shown is of ${lastAnswer.toLocaleTimeString()}.`;
    const why = error.name === "AbortError" ? "no answer in time" : error.message;
    const told = `The proxy does not answer (${why}).${since} Trying again.`;
    say("trouble", told);
    by("trouble").hidden = false;
    document.body.classList.add("stale");
  } finally {
    clearTimeout(timer);
  }
}

async function poll() {
  const began = performance.now();
  if (!isPaused) await attempt(askStatus, askCoverage);
  // What takes long to gather is asked for less often.
  const took = performance.now() - began;
  setTimeout(poll, Math.max(document.hidden ? HIDDEN_POLL_MS : POLL_MS, 5 * took));
}

// --- listening ---

function show(change) {
  Object.assign(view, change);
  attempt(askCoverage);
}

function listen() {
  let typed = 0;
  by("filter").addEventListener("input", (event) => {
    clearTimeout(typed);
    typed = setTimeout(() => show({ topic: event.target.value.trim(), from: 0 }), FILTER_DELAY_MS);
  });
  by("search").addEventListener("submit", (event) => event.preventDefault());
  by("limit").addEventListener("change", (event) => show({ limit: Number(event.target.value), from: 0 }));
  by("span").addEventListener("change", () => attempt(askStatus));
  by("first").addEventListener("click", () => show({ from: 0 }));
  by("previous").addEventListener("click", () => show({ from: Math.max(0, view.from - view.limit) }));
  by("next").addEventListener("click", () => show({ from: view.from + view.limit }));
  by("last").addEventListener("click", () => show({ from: Math.max(0, Math.ceil(view.matching / view.limit) - 1) * view.limit }));
  by("pause").addEventListener("click", (event) => {
    isPaused = !isPaused;
    event.target.setAttribute("aria-pressed", String(isPaused));
  });
  for (const button of document.querySelectorAll("thead button")) {
    button.addEventListener("click", () => {
      const heading = button.closest("th");
      const isUp = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of document.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      show({ sort: button.dataset.sort, order: isUp ? "up" : "down", from: 0 });
    });
  }
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input, select, textarea");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      by("filter").focus();
    }
  });
}

makeCharts();
listen();
poll();

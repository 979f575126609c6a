const WIDTH = 1000;
const HEIGHT = 40;
/** So narrow a run would not be seen. */
const LEAST = 2;

/** Draws a log from its start to its end: what is cached of it, one batch, and where one record lies. */
export function drawStrip(svg, { spans, batch, offset, log }) {
  const shapes = spans.map(({ first, last }) => run(log, first, last, "cached"));
  if (batch) shapes.push(run(log, batch.base, batch.last, "batch"));
  const pin = shape("line", { class: "pin", y1: 0, y2: HEIGHT });
  const middle = (place(log, offset) + place(log, offset + 1n)) / 2;
  pin.setAttribute("x1", middle);
  pin.setAttribute("x2", middle);
  svg.replaceChildren(...shapes, pin);
}

/** The offset at a share of the strip, from 0 to 1. */
export function offsetAt({ start, end }, share) {
  const length = end - start;
  if (length <= 0n) return start;
  const steps = 1_000_000;
  const at = start + (length * BigInt(Math.floor(Math.min(Math.max(share, 0), 1) * steps))) / BigInt(steps);
  return at < end ? at : end - 1n;
}

function run(log, first, last, name) {
  const from = place(log, first);
  const width = Math.max(place(log, last + 1n) - from, LEAST);
  return shape("rect", { class: name, x: Math.min(from, WIDTH - LEAST), y: 0, width, height: HEIGHT });
}

/** Where an offset begins. What lies outside of the log is at its edge. */
function place({ start, end }, offset) {
  const length = end - start;
  if (length <= 0n || offset <= start) return 0;
  if (offset >= end) return WIDTH;
  return Number(((offset - start) * 1_000_000n) / length) * (WIDTH / 1_000_000);
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

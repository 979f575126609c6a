// What a real Apache Kafka 4.4.0 was asked and answered, as frames.
import { readFileSync, readdirSync } from "node:fs";

const folder = new URL(process.env.KACHET_FIXTURES);
const correlationId = 7;

export const names = readdirSync(folder)
  .filter((name) => name.endsWith(".request"))
  .map((name) => name.slice(0, -".request".length))
  .sort();

export function versionOf(name) {
  return Number(name.slice(1, 3));
}

export function requestFrame(name, id = correlationId) {
  const version = versionOf(name);
  const header = Buffer.alloc(version >= 12 ? 15 : 14);
  header.writeInt16BE(1, 0);
  header.writeInt16BE(version, 2);
  header.writeInt32BE(id, 4);
  header.writeInt16BE(4, 8);
  header.write("test", 10);
  return join(header, readFileSync(new URL(`${name}.request`, folder)));
}

export function responseFrame(name, id = correlationId) {
  const header = Buffer.alloc(versionOf(name) >= 12 ? 5 : 4);
  header.writeInt32BE(id, 0);
  return join(header, readFileSync(new URL(`${name}.response`, folder)));
}

function join(...parts) {
  return new Uint8Array(Buffer.concat(parts));
}

/** The partitions that a fixture of version 13 asks for. */
export function asked(name) {
  const body = readFileSync(new URL(`${name}.request`, folder));
  let at = 4 + 4 + 4 + 4 + 1 + 4 + 4;
  const found = [];
  // Counts are below 127, so that each takes one byte; a count of n stands as n + 1.
  for (let topics = body[at++] - 1; topics > 0; topics -= 1) {
    const topic = new Uint8Array(body.subarray(at, at + 16));
    at += 16;
    for (let partitions = body[at++] - 1; partitions > 0; partitions -= 1) {
      found.push({ topic, partition: body.readInt32BE(at) });
      at += 4 + 4 + 8 + 4 + 8 + 4 + 1;
    }
    at += 1;
  }
  return found;
}

/** The topic's id of a fixture from version 13 on, as its 16 bytes: it stands behind the array of topics. */
export function topicOf(name) {
  const version = versionOf(name);
  const body = readFileSync(new URL(`${name}.request`, folder));
  const topics = (version <= 14 ? 4 : 0) + 4 + 4 + 4 + 1 + 4 + 4;
  return new Uint8Array(body.subarray(topics + 1, topics + 17));
}

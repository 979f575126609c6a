const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * A record as a line of JSON with the fields of `kcat -J`, as the gateway writes it, but for the kind of the timestamp.
 * Numbers are written digit by digit: an offset may be larger than what a JavaScript number holds exactly.
 */
export function jsonLine(topic, partition, { offset, timestamp, key, value, headers }) {
  const members = [`"topic":${JSON.stringify(topic)}`, `"partition":${partition}`, `"offset":${offset}`, `"ts":${timestamp}`];
  if (headers.length > 0) {
    const parts = headers.flatMap((header) => [header.key, text(header.value)]);
    const isText = parts.every((part) => part !== undefined);
    const encoded = headers.flatMap((header) => [new TextEncoder().encode(header.key).toBase64(), base64(header.value)]);
    members.push(`"headers":${JSON.stringify(isText ? parts : encoded)}`);
    if (!isText) members.push('"headers_encoding":"base64"');
  }
  for (const [name, bytes] of [["key", key], ["payload", value]]) {
    const said = text(bytes);
    members.push(`"${name}":${JSON.stringify(said === undefined ? base64(bytes) : said)}`);
    if (said === undefined) members.push(`"${name}_encoding":"base64"`);
  }
  return `{${members.join(",")}}\n`;
}

/** `null` for none, `undefined` for what is not UTF-8. */
function text(bytes) {
  if (bytes === null) return null;
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

function base64(bytes) {
  return bytes === null ? null : bytes.toBase64();
}

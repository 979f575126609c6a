// What becomes of a fixture in a cache, as a line of `answers.txt`. It runs in Node, in workerd and in browsers.

/** Asks for a fixture twice, and says what was asked upstream, what came of it and what is kept. */
export function answerLine(Cache, name, request, response) {
  const cache = new Cache({ maxStaleness: Infinity });
  const plan = cache.plan(request);
  const asks = crc32(plan.upstream);
  const answer = cache.absorb(plan, response);
  if (answer.length !== response.length || answer.some((byte, at) => byte !== response[at])) {
    throw new Error(`${name}: the answer is not what the broker gave`);
  }
  const again = cache.plan(request);
  const second = again.response === null ? `asks ${crc32(again.upstream)}` : `cached ${crc32(again.response)}`;
  again.free();
  const line = `${name} asks ${asks} then ${second} keeps ${cache.stats().batches} snapshot ${cache.snapshot().length}`;
  cache.free();
  return line;
}

/** The lines of fixtures whose frames are given in base64. */
export function answerLines(Cache, fixtures) {
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return fixtures.map(({ name, request, response }) => answerLine(Cache, name, bytes(request), bytes(response)));
}

export function crc32(bytes) {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (0xedb8_8320 & -(crc & 1));
  }
  return ((crc ^ 0xffff_ffff) >>> 0).toString(16).padStart(8, "0");
}

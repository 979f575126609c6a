/** What a binding may say, and what holds where there is none. Sizes in bytes, times in milliseconds. */
const NUMBERS = {
  // An isolate may take 128 MB, and WebAssembly's memory grows and never shrinks: the cache, one answer, one batch.
  SIZE_LIMIT: { fallback: 32 << 20, least: 0, most: 64 << 20 },
  MAX_STALENESS_MS: { fallback: 60_000, least: 0, most: Infinity },
  SNAPSHOT_INTERVAL_MS: { fallback: 30_000, least: 0, most: 86_400_000 },
};

/** Reads the bindings of text. Throws what is wrong with one. */
export function settingsOf(env) {
  const settings = {};
  for (const [name, { fallback, least, most }] of Object.entries(NUMBERS)) {
    const value = env[name] ? Number(env[name]) : fallback;
    const isWhole = Number.isInteger(value) || value === Infinity;
    if (!isWhole || value < least || value > most) {
      throw new Error(`the binding ${name} is ${env[name]}; it takes a whole number from ${least} to ${most}`);
    }
    settings[name] = value;
  }
  if (!/^https?:\/\/[^/]+/.test(env.GATEWAY_URL ?? "")) {
    throw new Error("the binding GATEWAY_URL is not set; it takes a URL such as https://gateway.example.org");
  }
  return settings;
}

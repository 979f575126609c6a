/**
 * Kachet in Node: the module is loaded with the package.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import { initSync as loadSync } from "./kachet_wasm.js";
import { ready } from "./module.js";

export * from "./exports.js";

ready(loadSync({ module: readFileSync(new URL("kachet_wasm_bg.wasm", import.meta.url)) }));

/** Does nothing: the module is there. For programs that run in browsers as well. */
export function init(): Promise<void> {
  return Promise.resolve();
}

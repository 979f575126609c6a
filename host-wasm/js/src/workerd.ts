/**
 * Kachet in Workers: the module is loaded with the package, as a compiled module.
 *
 * @module
 */
// @ts-ignore: what a Worker imports from a file of WebAssembly is a compiled module.
import module from "./kachet_wasm_bg.wasm";
import { initSync as loadSync } from "./kachet_wasm.js";
import { ready } from "./module.js";

export * from "./exports.js";

ready(loadSync({ module: module as WebAssembly.Module }));

/** Does nothing: the module is there. For programs that run in browsers as well. */
export function init(): Promise<void> {
  return Promise.resolve();
}

/**
 * Kachet in browsers, and through bundlers that know `new URL(…, import.meta.url)`: call {@link init} first.
 *
 * @module
 */
import load, { initSync as loadSync, type InitInput, type SyncInitInput } from "./kachet_wasm.js";
import { ready } from "./module.js";

export * from "./exports.js";

let loading: Promise<void> | undefined;

/**
 * Loads the module; again is no error. Without a source, the file that lies beside this one is fetched. A load that fails
 * may be tried again.
 */
export function init(source?: InitInput | Promise<InitInput>): Promise<void> {
  loading ??= load(source === undefined ? undefined : { module_or_path: source }).then(ready, (error: unknown) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

/** The same with what is loaded already: a compiled module, or its bytes. */
export function initSync(source: SyncInitInput): void {
  ready(loadSync({ module: source }));
  loading = Promise.resolve();
}

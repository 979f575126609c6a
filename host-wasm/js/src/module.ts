import { KachetError, type ErrorCode } from "./errors.js";
import type { InitOutput } from "./kachet_wasm.js";

let instance: InitOutput | undefined;
let trap: unknown;

/** Takes note that the module is there. */
export function ready(output: InitOutput): void {
  instance = output;
}

/** Whether the module is there and works. */
export function works(): boolean {
  return instance !== undefined && trap === undefined;
}

/** The memory of the module as it is now. It is another one after a call that makes it grow. */
export function memory(): ArrayBuffer {
  return checked().memory.buffer;
}

function checked(): InitOutput {
  if (trap !== undefined) {
    throw new KachetError("TRAPPED", "the module has trapped earlier and cannot be used any more", { cause: trap });
  }
  if (instance === undefined) {
    throw new KachetError("NOT_INITIALISED", "the module is not there yet: call `await init()` first");
  }
  return instance;
}

/** Calls into the module. What it throws becomes a {@link KachetError}; after a trap it is never called again. */
export function call<T>(body: () => T): T {
  checked();
  try {
    return body();
  } catch (error) {
    throw translated(error);
  }
}

function translated(error: unknown): unknown {
  if (typeof error === "string") {
    const space = error.indexOf(" ");
    return new KachetError(error.slice(0, space) as ErrorCode, error.slice(space + 1));
  }
  if (error instanceof WebAssembly.RuntimeError) {
    trap = error;
    return new KachetError("TRAPPED", `the module ran out of memory or met a defect: ${error.message}`, {
      cause: error,
    });
  }
  return error;
}

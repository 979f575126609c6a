// Runs tests that were built for WASI, as a runner of cargo: `node wasi-runner.mjs MODULE ARGUMENTS`. They read the workspace at its
// own path, and write to `/scratch`, which is a temporary folder of theirs.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WASI } from "node:wasi";

const [module, ...words] = process.argv.slice(2);
const workspace = process.env.KACHET_WORKSPACE;
const scratch = mkdtempSync(join(tmpdir(), "kachet-"));
const env = {};
for (const name of ["PROPTEST_CASES", "KACHET_BIT_STEP"]) if (name in process.env) env[name] = process.env[name];
try {
  const wasi = new WASI({
    version: "preview1",
    args: [module, ...words],
    env,
    preopens: { [workspace]: workspace, "/scratch": scratch },
    returnOnExit: true,
  });
  const { instance } = await WebAssembly.instantiate(readFileSync(module), wasi.getImportObject());
  process.exitCode = wasi.start(instance);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

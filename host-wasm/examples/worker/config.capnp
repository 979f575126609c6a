# The Worker in workerd, without Cloudflare:
#
#   export GATEWAY_URL=http://127.0.0.1:8080
#   workerd serve config.capnp --directory-path=snapshots=FOLDER
#
# On Cloudflare wrangler.toml says the same.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "worker", worker = .worker),
    # A gateway may stand beside it or in a private network.
    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true))),
    # The folder in which a key of KV is a file.
    (name = "snapshots", disk = (path = "snapshots", writable = true)),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8787", http = (), service = "worker")],
);

const worker :Workerd.Worker = (
  compatibilityDate = "2026-11-01",
  modules = [
    (name = "worker.js", esModule = embed "worker.js"),
    (name = "gateway.js", esModule = embed "gateway.js"),
    (name = "problem.js", esModule = embed "problem.js"),
    (name = "record.js", esModule = embed "record.js"),
    (name = "settings.js", esModule = embed "settings.js"),
    (name = "snapshots.js", esModule = embed "snapshots.js"),
    # The package: wrangler and bundlers find all of this by themselves.
    (name = "kachet", esModule = "export * from './package/workerd.js';"),
    (name = "package/workerd.js", esModule = embed "node_modules/kachet/workerd.js"),
    (name = "package/kachet.js", esModule = embed "node_modules/kachet/kachet.js"),
    (name = "package/kachet_wasm_bg.wasm", wasm = embed "node_modules/kachet/kachet_wasm_bg.wasm"),
  ],
  bindings = [
    (name = "GATEWAY_URL", fromEnvironment = "GATEWAY_URL"),
    (name = "GATEWAY_TOKEN", fromEnvironment = "GATEWAY_TOKEN"),
    (name = "CLIENT_TOKEN", fromEnvironment = "CLIENT_TOKEN"),
    (name = "SIZE_LIMIT", fromEnvironment = "SIZE_LIMIT"),
    (name = "MAX_STALENESS_MS", fromEnvironment = "MAX_STALENESS_MS"),
    (name = "SNAPSHOT_INTERVAL_MS", fromEnvironment = "SNAPSHOT_INTERVAL_MS"),
    (name = "SNAPSHOTS", kvNamespace = "snapshots"),
  ],
);

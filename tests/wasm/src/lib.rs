//! A host that embeds the component: one instance for each plugin, each with limits of its own for memory, for instructions, for
//! time and for what it hands out.
//!
//! A plugin's cache asks upstream through its host. What a plugin does to itself, by an endless loop or by taking all memory that
//! it can get, ends its own call with an error and leaves the others alone.
#![forbid(unsafe_code)]

pub mod wasi;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use wasmtime::component::{Component, HasSelf, Linker, ResourceAny};
use wasmtime::{Config, Engine, Store, StoreLimits, StoreLimitsBuilder};

pub use self::bindings::exports::kachet::cache::cache::{
    KafkaRecord, Range, Records, Restored, Settings, TopicId,
};
pub use self::bindings::kachet::cache::types::Error as CacheError;

#[expect(missing_docs, reason = "generated from the comments of the world")]
mod bindings {
    wasmtime::component::bindgen!({ world: "kachet", path: "../../host-wasm/wit" });
}

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(10);

/// What a plugin may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Linear memory, in bytes.
    pub memory_bytes: usize,
    /// Instructions of one call, about.
    pub fuel: u64,
    /// How long one call may take, what upstream takes included.
    pub time: Duration,
    /// What one call may hand out, in bytes, about. Less than memory does not suffice: the same bytes may be handed out many times.
    pub answer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            fuel: 10_000_000_000,
            time: Duration::from_secs(60),
            answer_bytes: 64 << 20,
        }
    }
}

/// Answers a Fetch request; both are frames.
pub type Upstream = Box<dyn FnMut(Vec<u8>) -> Result<Vec<u8>> + Send>;

/// What a plugin sees of its host.
pub struct HostState {
    upstream: Upstream,
    started: Instant,
    limits: StoreLimits,
}

impl fmt::Debug for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostState").finish_non_exhaustive()
    }
}

impl bindings::kachet::cache::types::Host for HostState {}

impl bindings::kachet::cache::host::Host for HostState {
    fn upstream(&mut self, request: Vec<u8>) -> Result<Vec<u8>, CacheError> {
        (self.upstream)(request).map_err(|error| CacheError {
            code: "HOST".to_owned(),
            message: format!("{error:#}"),
        })
    }

    fn monotonic_ms(&mut self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn unix_ms(&mut self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Compiles components, and counts the time of their calls.
#[derive(Debug)]
pub struct Runtime {
    engine: Engine,
    ended: Arc<AtomicBool>,
}

impl Runtime {
    /// One with its own clock.
    pub fn new() -> Result<Self> {
        let mut config = Config::new();
        config.consume_fuel(true).epoch_interruption(true);
        let engine = Engine::new(&config).map_err(failed)?;
        let ended = Arc::new(AtomicBool::new(false));
        let (clock, stop) = (engine.clone(), Arc::clone(&ended));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                clock.increment_epoch();
            }
        });
        Ok(Self { engine, ended })
    }

    /// The engine, for components of other worlds.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Compiles a component: a file, or its text.
    pub fn compile(&self, component: impl AsRef<[u8]>) -> Result<Component> {
        Component::new(&self.engine, component).map_err(failed)
    }

    /// A store of an instance with these limits.
    pub fn store(&self, limits: &Limits, upstream: Upstream) -> Result<Store<HostState>> {
        let host = HostState {
            upstream,
            started: Instant::now(),
            limits: StoreLimitsBuilder::new().memory_size(limits.memory_bytes).build(),
        };
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.limits);
        store.set_hostcall_fuel(limits.answer_bytes);
        refill(&mut store, limits)?;
        Ok(store)
    }

    /// An instance of the cache.
    pub fn plugin(
        &self,
        component: &Component,
        limits: Limits,
        settings: &Settings,
        upstream: Upstream,
    ) -> Result<Plugin> {
        let mut linker = Linker::new(&self.engine);
        bindings::Kachet::add_to_linker::<_, HasSelf<_>>(&mut linker, |host: &mut HostState| host)
            .map_err(failed)?;
        let mut store = self.store(&limits, upstream)?;
        let instance = bindings::Kachet::instantiate(&mut store, component, &linker).map_err(failed)?;
        let cache = instance.kachet_cache_cache().store();
        let resource = cache.call_constructor(&mut store, settings).map_err(failed)?;
        Ok(Plugin {
            store,
            instance,
            resource,
            limits,
        })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// What ended a call, in wasmtime's own words.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is mapped over results, which give the error away"
)]
fn failed(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}

/// Gives an instance what it may take for its next call.
pub fn refill(store: &mut Store<HostState>, limits: &Limits) -> Result<()> {
    store.set_fuel(limits.fuel).map_err(failed)?;
    let ticks = limits.time.as_millis() / TICK.as_millis();
    store.set_epoch_deadline(u64::try_from(ticks).unwrap_or(u64::MAX).max(1));
    Ok(())
}

/// An instance of the component with one cache.
pub struct Plugin {
    store: Store<HostState>,
    instance: bindings::Kachet,
    resource: ResourceAny,
    limits: Limits,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A call's outcome: outside, what ended the instance; inside, what the cache says.
pub type Called<T> = Result<Result<T, CacheError>>;

impl Plugin {
    /// Answers a Fetch request out of the cache; both are frames.
    pub fn fetch(&mut self, request: &[u8]) -> Called<Vec<u8>> {
        refill(&mut self.store, &self.limits)?;
        let cache = self.instance.kachet_cache_cache().store();
        cache
            .call_fetch(&mut self.store, self.resource, request)
            .map_err(failed)
    }

    /// The record at an offset.
    pub fn record(&mut self, topic: TopicId, partition: i32, offset: i64) -> Called<Option<KafkaRecord>> {
        refill(&mut self.store, &self.limits)?;
        let cache = self.instance.kachet_cache_cache().store();
        cache
            .call_record(&mut self.store, self.resource, topic, partition, offset)
            .map_err(failed)
    }

    /// Records from an offset on.
    pub fn records(&mut self, range: Range) -> Called<Records> {
        refill(&mut self.store, &self.limits)?;
        let cache = self.instance.kachet_cache_cache().store();
        cache
            .call_records(&mut self.store, self.resource, range)
            .map_err(failed)
    }

    /// The cached batch that holds an offset.
    pub fn batch(&mut self, topic: TopicId, partition: i32, offset: i64) -> Result<Option<Vec<u8>>> {
        refill(&mut self.store, &self.limits)?;
        let cache = self.instance.kachet_cache_cache().store();
        cache
            .call_batch(&mut self.store, self.resource, topic, partition, offset)
            .map_err(failed)
    }

    /// One figure of the cache.
    pub fn figure(&mut self, name: &str) -> Result<u64> {
        refill(&mut self.store, &self.limits)?;
        let cache = self.instance.kachet_cache_cache().store();
        let figures = cache.call_stats(&mut self.store, self.resource).map_err(failed)?;
        let found = figures.into_iter().find(|(found, _)| found == name);
        found
            .map(|(_, value)| value)
            .with_context(|| format!("there is no figure {name}"))
    }

    /// Drops everything, or what is cached of a topic or a partition.
    pub fn invalidate(&mut self, topic: Option<TopicId>, partition: Option<i32>) -> Result<()> {
        refill(&mut self.store, &self.limits)?;
        let cache = self.instance.kachet_cache_cache().store();
        cache
            .call_invalidate(&mut self.store, self.resource, topic, partition)
            .map_err(failed)
    }

    /// The cache as bytes.
    pub fn snapshot(&mut self) -> Called<Vec<u8>> {
        refill(&mut self.store, &self.limits)?;
        let cache = self.instance.kachet_cache_cache().store();
        cache
            .call_snapshot(&mut self.store, self.resource)
            .map_err(failed)
    }

    /// Takes a snapshot over.
    pub fn restore(&mut self, snapshot: &[u8]) -> Called<Restored> {
        refill(&mut self.store, &self.limits)?;
        let cache = self.instance.kachet_cache_cache().store();
        cache
            .call_restore(&mut self.store, self.resource, snapshot)
            .map_err(failed)
    }
}

/// Settings that suit tests: what is cached is served without asking.
pub fn settings(size_limit_bytes: u64) -> Settings {
    Settings {
        size_limit_bytes,
        max_staleness_ms: None,
        segment_size_bytes: None,
        response_limit_bytes: 16 << 20,
        decompressed_limit_bytes: 16 << 20,
        cluster_id: None,
    }
}

/// An id in its two halves.
pub fn topic_id(id: kachet_core::wire::TopicId) -> TopicId {
    let bits = u128::from_be_bytes(id.0);
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    TopicId {
        high: half(bits >> 64),
        low: half(bits),
    }
}

/// Where `cargo xtask wasm` has put the component.
pub fn component_path() -> Result<PathBuf> {
    made("kachet.component.wasm")
}

/// Where `cargo xtask wasm` has put the program for WASI.
pub fn wasi_program_path() -> Result<PathBuf> {
    made("kachet-wasi.wasm")
}

fn made(name: &str) -> Result<PathBuf> {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
    };
    let path = target.join("wasm").join(name);
    ensure!(
        path.is_file(),
        "{} is not there: make it with `cargo xtask wasm`",
        path.display()
    );
    Ok(path)
}

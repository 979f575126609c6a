//! The cache as a layer over any transport: a fetch is answered from memory where the rules allow it, and
//! everything else goes through to the transport below.

mod catalogue;
mod flights;
mod jobs;
mod names;
mod patience;
mod revalidate;
mod single_flight;

use core::time::Duration;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use kachet_core::cache::{Cache as Core, CacheSettings, CoveredPart, KnownOffsets, RestoreError, Restored};
use kachet_core::identity::PartitionKey;
use kachet_core::offset::OffsetSpan;
use kachet_core::statistics::Statistics;
use kachet_core::storage::{MemoryStorage, Storage};
use kachet_core::time::{Instant, MaxStaleness};
use kachet_core::wire::{Crc32c, FetchRequest, FetchResponse, TopicId, TopicRef, WireStr};

use self::catalogue::Catalogue;
pub use self::catalogue::{Notebook, Remembered};
use self::flights::{Flights, Rack};
use crate::cluster::Topology;
use crate::mount::MountPoint;
use crate::transport::{ApiVersions, BrokerAddress, Request, Response, Transport, TransportError};

/// A read-through cache over a transport, and itself a [`Transport`]. Clones share one cache.
///
/// Fetches go through the cache; every other request goes to the transport below as it is. Without a size limit
/// it only passes through.
///
/// ```no_run
/// use kachet::cache::Cache;
/// use kachet::transport::{TcpSettings, TcpTransport};
///
/// let transport = TcpTransport::new(TcpSettings::default());
/// let cache = Cache::builder(transport).size_limit_bytes(256 << 20).build();
/// println!("{} hits", cache.statistics().hits);
/// ```
#[derive(Debug)]
pub struct Cache<T, S: Storage = MemoryStorage> {
    inner: Arc<Inner<T, S>>,
}

#[derive(Debug)]
struct Inner<T, S: Storage> {
    transport: T,
    /// Readers on different processors take different parts of it, so that hits do not fight over a count of readers:
    /// measured, two threads look up 1.8 times as much as one; behind std's lock they look up no more.
    core: ShardedLock<Core<S::Reader>>,
    /// Held while a job is done, so that one is done at a time.
    storage: tokio::sync::Mutex<S>,
    /// Where the core's time begins. The clock of tokio, so that a simulation can hold and advance it.
    started: tokio::time::Instant,
    flights: Flights,
    questions: revalidate::Questions,
    told_names: names::ToldNames,
    catalogue: Catalogue,
    notebook: Option<Arc<dyn Notebook>>,
    /// Where the cache runs, if it is to read from replicas there.
    rack: Option<Rack>,
    /// Set when a broker turned out to be older than topic ids, so that nobody goes on asking for them.
    lacks_topic_ids: AtomicBool,
}

impl<T, S: Storage> Clone for Cache<T, S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

/// Settings of a [`Cache`].
#[derive(Debug)]
pub struct CacheBuilder<T, S = MemoryStorage> {
    transport: T,
    storage: S,
    notebook: Option<Arc<dyn Notebook>>,
    rack: Option<Rack>,
    settings: CacheSettings,
}

impl<T: Transport, S: Storage + 'static> CacheBuilder<T, S> {
    /// Where batches are kept; in memory by default. [`CacheBuilder::restore`] uses what it held before.
    #[must_use]
    pub fn storage<Other: Storage + 'static>(self, storage: Other) -> CacheBuilder<T, Other> {
        CacheBuilder {
            transport: self.transport,
            storage,
            notebook: self.notebook,
            rack: self.rack,
            settings: self.settings,
        }
    }

    /// Where the cache writes down which cluster it is of, and where topics are found, so that after a
    /// [restart](Self::restore) it can serve without any broker if the [staleness bound](Self::max_staleness) says so,
    /// and batches of one cluster are never served for another's (H6).
    #[must_use]
    pub fn notebook(mut self, notebook: Arc<dyn Notebook>) -> Self {
        self.notebook = Some(notebook);
        self
    }

    /// Keeps batches in a folder, and there too what the cluster says of itself. [`CacheBuilder::restore`] uses what it
    /// held before.
    #[must_use]
    pub fn mount(self, mount: MountPoint) -> CacheBuilder<T, MountPoint> {
        let notes = mount.notes();
        self.storage(mount).notebook(Arc::new(notes))
    }

    /// How large segments become, in bytes; by default a 256th of the limit, at most a mebibyte in memory and 64 elsewhere.
    #[must_use]
    pub fn segment_size_bytes(mut self, segment_size_bytes: u32) -> Self {
        self.settings.segment_size_bytes = Some(segment_size_bytes);
        self
    }

    /// The most memory that cached batches may take, in bytes, what readers still hold included. 0, which is the
    /// default, passes every fetch through.
    #[must_use]
    pub fn size_limit_bytes(mut self, size_limit_bytes: u64) -> Self {
        self.settings.size_limit_bytes = size_limit_bytes;
        self
    }

    /// How old what is known of a partition may be when a hit is served from it; one second by default. Past half
    /// of it the cache asks in the background, past all of it before it answers.
    #[must_use]
    pub fn max_staleness(mut self, max_staleness: MaxStaleness) -> Self {
        self.settings.max_staleness = max_staleness;
        self
    }

    /// How long ago a batch of a compacted topic may have been fetched when it is served; one minute by default. Brokers
    /// do not tell what the cleaner has rewritten, so this bounds how long a removed record lives on.
    #[must_use]
    pub fn compacted_max_staleness(mut self, max_staleness: MaxStaleness) -> Self {
        self.settings.compacted_max_staleness = max_staleness;
        self
    }

    /// The rack that the cache runs in, as `client.rack` of Kafka's consumers: what is not cached is then read from the
    /// replica in this rack that the leader names, where brokers have a selector of replicas (KIP-392, H16), for Fetch
    /// versions from 11 on. The leader is read where the replica fails, and asked where it has nothing. Fetches that name a
    /// rack themselves go out as they are. By default, and for an empty rack, leaders are read.
    #[must_use]
    pub fn rack(mut self, rack: &str) -> Self {
        self.rack = Rack::new(rack);
        self
    }

    /// The cache, empty.
    pub fn build(self) -> Cache<T, S> {
        let core = Core::new(self.settings, CRC32C);
        self.build_over(core, Catalogue::default())
    }

    /// The cache, with what the storage holds. Nothing of it is served before brokers have validated it.
    pub async fn restore(mut self) -> Result<(Cache<T, S>, Restored), RestoreError> {
        let mut core = Core::new(self.settings, CRC32C);
        let catalogue = catalogue::read(self.notebook.clone()).await;
        if let Some(cluster_id) = catalogue.cluster_id() {
            core.identify_cluster(&cluster_id);
        }
        if self.settings.max_staleness == MaxStaleness::Forever {
            for (name, topic_id) in catalogue.names() {
                core.learn_topic(&name, topic_id, Instant::default());
            }
        }
        let restored = core.restore(&mut self.storage, CRC32C).await?;
        let cache = self.build_over(core, catalogue);
        cache.inner.have_jobs_done_soon();
        Ok((cache, restored))
    }

    fn build_over(self, core: Core<S::Reader>, catalogue: Catalogue) -> Cache<T, S> {
        let cache = Cache {
            inner: Arc::new(Inner {
                transport: self.transport,
                core: ShardedLock::new(core),
                storage: tokio::sync::Mutex::new(self.storage),
                started: tokio::time::Instant::now(),
                flights: Flights::default(),
                questions: revalidate::Questions::default(),
                told_names: names::ToldNames::default(),
                catalogue,
                notebook: self.notebook,
                rack: self.rack,
                lacks_topic_ids: AtomicBool::new(false),
            }),
        };
        cache.inner.write_out_regularly();
        cache
    }
}

impl<T: Transport> Cache<T> {
    /// Begins to set a cache over `transport` up.
    pub fn builder(transport: T) -> CacheBuilder<T> {
        CacheBuilder {
            transport,
            storage: MemoryStorage::new(),
            notebook: None,
            rack: None,
            settings: CacheSettings::default(),
        }
    }
}

impl<T: Transport, S: Storage + 'static> Cache<T, S> {
    /// The transport below.
    pub fn transport(&self) -> &T {
        &self.inner.transport
    }

    /// The figures of this moment.
    pub fn statistics(&self) -> Statistics {
        self.inner.read().statistics()
    }

    /// How large segments become, in bytes. A batch that is larger has one of its own.
    pub fn segment_size_bytes(&self) -> u64 {
        self.inner.read().segment_size_bytes()
    }

    /// Changes the size limit; a lower one takes effect at once.
    pub fn set_size_limit_bytes(&self, size_limit_bytes: u64) {
        self.inner.write().set_size_limit_bytes(size_limit_bytes);
        self.inner.have_jobs_done_soon();
    }

    /// Drops what is cached of a topic.
    pub fn invalidate_topic(&self, topic_id: TopicId) {
        self.inner.write().forget_topic(topic_id);
        self.inner.have_jobs_done_soon();
    }

    /// Drops what is cached of a partition. What comes of it from then on is cached again, a fetch that is under way
    /// included.
    ///
    /// ```no_run
    /// # fn example(cache: &kachet::cache::Cache<kachet::transport::TcpTransport>) {
    /// // Nothing of what is cached is served again without asking the broker.
    /// for key in cache.partitions() {
    ///     cache.invalidate_partition(key.topic_id, key.partition);
    /// }
    /// # }
    /// ```
    pub fn invalidate_partition(&self, topic_id: TopicId, partition: i32) {
        let key = PartitionKey { topic_id, partition };
        self.inner.write().forget_partition(key);
        self.inner.have_jobs_done_soon();
    }

    /// Drops the batches of a partition that end before `offset`, for instance because records up to there were deleted
    /// and the [staleness bound](CacheBuilder::max_staleness) is not to be waited for. The batch that `offset` lies in
    /// stays, as it does at a broker (H4).
    pub fn invalidate_below(&self, topic_id: TopicId, partition: i32, offset: i64) {
        let key = PartitionKey { topic_id, partition };
        self.inner.write().drop_below(key, offset);
        self.inner.have_jobs_done_soon();
    }

    /// The partitions of which anything is cached, in order of topic ids and indexes.
    pub fn partitions(&self) -> Vec<PartitionKey> {
        self.inner.read().partitions()
    }

    /// How old what is known of a partition may be when a hit is served from it.
    pub fn max_staleness(&self) -> MaxStaleness {
        self.inner.read().settings().max_staleness
    }

    /// For how long what has just been served at an offset stays within the
    /// [staleness bound](CacheBuilder::max_staleness): zero where the partition is compacted or what was served is not
    /// cached, [`Duration::MAX`] where the bound is forever. Who hands answers on to caches of others tells it them.
    pub fn fresh_for(&self, key: PartitionKey, offset: i64) -> Duration {
        self.inner.read().fresh_for(&key, offset, self.inner.now())
    }

    /// Which offsets of a partition are cached, as runs in ascending order that do not touch each other; none of a
    /// partition that is not cached. Gaps of compacted topics that are known to be empty count as cached. A run may be
    /// evicted, or too old to be served, by the time that it is read.
    pub fn covered(&self, key: PartitionKey) -> Vec<OffsetSpan> {
        self.inner.read().covered(key)
    }

    /// What brokers have said last of a partition's log start and high watermark; `None` unless something of it is cached.
    pub fn known_offsets(&self, key: PartitionKey) -> Option<KnownOffsets> {
        self.inner.read().known_offsets(key)
    }

    /// Like [`Self::covered`] from `offset` on, over no more than so many batches, so that nobody waits for a walk through
    /// a large index.
    pub fn covered_from(&self, key: PartitionKey, offset: i64, batches_max: usize) -> CoveredPart {
        self.inner.read().covered_from(key, offset, batches_max)
    }

    /// The names of topics, as brokers have told them last to whoever has asked by this cache. Topics of which only ids
    /// have come by are missing.
    pub fn topic_names(&self) -> HashMap<TopicId, WireStr> {
        let names = self.inner.catalogue.names().into_iter();
        names.map(|(name, topic_id)| (topic_id, name)).collect()
    }

    /// The cluster's id, once a broker has told it.
    pub fn cluster_id(&self) -> Option<WireStr> {
        self.inner.catalogue.cluster_id()
    }

    /// Drops everything.
    pub fn clear(&self) {
        self.inner.write().clear();
        self.inner.have_jobs_done_soon();
    }

    /// Has everything written that is in memory only, to be called before the process ends; then it is all there after a
    /// restart, which need not walk it. Gives how many bytes the storage did not take. The cache goes on working. In
    /// memory there is nothing to be written.
    pub async fn write_out(&self) -> u64 {
        self.inner.write().write_out(true);
        while self.inner.read().is_busy() {
            self.inner.do_jobs().await;
        }
        self.inner.write_note().await;
        self.inner.read().unwritten_bytes()
    }

    /// What counts against the limit, in bytes, by the running account and summed up anew over everything that is held.
    /// The two are equal; this is for tests of that.
    pub fn audit(&self) -> (u64, u64) {
        self.inner.read().audit()
    }
}

impl<T: Transport, S: Storage + 'static> Transport for Cache<T, S> {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        match request {
            Request::Fetch { version, request } => {
                self.fetch(broker, version, request).await.map(Response::Fetch)
            }
            other @ Request::Other { .. } => {
                let (api_key, version) = (other.api_key(), other.version());
                let response = self.inner.round_trip(broker, other).await?;
                if let Response::Other(body) = &response {
                    self.overhear(broker, api_key, version, body);
                }
                Ok(response)
            }
        }
    }

    /// Those of the transport below; while it cannot reach the broker, the last that it gave, so that what is cached
    /// can be asked for without the broker. Where what is cached may be served without asking, these come first: a host
    /// that is silent would hold up every hit until its connection times out.
    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        if self.inner.asks_nobody()
            && let Some(versions) = self.inner.catalogue.trusted_versions(broker)
        {
            return Ok(versions);
        }
        match self.inner.transport.api_versions(broker).await {
            Ok(versions) => {
                self.inner.catalogue.learn_versions(broker, &versions);
                Ok(versions)
            }
            Err(error) => self.inner.catalogue.versions(broker).ok_or(error),
        }
    }

    /// What brokers said last, where what is cached may be served without asking.
    fn topology(&self, broker: &BrokerAddress, topics: &[TopicRef]) -> Option<Topology> {
        let known = self.inner.asks_nobody();
        known
            .then(|| self.inner.catalogue.topology(broker, topics))
            .flatten()
    }

    fn overhear(&self, broker: &BrokerAddress, api_key: i16, version: i16, body: &Bytes) {
        if let Some(topology) = catalogue::overheard(api_key, version, body) {
            self.inner.identify(topology.cluster_id.as_ref());
            self.inner.catalogue.learn(broker, &topology);
        }
    }

    fn answer_timeout(&self) -> Duration {
        patience::of_callers(&self.inner.transport, 0)
    }
}

impl<T: Transport, S: Storage + 'static> Cache<T, S> {
    async fn fetch(
        &self,
        broker: &BrokerAddress,
        version: i16,
        request: FetchRequest,
    ) -> Result<FetchResponse, TransportError> {
        let inner = &self.inner;
        let arrived_at = inner.now();
        if !inner.read().is_off() {
            inner.resolve_names(broker, &request, arrived_at).await;
            inner.revalidate(broker, &request, arrived_at).await;
        }
        let warmed = inner.warm(&request, arrived_at).await;
        let plan = inner.read().plan_with(request, arrived_at, &warmed);
        let Some(upstream) = plan.upstream_request().cloned() else {
            return Ok(plan.into_response().unwrap_or_default());
        };
        let response = if plan.is_cacheable() {
            // Boxed, so that hits do not carry the room that a miss takes.
            Box::pin(inner.fetch_upstream(broker, version, upstream, arrived_at)).await?
        } else {
            inner.read().count_upstream_fetch();
            let request = upstream;
            match inner
                .round_trip(broker, Request::Fetch { version, request })
                .await?
            {
                Response::Fetch(response) => response,
                Response::Other(_) => return Err(not_a_fetch_response(broker, version)),
            }
        };
        Ok(plan.merge(response))
    }
}

impl<T: Transport, S: Storage> Inner<T, S> {
    /// Of the transport below. A broker that does not understand us is asked anew which versions it answers.
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let response = self.transport.round_trip(broker, request).await;
        if let Err(error) = &response
            && error.may_be_of_version()
        {
            self.catalogue.doubt_versions(broker);
        }
        if let Ok(Response::Fetch(response)) = &response {
            let bytes = response
                .partitions()
                .map(|(_, data)| data.records_size_bytes() as u64);
            self.read().count_upstream_bytes(bytes.sum());
        }
        response
    }
}

fn not_a_fetch_response(broker: &BrokerAddress, version: i16) -> TransportError {
    let message = "the transport answered a Fetch with another response".into();
    TransportError::Message {
        broker: broker.clone(),
        api: "Fetch",
        version,
        message,
    }
}

/// By the processor's own instructions.
const CRC32C: Crc32c = Crc32c::from_fn(crc32c::crc32c);

impl<T, S: Storage> Inner<T, S> {
    fn now(&self) -> Instant {
        Instant::from_start(self.started.elapsed())
    }

    // A panic while the lock was held is a defect elsewhere; the core's figures may then be off, but every batch
    // in it is whole. Failing all fetches from then on would be worse.
    fn read(&self) -> ShardedLockReadGuard<'_, Core<S::Reader>> {
        self.core.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> ShardedLockWriteGuard<'_, Core<S::Reader>> {
        self.core.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is cached is served however old it is.
    fn asks_nobody(&self) -> bool {
        self.read().settings().max_staleness == MaxStaleness::Forever
    }

    fn identify(&self, cluster_id: Option<&WireStr>) {
        if let Some(cluster_id) = cluster_id {
            self.write().identify_cluster(cluster_id);
        }
    }
}

//! The cache as an embedder sees it: frames in, frames out.

use alloc::vec::Vec;

use bytes::Bytes;
use kachet_core::cache::{CacheSettings, Harvest, MemoryCache, Plan};
use kachet_core::identity::PartitionKey;
use kachet_core::offset::OffsetSpan;
use kachet_core::statistics::Statistics;
use kachet_core::time::{Instant, MaxStaleness};
use kachet_core::wire::{
    BatchEntry, Batches, Crc32c, FetchRequest, FetchResponse, PartitionData, TopicId, TopicRef, WireStr,
};

use crate::clock::Moment;
use crate::error::Error;
use crate::frame::{RequestFrame, RequestHeader, decode_response, encode_response};

pub(crate) const CRC32C: Crc32c = Crc32c::COMPACT;

/// The longest request that is looked at, in bytes: some ten thousand partitions.
pub(crate) const REQUEST_LIMIT_BYTES: usize = 1 << 20;

/// Settings of an [`EmbeddedCache`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most that may be held, in bytes, index included. 0 passes every fetch through.
    pub size_limit_bytes: u64,
    /// How old an answer may be when a hit is served from it.
    pub max_staleness: MaxStaleness,
    /// How large segments become, in bytes; `None` for a 256th of the limit, a mebibyte at most.
    pub segment_size_bytes: Option<u32>,
    /// The longest response that is taken from upstream, in bytes.
    pub response_limit_bytes: usize,
    /// The most that a batch may expand to when its records are read, in bytes.
    pub decompressed_limit_bytes: usize,
    /// The cluster upstream, so that snapshots of another one are refused.
    pub cluster_id: Option<WireStr>,
}

impl Default for Settings {
    /// 16 MiB, one second, responses of 64 MiB, batches of 32 MiB.
    fn default() -> Self {
        Self {
            size_limit_bytes: 16 << 20,
            max_staleness: MaxStaleness::default(),
            segment_size_bytes: None,
            response_limit_bytes: 64 << 20,
            decompressed_limit_bytes: 32 << 20,
            cluster_id: None,
        }
    }
}

/// A cache in memory for one cluster. It has no clock: every call that needs the time is told it.
#[derive(Debug)]
pub struct EmbeddedCache {
    pub(crate) core: MemoryCache,
    pub(crate) settings: Settings,
}

/// What came of a request, and what is left to ask upstream.
#[derive(Debug)]
pub struct Planned {
    header: RequestHeader,
    plan: Plan,
    asked_at: Instant,
    /// Whether anything is cached, so that upstream's answer is not the whole one.
    is_partial: bool,
}

/// A partition that the cache answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedPart {
    /// The topic, by id.
    pub topic_id: TopicId,
    /// The partition's index.
    pub partition: i32,
    /// The offset that was asked for.
    pub fetch_offset: i64,
    /// The offsets from the first to the last batch; `None` where nothing fits the limits of the request.
    pub span: Option<OffsetSpan>,
    /// Bytes of records.
    pub size_bytes: usize,
}

impl EmbeddedCache {
    /// An empty cache.
    pub fn new(settings: Settings) -> Self {
        let core = CacheSettings {
            size_limit_bytes: settings.size_limit_bytes,
            segment_size_bytes: settings.segment_size_bytes,
            max_staleness: settings.max_staleness,
            // Nothing is validated here without a fetch, which shows what the cleaner has rewritten: every batch is at least as new
            // as its partition.
            compacted_max_staleness: MaxStaleness::Forever,
        };
        let mut core = MemoryCache::new(core, CRC32C);
        if let Some(cluster_id) = &settings.cluster_id {
            core.identify_cluster(cluster_id);
        }
        Self { core, settings }
    }

    /// What is cached of the request in `frame`, and what is left to ask upstream.
    pub fn plan(&mut self, frame: &Bytes, now: Moment) -> Result<Planned, Error> {
        within("request", frame.len(), REQUEST_LIMIT_BYTES)?;
        let RequestFrame { header, request } = RequestFrame::decode(frame)?;
        let asked_at = now.instant();
        self.drop_stale(&request, asked_at);
        let plan = self.core.plan(request, asked_at);
        let is_partial = plan.has_hits() && plan.upstream_request().is_some();
        Ok(Planned {
            header,
            plan,
            asked_at,
            is_partial,
        })
    }

    /// Counts a fetch that goes upstream.
    pub fn count_upstream_fetch(&self) {
        self.core.count_upstream_fetch();
    }

    /// Keeps what upstream answered to [`Planned::upstream`]. Gives the answer as it was understood, for
    /// [`Planned::merge`].
    pub fn absorb(&mut self, planned: &Planned, frame: &Bytes, now: Moment) -> Result<FetchResponse, Error> {
        within("response", frame.len(), self.settings.response_limit_bytes)?;
        let header = &planned.header;
        let response = decode_response(frame, header.version, header.correlation_id)?;
        if let Some(request) = planned.plan.upstream_request()
            && planned.plan.is_cacheable()
        {
            // What has become too old meanwhile would make the new answer as old.
            self.drop_stale(request, now.instant());
            for harvest in Harvest::gather(request, &response, CRC32C) {
                self.core.absorb(harvest, planned.asked_at);
            }
        }
        Ok(response)
    }

    /// Drops those of the request's partitions of which nothing may be served any more. A host that can ask leaders would
    /// validate them instead.
    pub(crate) fn drop_stale(&mut self, request: &FetchRequest, now: Instant) {
        for doubtful in self.core.doubtful(request, now) {
            if doubtful.blocks_hits {
                self.core.forget_partition(doubtful.key);
            }
        }
    }

    /// The figures of this moment.
    pub fn statistics(&self) -> Statistics {
        self.core.statistics()
    }

    /// Changes the size limit, in bytes; a lower one takes effect at once.
    pub fn set_size_limit_bytes(&mut self, size_limit_bytes: u64) {
        self.core.set_size_limit_bytes(size_limit_bytes);
    }

    /// Drops everything.
    pub fn invalidate(&mut self) {
        self.core.clear();
    }

    /// Drops what is cached of a topic.
    pub fn invalidate_topic(&mut self, topic_id: TopicId) {
        self.core.forget_topic(topic_id);
    }

    /// Drops what is cached of a partition.
    pub fn invalidate_partition(&mut self, topic_id: TopicId, partition: i32) {
        self.core.forget_partition(PartitionKey { topic_id, partition });
    }

    /// Drops the batches of a partition that end before `offset`.
    pub fn invalidate_below(&mut self, topic_id: TopicId, partition: i32, offset: i64) {
        self.core.drop_below(PartitionKey { topic_id, partition }, offset);
    }

    /// The partitions of which anything is cached, in order of topic ids and indexes.
    pub fn partitions(&self) -> Vec<PartitionKey> {
        self.core.partitions()
    }

    /// Which offsets of a partition are cached, whatever their age, as runs in ascending order.
    pub fn covered(&self, topic_id: TopicId, partition: i32) -> Vec<OffsetSpan> {
        self.core.covered(PartitionKey { topic_id, partition })
    }
}

impl Planned {
    /// The request to send upstream; `None` if the cache answers everything.
    pub fn upstream(&self) -> Result<Option<Bytes>, Error> {
        let request = self.plan.upstream_request();
        request
            .map(|request| RequestFrame::encode(&self.header, request))
            .transpose()
    }

    /// Whether there is something to ask upstream.
    pub fn needs_upstream(&self) -> bool {
        self.plan.upstream_request().is_some()
    }

    /// Bytes of the header in front of the body, in [`Self::upstream`] too.
    pub fn header_bytes(&self) -> usize {
        self.header.size_bytes()
    }

    /// Whether what upstream answers is the whole answer, so that it can be passed on as it came.
    pub fn is_all_upstream(&self) -> bool {
        !self.is_partial && self.plan.upstream_request().is_some()
    }

    /// Whether upstream's answer is kept, so that others with the same request may share it.
    pub fn is_cacheable(&self) -> bool {
        self.plan.is_cacheable()
    }

    /// The version of Fetch.
    pub fn version(&self) -> i16 {
        self.header.version
    }

    /// The correlation id of the request.
    pub fn correlation_id(&self) -> i32 {
        self.header.correlation_id
    }

    /// The answer from the cache alone; `None` if there is something to ask.
    pub fn into_response(self) -> Result<Option<Vec<u8>>, Error> {
        let Self { header, plan, .. } = self;
        let response = plan.into_response();
        response
            .map(|response| encode_response(&header, &response))
            .transpose()
    }

    /// The answer out of what is cached and what upstream gave.
    pub fn merge(self, upstream: FetchResponse) -> Result<Vec<u8>, Error> {
        encode_response(&self.header, &self.plan.merge(upstream))
    }

    /// The same with an answer that another request of the same content got, under its own correlation id.
    pub fn merge_shared(
        self,
        frame: &Bytes,
        correlation_id: i32,
        response_limit_bytes: usize,
    ) -> Result<Vec<u8>, Error> {
        within("response", frame.len(), response_limit_bytes)?;
        let upstream = decode_response(frame, self.header.version, correlation_id)?;
        self.merge(upstream)
    }

    /// What the cache answers, partition by partition in the order of the request.
    pub fn cached(&self) -> Vec<CachedPart> {
        let mut parts = Vec::new();
        for (topic, fetch_offset, data) in self.plan.hits() {
            // Hits have ids: a name is not known here.
            let TopicRef::Id(topic_id) = topic else { continue };
            parts.push(CachedPart {
                topic_id: *topic_id,
                partition: data.partition_index,
                fetch_offset,
                span: span_of(data),
                size_bytes: data.records_size_bytes(),
            });
        }
        parts
    }
}

/// From the first batch's first to the last batch's last offset.
fn span_of(data: &PartitionData) -> Option<OffsetSpan> {
    let records = data.records.as_ref()?;
    let mut span: Option<OffsetSpan> = None;
    for slice in records.slices() {
        for entry in Batches::new(slice) {
            if let Ok(BatchEntry::Batch(batch)) = entry {
                let base = span.map_or(batch.base_offset(), OffsetSpan::base);
                span = OffsetSpan::new(base, batch.last_offset());
            }
        }
    }
    span
}

pub(crate) fn within(message: &'static str, size_bytes: usize, limit_bytes: usize) -> Result<(), Error> {
    if size_bytes <= limit_bytes {
        return Ok(());
    }
    Err(Error::TooLong {
        message,
        size_bytes,
        limit_bytes,
    })
}

//! The raw module for JavaScript. What users see is written in TypeScript over it (`js/`): promises, errors with codes,
//! records as objects.
//!
//! An error is thrown as a string, its code first and then the words.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use core::fmt::Write;
use core::mem;
use core::time::Duration;
use kachet_core::time::MaxStaleness;
use kachet_core::wire::{FETCH_VERSION_MAX, FETCH_VERSION_TOPIC_IDS, TopicId, WireStr};
use wasm_bindgen::prelude::*;

use crate::cache::{CachedPart, EmbeddedCache, Planned, Settings};
use crate::clock::Moment;
use crate::error::Error;
use crate::lookup::{Asked, Range, request_frame};
use crate::records::Block;
use crate::snapshot::Cursor;

type Thrown<T> = Result<T, JsValue>;

impl From<Error> for JsValue {
    fn from(error: Error) -> Self {
        Self::from_str(&format!("{} {error}", error.code()))
    }
}

/// A cache.
#[wasm_bindgen]
#[derive(Debug)]
pub struct RawCache {
    cache: EmbeddedCache,
    /// What the last request came to that was not all cached.
    pending: Option<Planned>,
    view_bytes: usize,
    /// What was read last, and where it lies.
    block: Block,
    layout: Vec<usize>,
}

/// What came of a request that was not all cached.
#[wasm_bindgen]
#[derive(Debug)]
pub struct RawPlan(Planned);

/// Where the writing of a snapshot stands.
#[wasm_bindgen]
#[derive(Debug)]
pub struct RawCursor(Cursor);

fn moment(monotonic_ms: f64, unix_ms: f64) -> Moment {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from f64 saturates"
    )]
    let unix_ms = unix_ms as u64;
    Moment {
        monotonic_ms,
        unix_ms,
    }
}

fn topic_id(high: u64, low: u64) -> TopicId {
    TopicId((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

#[wasm_bindgen]
impl RawCache {
    /// An empty cache. The size limit is in bytes, the bound of staleness in milliseconds, infinite for one that never ends.
    #[wasm_bindgen(constructor)]
    pub fn new(
        size_limit_bytes: u64,
        max_staleness_ms: f64,
        segment_size_bytes: Option<u32>,
        response_limit_bytes: u32,
        decompressed_limit_bytes: u32,
        cluster_id: Option<String>,
    ) -> Thrown<RawCache> {
        let max_staleness = if max_staleness_ms.is_infinite() {
            MaxStaleness::Forever
        } else {
            let bound = Duration::try_from_secs_f64(max_staleness_ms / 1000.0);
            MaxStaleness::Within(bound.unwrap_or_default())
        };
        let too_long = Error::Argument {
            name: "clusterId",
            expected: "is longer than Kafka allows",
        };
        let cluster_id = cluster_id
            .map(|id| WireStr::from_utf8(Bytes::from(id)).ok_or(too_long))
            .transpose()?;
        let settings = Settings {
            size_limit_bytes,
            max_staleness,
            segment_size_bytes,
            response_limit_bytes: response_limit_bytes as usize,
            decompressed_limit_bytes: decompressed_limit_bytes as usize,
            cluster_id,
        };
        Ok(Self {
            cache: EmbeddedCache::new(settings),
            pending: None,
            view_bytes: 0,
            block: Block::default(),
            layout: Vec::new(),
        })
    }

    /// The answer if all of it is cached; otherwise [`Self::pending`] has the plan.
    pub fn plan(&mut self, request: Vec<u8>, monotonic_ms: f64) -> Thrown<Option<Vec<u8>>> {
        self.pending = None;
        let planned = self
            .cache
            .plan(&Bytes::from(request), moment(monotonic_ms, 0.0))?;
        if planned.needs_upstream() {
            self.pending = Some(planned);
            return Ok(None);
        }
        Ok(planned.into_response()?)
    }

    /// What is cached of a request and what is not, whatever it comes to.
    pub fn plan_whole(&mut self, request: Vec<u8>, monotonic_ms: f64) -> Thrown<RawPlan> {
        let planned = self
            .cache
            .plan(&Bytes::from(request), moment(monotonic_ms, 0.0))?;
        Ok(RawPlan(planned))
    }

    /// The plan of the last request.
    pub fn pending(&mut self) -> Option<RawPlan> {
        self.pending.take().map(RawPlan)
    }

    /// Counts a fetch that goes upstream.
    pub fn count_upstream_fetch(&self) {
        self.cache.count_upstream_fetch();
    }

    /// Keeps what upstream answered; gives the whole answer, or nothing if that is what upstream answered.
    pub fn absorb(&mut self, plan: RawPlan, response: Vec<u8>, monotonic_ms: f64) -> Thrown<Option<Vec<u8>>> {
        let RawPlan(planned) = plan;
        let response = Bytes::from(response);
        let upstream = self
            .cache
            .absorb(&planned, &response, moment(monotonic_ms, 0.0))?;
        if planned.is_all_upstream() {
            return Ok(None);
        }
        Ok(Some(planned.merge(upstream)?))
    }

    /// The whole answer with what another request of the same content got from upstream.
    pub fn merge_shared(&self, plan: RawPlan, response: Vec<u8>, correlation_id: i32) -> Thrown<Vec<u8>> {
        let RawPlan(planned) = plan;
        let limit_bytes = self.cache.settings.response_limit_bytes;
        Ok(planned.merge_shared(&Bytes::from(response), correlation_id, limit_bytes)?)
    }

    /// Reads cached records from an offset on. Gives the address of what [`Block::layout`] says, 0 if the first is not cached.
    /// All of it lies there until [`Self::release`], which is to be called before anything else.
    #[expect(clippy::too_many_arguments, reason = "what crosses the border are numbers")]
    pub fn records(
        &mut self,
        topic_high: u64,
        topic_low: u64,
        partition: i32,
        offset: i64,
        count_limit: u32,
        size_limit_bytes: u32,
        committed: bool,
        monotonic_ms: f64,
    ) -> Thrown<usize> {
        let range = Range {
            topic_id: topic_id(topic_high, topic_low),
            partition,
            offset,
            count_limit: count_limit as usize,
            size_limit_bytes: size_limit_bytes as usize,
            committed,
        };
        let block = self.cache.records(&range, moment(monotonic_ms, 0.0))?;
        Ok(block.map_or(0, |block| self.lend(block)))
    }

    /// Reads the records of an answer to a request for one partition, as [`Self::records`] does.
    #[expect(clippy::too_many_arguments, reason = "what crosses the border are numbers")]
    pub fn decode(
        &mut self,
        response: Vec<u8>,
        version: i16,
        correlation_id: i32,
        topic_high: u64,
        topic_low: u64,
        partition: i32,
        offset: i64,
        count_limit: u32,
        size_limit_bytes: u32,
    ) -> Thrown<usize> {
        let range = Range {
            topic_id: topic_id(topic_high, topic_low),
            partition,
            offset,
            count_limit: count_limit as usize,
            size_limit_bytes: size_limit_bytes as usize,
            committed: false,
        };
        let block = self
            .cache
            .decode(&Bytes::from(response), version, correlation_id, &range)?;
        Ok(self.lend(block))
    }

    fn lend(&mut self, block: Block) -> usize {
        self.layout = block.layout();
        self.block = block;
        self.layout.as_ptr() as usize
    }

    /// Where to read on behind what was read last; −1 if there was nothing. Lets go of it.
    pub fn release(&mut self) -> i64 {
        self.layout = Vec::new();
        mem::take(&mut self.block).next_offset().unwrap_or(-1)
    }

    /// Where the cached batch lies that answers a fetch at an offset: an address in the module's memory, 0 if it is not
    /// cached. It lies there until the next call that changes the cache.
    pub fn batch(
        &mut self,
        topic_high: u64,
        topic_low: u64,
        partition: i32,
        offset: i64,
        monotonic_ms: f64,
    ) -> usize {
        let now = moment(monotonic_ms, 0.0);
        let batch = self
            .cache
            .batch(topic_id(topic_high, topic_low), partition, offset, now);
        self.view_bytes = batch.as_ref().map_or(0, Bytes::len);
        // The cache still holds what it lent, so the address stays right when this share is given back.
        batch.map_or(0, |batch| batch.as_ptr() as usize)
    }

    /// How many bytes the batch has that was looked up last.
    pub fn view_bytes(&self) -> usize {
        self.view_bytes
    }

    /// The figures of this moment, in the order of [`RawCache::statistic_names`].
    pub fn statistics(&self) -> Vec<f64> {
        let named = self.cache.statistics().named();
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2⁵³")]
        named.iter().map(|(_, value)| *value as f64).collect()
    }

    /// The names of the figures, separated by commas.
    pub fn statistic_names(&self) -> String {
        let mut names = String::new();
        for (name, _) in self.cache.statistics().named() {
            if !names.is_empty() {
                names.push(',');
            }
            names.push_str(name);
        }
        names
    }

    /// Changes the size limit, in bytes.
    pub fn set_size_limit(&mut self, size_limit_bytes: u64) {
        self.cache.set_size_limit_bytes(size_limit_bytes);
    }

    /// Drops everything.
    pub fn invalidate(&mut self) {
        self.cache.invalidate();
    }

    /// Drops what is cached of a topic.
    pub fn invalidate_topic(&mut self, topic_high: u64, topic_low: u64) {
        self.cache.invalidate_topic(topic_id(topic_high, topic_low));
    }

    /// Drops what is cached of a partition.
    pub fn invalidate_partition(&mut self, topic_high: u64, topic_low: u64, partition: i32) {
        self.cache
            .invalidate_partition(topic_id(topic_high, topic_low), partition);
    }

    /// Drops the batches of a partition that end before an offset.
    pub fn invalidate_below(&mut self, topic_high: u64, topic_low: u64, partition: i32, offset: i64) {
        self.cache
            .invalidate_below(topic_id(topic_high, topic_low), partition, offset);
    }

    /// What is cached of every partition, as JSON.
    pub fn covered(&self) -> String {
        let mut json = String::from("[");
        for key in self.cache.partitions() {
            let comma = if json.len() == 1 { "" } else { "," };
            let topic = key.topic_id;
            let partition = key.partition;
            // Writing to a string does not fail.
            let _ = write!(
                json,
                "{comma}{{\"topic\":\"{topic}\",\"partition\":{partition},\"spans\":["
            );
            for (at, span) in self.cache.covered(topic, partition).iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let _ = write!(json, "{comma}[\"{}\",\"{}\"]", span.base(), span.last());
            }
            json.push_str("]}");
        }
        json.push(']');
        json
    }

    /// Begins a snapshot.
    pub fn begin_snapshot(&self) -> RawCursor {
        RawCursor(self.cache.begin_snapshot())
    }

    /// The next piece of a snapshot; nothing at its end.
    pub fn next_of_snapshot(
        &mut self,
        cursor: &mut RawCursor,
        monotonic_ms: f64,
        unix_ms: f64,
    ) -> Thrown<Option<Vec<u8>>> {
        let now = moment(monotonic_ms, unix_ms);
        Ok(self.cache.next_of_snapshot(&mut cursor.0, now)?)
    }

    /// Reads the head of a snapshot; gives its length.
    pub fn restore_head(&self, head: &[u8]) -> Thrown<usize> {
        Ok(self.cache.restore_head(head)?)
    }

    /// Takes one part of a snapshot over. Gives how many batches are there now, −1 if it is too old.
    pub fn restore_part(&mut self, part: Vec<u8>, monotonic_ms: f64, unix_ms: f64) -> Thrown<f64> {
        let now = moment(monotonic_ms, unix_ms);
        let restored = self.cache.restore_part(&Bytes::from(part), now)?;
        #[expect(clippy::cast_precision_loss, reason = "a part holds few batches")]
        let batches = restored.batches as f64;
        Ok(if restored.stale_parts > 0 { -1.0 } else { batches })
    }
}

#[wasm_bindgen]
impl RawPlan {
    /// Whether there is something to ask.
    pub fn needs_upstream(&self) -> bool {
        self.0.needs_upstream()
    }

    /// The answer out of the cache, if there is nothing to ask.
    pub fn into_response(self) -> Thrown<Vec<u8>> {
        Ok(self.0.into_response()?.unwrap_or_default())
    }

    /// The request to send upstream.
    pub fn upstream(&self) -> Thrown<Vec<u8>> {
        Ok(self.0.upstream()?.map(Vec::from).unwrap_or_default())
    }

    /// Whether upstream's answer is the whole answer.
    pub fn is_all_upstream(&self) -> bool {
        self.0.is_all_upstream()
    }

    /// Whether upstream's answer is kept.
    pub fn is_cacheable(&self) -> bool {
        self.0.is_cacheable()
    }

    /// Where the body of [`Self::upstream`] begins, in bytes.
    pub fn header_bytes(&self) -> usize {
        self.0.header_bytes()
    }

    /// The version of Fetch.
    pub fn version(&self) -> i16 {
        self.0.version()
    }

    /// The correlation id.
    pub fn correlation_id(&self) -> i32 {
        self.0.correlation_id()
    }

    /// What is cached, as JSON.
    pub fn cached(&self) -> String {
        let mut json = String::from("[");
        for part in self.0.cached() {
            let CachedPart {
                topic_id,
                partition,
                fetch_offset,
                span,
                size_bytes,
            } = part;
            let comma = if json.len() == 1 { "" } else { "," };
            let _ = write!(
                json,
                "{comma}{{\"topic\":\"{topic_id}\",\"partition\":{partition},\"offset\":\"{fetch_offset}\",\"size_bytes\":{size_bytes}"
            );
            if let Some(span) = span {
                let _ = write!(json, ",\"span\":[\"{}\",\"{}\"]", span.base(), span.last());
            }
            json.push('}');
        }
        json.push(']');
        json
    }
}

/// A request for one partition.
#[wasm_bindgen]
#[expect(clippy::too_many_arguments, reason = "what crosses the border are numbers")]
pub fn request(
    version: i16,
    topic_high: u64,
    topic_low: u64,
    partition: i32,
    offset: i64,
    max_bytes: i32,
    min_bytes: i32,
    max_wait_ms: i32,
    committed: bool,
) -> Thrown<Vec<u8>> {
    let range = Range {
        topic_id: topic_id(topic_high, topic_low),
        partition,
        offset,
        count_limit: 0,
        size_limit_bytes: 0,
        committed,
    };
    if !(FETCH_VERSION_TOPIC_IDS..=FETCH_VERSION_MAX).contains(&version) {
        return Err(Error::Argument {
            name: "version",
            expected: "is a version of Fetch from 13 to 18",
        }
        .into());
    }
    Ok(request_frame(&Asked {
        range,
        version,
        max_bytes,
        min_bytes,
        max_wait_ms,
    })?)
}

//! The component: the world of `wit/cache.wit`.
//!
//! An instance runs one call at a time, so nothing has to be shared between fetches; a host that wants more of them at a time
//! makes more instances.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use bytes::Bytes;
use kachet_core::time::MaxStaleness;
use kachet_core::wire::{FETCH_VERSION_TOPIC_IDS, TopicId, WireStr};

use self::bindings::exports::kachet::cache::cache::{
    Error as WitError, Guest, GuestStore, KafkaRecord, Range as WitRange, Records, Restored as WitRestored,
    Settings as WitSettings, TopicId as WitTopicId,
};
use self::bindings::kachet::cache::host;
use self::bindings::kachet::cache::types::Header;
use crate::cache::{EmbeddedCache, Settings};
use crate::clock::Moment;
use crate::error::Error;
use crate::lookup::{Asked, Range, request_frame};
use crate::records::Block;

#[allow(
    unexpected_cfgs,
    clippy::pedantic,
    clippy::all,
    reason = "generated from the world"
)]
mod bindings {
    wit_bindgen::generate!({
        world: "kachet",
        path: "wit",
        std_feature,
        pub_export_macro: false,
    });
    use super::Component;
    export!(Component);
}

/// How many bytes of batches a request asks for that is made here.
const REQUEST_BYTES: i32 = 1 << 20;
/// How many bytes a record that is looked up by itself may have.
const RECORD_BYTES: usize = i32::MAX as usize;

struct Component;

/// A cache of the host's.
struct Store(RefCell<EmbeddedCache>);

impl Guest for Component {
    type Store = Store;
}

impl From<Error> for WitError {
    fn from(error: Error) -> Self {
        Self {
            code: error.code().to_string(),
            message: error.to_string(),
        }
    }
}

/// The moment by the clock that everything but a snapshot goes by: a call of the host takes longer than a lookup.
fn now() -> Moment {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds stay below 2⁵³ for ages")]
    let monotonic_ms = host::monotonic_ms() as f64;
    Moment {
        monotonic_ms,
        unix_ms: 0,
    }
}

/// The moment by both clocks.
fn now_and_date() -> Moment {
    Moment {
        unix_ms: host::unix_ms(),
        ..now()
    }
}

fn id_of(topic: WitTopicId) -> Result<TopicId, Error> {
    let bits = u128::from(topic.high) << 64 | u128::from(topic.low);
    if bits == 0 {
        return Err(Error::Argument {
            name: "topic",
            expected: "zero stands for no topic",
        });
    }
    Ok(TopicId(bits.to_be_bytes()))
}

impl Store {
    fn fetch_frame(&self, request: Vec<u8>) -> Result<Vec<u8>, WitError> {
        let planned = self.0.borrow_mut().plan(&Bytes::from(request), now())?;
        let Some(upstream) = planned.upstream()? else {
            return Ok(planned.into_response()?.unwrap_or_default());
        };
        self.0.borrow().count_upstream_fetch();
        let response = host::upstream(&upstream).map_err(|error| WitError {
            code: String::from("UPSTREAM"),
            message: format!("{}: {}", error.code, error.message),
        })?;
        if !planned.is_cacheable() {
            return Ok(response);
        }
        let response = Bytes::from(response);
        let understood = self.0.borrow_mut().absorb(&planned, &response, now())?;
        if planned.is_all_upstream() {
            return Ok(response.into());
        }
        Ok(planned.merge(understood)?)
    }

    fn read(&self, range: &Range) -> Result<Block, WitError> {
        if let Some(block) = self.0.borrow_mut().records(range, now())? {
            return Ok(block);
        }
        let version = FETCH_VERSION_TOPIC_IDS;
        let request = request_frame(&Asked {
            range: *range,
            version,
            max_bytes: REQUEST_BYTES,
            min_bytes: 1,
            max_wait_ms: 0,
        })?;
        let response = Bytes::from(self.fetch_frame(request)?);
        Ok(self.0.borrow().decode(&response, version, 0, range)?)
    }
}

impl GuestStore for Store {
    fn new(settings: WitSettings) -> Self {
        // A name that Kafka would not give is that of no cluster whose snapshot could be taken for another's.
        let cluster_id = settings.cluster_id.and_then(|id| WireStr::from_utf8(id.into()));
        let settings = Settings {
            size_limit_bytes: settings.size_limit_bytes,
            max_staleness: settings.max_staleness_ms.map_or(MaxStaleness::Forever, |bound| {
                MaxStaleness::Within(Duration::from_millis(bound))
            }),
            segment_size_bytes: settings.segment_size_bytes,
            response_limit_bytes: settings.response_limit_bytes as usize,
            decompressed_limit_bytes: settings.decompressed_limit_bytes as usize,
            cluster_id,
        };
        Self(RefCell::new(EmbeddedCache::new(settings)))
    }

    fn fetch(&self, request: Vec<u8>) -> Result<Vec<u8>, WitError> {
        self.fetch_frame(request)
    }

    fn record(
        &self,
        topic: WitTopicId,
        partition: i32,
        offset: i64,
    ) -> Result<Option<KafkaRecord>, WitError> {
        let range = Range {
            topic_id: id_of(topic)?,
            partition,
            offset,
            count_limit: 1,
            size_limit_bytes: RECORD_BYTES,
            committed: false,
        };
        let first = records_of(&self.read(&range)?).into_iter().next();
        Ok(first.filter(|record| record.offset == offset))
    }

    fn records(&self, range: WitRange) -> Result<Records, WitError> {
        let block = self.read(&Range {
            topic_id: id_of(range.topic)?,
            partition: range.partition,
            offset: range.offset,
            count_limit: range.count_limit as usize,
            size_limit_bytes: range.size_limit_bytes as usize,
            committed: range.committed,
        })?;
        Ok(Records {
            records: records_of(&block),
            next: block.next_offset(),
        })
    }

    fn batch(&self, topic: WitTopicId, partition: i32, offset: i64) -> Option<Vec<u8>> {
        let topic_id = id_of(topic).ok()?;
        let batch = self.0.borrow_mut().batch(topic_id, partition, offset, now())?;
        Some(batch.to_vec())
    }

    fn stats(&self) -> Vec<(String, u64)> {
        let named = self.0.borrow().statistics().named();
        named.map(|(name, value)| (name.to_string(), value)).into()
    }

    fn invalidate(&self, topic: Option<WitTopicId>, partition: Option<i32>) {
        let mut cache = self.0.borrow_mut();
        match (topic.map(id_of), partition) {
            (None, _) => cache.invalidate(),
            (Some(Ok(topic_id)), None) => cache.invalidate_topic(topic_id),
            (Some(Ok(topic_id)), Some(partition)) => cache.invalidate_partition(topic_id, partition),
            // Nothing is cached under the id that stands for none.
            (Some(Err(_)), _) => {}
        }
    }

    fn snapshot(&self) -> Result<Vec<u8>, WitError> {
        let mut cache = self.0.borrow_mut();
        let mut cursor = cache.begin_snapshot();
        let mut snapshot = Vec::new();
        while let Some(piece) = cache.next_of_snapshot(&mut cursor, now_and_date())? {
            snapshot.extend_from_slice(&piece);
        }
        Ok(snapshot)
    }

    fn restore(&self, snapshot: Vec<u8>) -> Result<WitRestored, WitError> {
        let restored = self
            .0
            .borrow_mut()
            .restore(&Bytes::from(snapshot), now_and_date())?;
        Ok(WitRestored {
            batches: restored.batches,
            stale_parts: restored.stale_parts,
        })
    }
}

fn records_of(block: &Block) -> Vec<KafkaRecord> {
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let records = block.records().map(|record| KafkaRecord {
        offset: record.offset,
        timestamp: record.timestamp,
        key: owned(record.key),
        value: owned(record.value),
        headers: record
            .headers
            .map(|(key, value)| Header {
                key: key.to_vec(),
                value: owned(value),
            })
            .collect(),
    });
    records.collect()
}

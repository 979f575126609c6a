//! A cache as bytes, so that it survives what it lives in.
//!
//! A snapshot is what a client would have been told: Fetch requests of one partition each, and the cache's answers. So to
//! restore one is to absorb answers, by the same checks as those of a broker (H2, H7, H27), and no format of the cache's
//! insides has to be kept for ever.
//!
//! ```text
//! head   "KCHTSNAP" · version u8 · length of the cluster id u16, 0xffff for none · cluster id
//! part   length of what follows u32 · CRC-32C of what follows the CRC u32
//!        · asked at u64, ms since 1970 · length of the request u32 · request frame · response frame
//! ```
//!
//! All integers are big-endian. Every part stands for itself, so that one can be written and read part by part, and cut
//! off behind any part.

use alloc::vec::Vec;

use bytes::{BufMut, Bytes};
use kachet_core::cache::Harvest;
use kachet_core::identity::PartitionKey;
use kachet_core::time::MaxStaleness;
use kachet_core::wire::{
    BatchEntry, Batches, FETCH_VERSION_MAX, FetchPartition, FetchRequest, PartitionData, TaggedFields,
    TopicRef,
};

use crate::cache::{CRC32C, EmbeddedCache};
use crate::clock::Moment;
use crate::error::Error;
use crate::frame::{RequestFrame, RequestHeader, decode_response, encode_response};
use crate::lookup::Range;

const MAGIC: &[u8; 8] = b"KCHTSNAP";
const VERSION: u8 = 1;
const NO_CLUSTER: u16 = u16::MAX;
/// Bytes of records in one part at most, unless one batch is larger.
const PART_BYTES: i32 = 1 << 20;
/// Bytes of a part in front of its request.
const PART_HEAD_BYTES: usize = 20;
/// What a part's own length does not count: itself.
const LENGTH_BYTES: usize = 4;

/// Where the writing of a snapshot stands.
#[derive(Debug)]
pub struct Cursor {
    partitions: Vec<PartitionKey>,
    /// The offset from which the last of `partitions` goes on.
    offset: i64,
    has_head: bool,
}

/// What came of restoring a part of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Batches that are in the cache now.
    pub batches: u64,
    /// Parts that were too old, or from a time that is yet to come.
    pub stale_parts: u64,
}

impl EmbeddedCache {
    /// Begins to write a snapshot.
    pub fn begin_snapshot(&self) -> Cursor {
        Cursor {
            partitions: self.core.partitions(),
            offset: 0,
            has_head: false,
        }
    }

    /// The next piece of a snapshot, to be written behind the others; `None` at its end. What changes meanwhile may be in it
    /// or not.
    pub fn next_of_snapshot(&mut self, cursor: &mut Cursor, now: Moment) -> Result<Option<Vec<u8>>, Error> {
        if !cursor.has_head {
            cursor.has_head = true;
            return Ok(Some(self.head()));
        }
        while let Some(key) = cursor.partitions.last().copied() {
            let Some(base) = self.first_covered(key, cursor.offset) else {
                cursor.partitions.pop();
                cursor.offset = 0;
                continue;
            };
            let Some((request, data, behind)) = self.run(key, base, now) else {
                // Too old to be served, or to be read by nobody: step behind the run.
                cursor.offset = self.behind_run(key, base);
                continue;
            };
            cursor.offset = behind;
            return self.part(&request, data, key, now).map(Some);
        }
        Ok(None)
    }

    fn head(&self) -> Vec<u8> {
        let mut head = Vec::from(MAGIC);
        head.push(VERSION);
        match &self.settings.cluster_id {
            None => head.put_u16(NO_CLUSTER),
            Some(cluster_id) => {
                let bytes = cluster_id.as_bytes();
                // At most 32 767, which is what `WireStr` holds.
                head.put_u16(u16::try_from(bytes.len()).unwrap_or(NO_CLUSTER));
                head.extend_from_slice(bytes);
            }
        }
        head
    }

    /// The first cached offset at or behind `offset`.
    fn first_covered(&self, key: PartitionKey, offset: i64) -> Option<i64> {
        let mut runs = self.core.covered(key).into_iter();
        runs.find(|run| run.last() >= offset)
            .map(|run| run.base().max(offset))
    }

    fn behind_run(&self, key: PartitionKey, offset: i64) -> i64 {
        let mut runs = self.core.covered(key).into_iter();
        let run = runs.find(|run| run.contains(offset));
        run.map_or(i64::MAX, |run| run.last().saturating_add(1))
    }

    /// What the cache answers from `offset` on: to readers of committed data if it can, because that tells all that is known.
    fn run(&self, key: PartitionKey, offset: i64, now: Moment) -> Option<(FetchRequest, PartitionData, i64)> {
        [true, false].into_iter().find_map(|committed| {
            let asked = FetchPartition::new(key.partition, offset, PART_BYTES);
            let data = self.core.peek(key.topic_id, &asked, committed, now.instant())?;
            let last = last_offset(&data).filter(|last| *last >= offset)?;
            let range = Range {
                topic_id: key.topic_id,
                partition: key.partition,
                offset,
                count_limit: 0,
                size_limit_bytes: 0,
                committed,
            };
            Some((range.request(PART_BYTES), data, last.saturating_add(1)))
        })
    }

    fn part(
        &self,
        request: &FetchRequest,
        data: PartitionData,
        key: PartitionKey,
        now: Moment,
    ) -> Result<Vec<u8>, Error> {
        let header = RequestHeader::new(FETCH_VERSION_MAX, 0);
        let request = RequestFrame::encode(&header, request)?;
        let response = kachet_core::wire::FetchResponse {
            topics: Vec::from([kachet_core::wire::FetchableTopic {
                topic: TopicRef::Id(key.topic_id),
                partitions: Vec::from([data]),
                unknown_tags: TaggedFields::default(),
            }]),
            ..Default::default()
        };
        let response = encode_response(&header, &response)?;
        // What is served is validated; under a bound of forever its age does not matter.
        let asked_at = self.core.validated_at(&key).unwrap_or_default();
        let length = PART_HEAD_BYTES - LENGTH_BYTES + request.len() + response.len();
        let mut part = Vec::with_capacity(length + LENGTH_BYTES);
        part.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        part.put_u32(0);
        part.put_u64(now.unix_ms_at(asked_at));
        part.put_u32(u32::try_from(request.len()).unwrap_or(u32::MAX));
        part.extend_from_slice(&request);
        part.extend_from_slice(&response);
        let crc = CRC32C.of(part.get(8..).unwrap_or_default());
        if let Some(place) = part.get_mut(4..8) {
            place.copy_from_slice(&crc.to_be_bytes());
        }
        Ok(part)
    }

    /// Reads the head of a snapshot; gives how many bytes it takes.
    pub fn restore_head(&self, snapshot: &[u8]) -> Result<usize, Error> {
        let not_whole = |expected| Error::Snapshot { expected };
        let Some((magic, rest)) = snapshot.split_first_chunk() else {
            return Err(not_whole("its head is cut off"));
        };
        if magic != MAGIC {
            return Err(not_whole("it begins with other bytes than a snapshot"));
        }
        let Some(([version, length @ ..], rest)) = rest.split_first_chunk::<3>() else {
            return Err(not_whole("its head is cut off"));
        };
        if *version != VERSION {
            return Err(Error::SnapshotVersion { version: *version });
        }
        let length = u16::from_be_bytes(*length);
        if length == NO_CLUSTER {
            return Ok(MAGIC.len() + 3);
        }
        let Some(cluster_id) = rest.get(..length.into()) else {
            return Err(not_whole("its head is cut off"));
        };
        let ours = self.settings.cluster_id.as_ref();
        if ours.is_some_and(|ours| ours.as_bytes() != cluster_id) {
            return Err(Error::SnapshotCluster);
        }
        Ok(MAGIC.len() + 3 + cluster_id.len())
    }

    /// How many bytes the part takes that begins with these; `None` if the length is cut off.
    pub fn part_size_bytes(snapshot: &[u8]) -> Option<usize> {
        let length = snapshot.first_chunk().map(|length| u32::from_be_bytes(*length))?;
        usize::try_from(length).ok()?.checked_add(LENGTH_BYTES)
    }

    /// Takes a whole snapshot over; parts in front of a damaged one are kept.
    pub fn restore(&mut self, snapshot: &Bytes, now: Moment) -> Result<Restored, Error> {
        let mut rest = snapshot.slice(self.restore_head(snapshot)?..);
        let mut restored = Restored::default();
        while !rest.is_empty() {
            let size_bytes = Self::part_size_bytes(&rest).filter(|size| *size <= rest.len());
            let Some(size_bytes) = size_bytes else {
                let expected = "a part is cut off";
                return Err(Error::Snapshot { expected });
            };
            let part = self.restore_part(&rest.split_to(size_bytes), now)?;
            restored.batches += part.batches;
            restored.stale_parts += part.stale_parts;
        }
        Ok(restored)
    }

    /// Takes one part over, whole.
    pub fn restore_part(&mut self, part: &Bytes, now: Moment) -> Result<Restored, Error> {
        let not_whole = |expected| Error::Snapshot { expected };
        if Self::part_size_bytes(part) != Some(part.len()) || part.len() < PART_HEAD_BYTES {
            return Err(not_whole("a part is cut off"));
        }
        let word = |at: usize| part.get(at..).and_then(|rest| rest.first_chunk().copied());
        let crc = word(4).map(u32::from_be_bytes);
        if crc != Some(CRC32C.of(part.get(8..).unwrap_or_default())) {
            return Err(not_whole("the checksum of a part is wrong"));
        }
        let unix_ms = part.get(8..16).and_then(|bytes| bytes.first_chunk().copied());
        let unix_ms = unix_ms.map(u64::from_be_bytes).unwrap_or_default();
        let request_bytes = word(16)
            .map(u32::from_be_bytes)
            .and_then(|length| usize::try_from(length).ok());
        let behind = request_bytes.and_then(|length| length.checked_add(PART_HEAD_BYTES));
        let Some(behind) = behind.filter(|behind| *behind <= part.len()) else {
            return Err(not_whole("the length of a request is wrong"));
        };
        let (request, response) = (part.slice(PART_HEAD_BYTES..behind), part.slice(behind..));
        self.take_over(&request, &response, unix_ms, now)
    }

    fn take_over(
        &mut self,
        request: &Bytes,
        response: &Bytes,
        unix_ms: u64,
        now: Moment,
    ) -> Result<Restored, Error> {
        let RequestFrame { header, request } = RequestFrame::decode(request)?;
        let response = decode_response(response, header.version, header.correlation_id)?;
        let max_staleness = self.settings.max_staleness;
        let asked_at = now.instant_at_unix_ms(unix_ms);
        let asked_at = match asked_at {
            Some(asked_at) if max_staleness.allows(asked_at, now.instant()) => asked_at,
            _ if max_staleness == MaxStaleness::Forever => now.instant(),
            _ => {
                return Ok(Restored {
                    stale_parts: 1,
                    ..Restored::default()
                });
            }
        };
        let before = self.core.statistics().inserts;
        for harvest in Harvest::gather(&request, &response, CRC32C) {
            self.core.absorb(harvest, asked_at);
        }
        Ok(Restored {
            batches: self.core.statistics().inserts - before,
            stale_parts: 0,
        })
    }
}

fn last_offset(data: &PartitionData) -> Option<i64> {
    let last = data.records.as_ref()?.slices().last()?;
    let entries = Batches::new(last).filter_map(Result::ok);
    entries.last().map(|entry| match entry {
        BatchEntry::Batch(batch) => batch.last_offset(),
        BatchEntry::Legacy(message) => message.offset,
    })
}

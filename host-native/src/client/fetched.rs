//! What one fetch of a partition gave, as batches and as records.

use bytes::Bytes;
use kachet_core::wire::codec::{Codec, decompress};
use kachet_core::wire::{
    AbortedTransaction, AbortedWalk, BatchEntry, Batches, PartitionData, RecordBatch, RecordBytes, TopicId,
};

use super::{ClientError, ClientSettings, Isolation, Record, TimestampType};

/// The batches at and behind an offset, to the byte as the broker sent them.
#[derive(Clone, Debug)]
pub struct Fetched {
    topic: String,
    topic_id: TopicId,
    fetch_offset: i64,
    isolation: Isolation,
    decompressed_limit_bytes: usize,
    data: PartitionData,
}

impl Fetched {
    pub(super) fn new(
        topic: &str,
        topic_id: TopicId,
        fetch_offset: i64,
        data: PartitionData,
        settings: &ClientSettings,
    ) -> Self {
        Self {
            topic: topic.to_owned(),
            topic_id,
            fetch_offset,
            isolation: settings.isolation,
            decompressed_limit_bytes: settings.decompressed_limit_bytes,
            data,
        }
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The topic's id; zero if the broker is older than topic ids.
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// The partition's index.
    pub fn partition(&self) -> i32 {
        self.data.partition_index
    }

    /// The first offset that is not yet replicated to all in-sync replicas.
    pub fn high_watermark(&self) -> i64 {
        self.data.high_watermark
    }

    /// The first offset of the oldest open transaction, or the high watermark.
    pub fn last_stable_offset(&self) -> i64 {
        self.data.last_stable_offset
    }

    /// The first offset that the log holds, −1 if the broker did not say.
    pub fn log_start_offset(&self) -> i64 {
        self.data.log_start_offset
    }

    /// The first offset that a reader of this isolation cannot read yet.
    pub(super) fn readable_end(&self) -> i64 {
        match self.isolation {
            Isolation::ReadUncommitted => self.data.high_watermark,
            Isolation::ReadCommitted => self.data.last_stable_offset,
        }
    }

    /// The aborted transactions that touch the range, if committed data was asked for.
    pub fn aborted_transactions(&self) -> Option<&[AbortedTransaction]> {
        self.data.aborted_transactions.as_deref()
    }

    /// Whether there is no whole batch.
    pub fn is_empty(&self) -> bool {
        self.next_offset().is_none()
    }

    /// The record data as it came, a truncated tail included.
    pub fn record_bytes(&self) -> &RecordBytes {
        static EMPTY: RecordBytes = RecordBytes::empty();
        self.data.records.as_ref().unwrap_or(&EMPTY)
    }

    /// The whole batches, each to the byte as the broker sent it.
    pub fn batches(&self) -> Result<Vec<Bytes>, ClientError> {
        let mut batches = Vec::new();
        for slice in self.record_bytes().slices() {
            for entry in Batches::new(slice) {
                batches.push(slice.slice_ref(self.whole(entry)?.as_bytes()));
            }
        }
        Ok(batches)
    }

    fn whole<'b>(
        &self,
        entry: Result<BatchEntry<'b>, kachet_core::wire::BatchError>,
    ) -> Result<RecordBatch<'b>, ClientError> {
        let (topic, partition) = (self.topic.clone(), self.partition());
        match entry {
            Ok(BatchEntry::Batch(batch)) => Ok(batch),
            Ok(BatchEntry::Legacy(message)) => {
                let (offset, magic) = (message.offset, message.magic);
                Err(ClientError::LegacyFormat {
                    topic,
                    partition,
                    offset,
                    magic,
                })
            }
            Err(source) => Err(ClientError::Batch {
                topic,
                partition,
                source,
            }),
        }
    }

    /// The first offset of the first whole batch, which may lie before the offset that was asked for.
    pub(super) fn first_offset(&self) -> Option<i64> {
        let first = self.record_bytes().slices().next()?;
        match Batches::new(first).next()?.ok()? {
            BatchEntry::Batch(batch) => Some(batch.base_offset()),
            BatchEntry::Legacy(message) => Some(message.offset),
        }
    }

    /// The offset behind the last whole batch: where to read on. `None` if there is no whole batch.
    pub fn next_offset(&self) -> Option<i64> {
        let slices: Vec<&Bytes> = self.record_bytes().slices().collect();
        let last_of = |slice: &Bytes| {
            Batches::new(slice)
                .map_while(Result::ok)
                .last()
                .map(|entry| match entry {
                    BatchEntry::Batch(batch) => batch.last_offset(),
                    BatchEntry::Legacy(message) => message.offset,
                })
        };
        slices.into_iter().rev().find_map(last_of)?.checked_add(1)
    }

    /// Up to `limit` records at and behind the offset that was asked for. Markers are left out, and those of
    /// aborted transactions if committed data was asked for. Only the batches that are needed are decompressed.
    pub fn records(&self, limit: usize) -> Result<Vec<Record>, ClientError> {
        let mut records = Vec::new();
        for bytes in self.visible_batches()? {
            if records.len() >= limit {
                break;
            }
            let left = limit - records.len();
            let visible = self.unpack(&bytes)?;
            records.extend(
                visible
                    .into_iter()
                    .filter(|record| record.offset >= self.fetch_offset)
                    .take(left),
            );
        }
        Ok(records)
    }

    /// The batches that hold what a reader of this isolation sees: neither markers nor what was aborted. Nothing is
    /// decompressed but markers.
    pub(super) fn visible_batches(&self) -> Result<Vec<Bytes>, ClientError> {
        let mut aborted = AbortedWalk::new(self.aborted_transactions());
        let mut visible = Vec::new();
        for bytes in self.batches()? {
            let batch = RecordBatch::parse(&bytes).map_err(|source| self.batch_error(source))?;
            if batch.is_control() {
                self.verify(&batch)?;
                let payload = self.payload(&bytes, &batch)?;
                aborted.pass_marker(&batch, &payload);
            } else if !aborted.holds(&batch) {
                visible.push(bytes);
            }
        }
        Ok(visible)
    }

    /// The records of a whole batch, those before the offset that was asked for included.
    pub(super) fn unpack(&self, bytes: &Bytes) -> Result<Vec<Record>, ClientError> {
        let batch = RecordBatch::parse(bytes).map_err(|source| self.batch_error(source))?;
        self.verify(&batch)?;
        let payload = self.payload(bytes, &batch)?;
        self.collect(&batch, &payload)
    }

    fn verify(&self, batch: &RecordBatch<'_>) -> Result<(), ClientError> {
        batch
            .verify(kachet_core::wire::Crc32c::from_fn(crc32c::crc32c))
            .map_err(|source| self.batch_error(source))
    }

    fn batch_error(&self, source: kachet_core::wire::BatchError) -> ClientError {
        ClientError::Batch {
            topic: self.topic.clone(),
            partition: self.partition(),
            source,
        }
    }

    /// The records of a batch, decompressed; shared with the batch if it is not compressed.
    fn payload(&self, bytes: &Bytes, batch: &RecordBatch<'_>) -> Result<Bytes, ClientError> {
        let payload = match batch.codec() {
            Ok(Codec::None) => return Ok(bytes.slice_ref(batch.payload())),
            Ok(codec) => decompress(codec, batch.payload(), self.decompressed_limit_bytes),
            Err(error) => Err(error),
        };
        payload.map(Bytes::from).map_err(|source| ClientError::Codec {
            topic: self.topic.clone(),
            partition: self.partition(),
            base_offset: batch.base_offset(),
            source,
        })
    }

    fn collect(&self, batch: &RecordBatch<'_>, payload: &Bytes) -> Result<Vec<Record>, ClientError> {
        let timestamp_type = if batch.is_log_append_time() {
            TimestampType::LogAppend
        } else {
            TimestampType::Create
        };
        // Not by the count that the batch names, which its sender may have made up.
        let mut records = Vec::new();
        for record in batch.records(payload) {
            let record = record.map_err(|source| self.batch_error(source))?;
            let shared = |bytes: &[u8]| payload.slice_ref(bytes);
            records.push(Record {
                offset: record.offset,
                timestamp_ms: record.timestamp,
                timestamp_type,
                key: record.key.map(shared),
                value: record.value.map(shared),
                headers: record
                    .headers
                    .iter()
                    .map(|(key, value)| (shared(key), value.map(shared)))
                    .collect(),
            });
        }
        Ok(records)
    }
}

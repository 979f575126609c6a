//! The records of a partition as a stream, newest first.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use kachet_core::wire::RecordBatch;

use super::{Client, ClientError, Fetched, Read, Record, no_progress};
use crate::transport::Transport;

/// Reads towards the log start: a page is the offsets of a window before what has been given, and windows grow as long
/// as they bring less than a fetch may.
pub(super) struct Backwards<'c, T> {
    client: &'c Client<T>,
    topic: Arc<str>,
    partition: i32,
    /// Everything from here on has been given.
    end: i64,
    /// Whether the log is known to reach up to `end`.
    is_end_known: bool,
    /// The log start, as far as it is known.
    start: i64,
    window_offsets: i64,
    /// Of the last page that held something.
    density: Option<Density>,
    page: Option<Page>,
    /// Of the batch that is being given, oldest first.
    records: Vec<Record>,
}

/// What is left of a page: batches, oldest first, and the offsets that are wanted of them.
struct Page {
    fetched: Fetched,
    batches: Vec<Bytes>,
    first: i64,
    end: i64,
}

#[derive(Clone, Copy)]
struct Density {
    bytes: u64,
    offsets: u64,
}

impl<T: Transport> Client<T> {
    /// The records from `from_offset`, which is included, back to the log start, newest first. An offset beyond the end
    /// of the log begins at its end, so that `i64::MAX` stands for the newest record; one below the log start gives
    /// nothing.
    ///
    /// Fetches whole batches in growing pages, at most
    /// [`ClientSettings::fetch_max_bytes`](super::ClientSettings::fetch_max_bytes) at a time, and holds one page. Markers
    /// are left out, and aborted records if committed data is read; offsets that compaction has emptied are stepped
    /// over. What retention removes meanwhile is not an error: the stream ends at the log start that it finds. After an
    /// error it ends.
    ///
    /// ```
    /// # #[cfg(feature = "embedded-broker")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn core::error::Error>> {
    /// # use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
    /// # use kachet::demo::records::{Events, Packing, pack};
    /// use futures_util::TryStreamExt;
    /// use kachet::client::Client;
    ///
    /// # let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    /// # broker.create_topic("orders", 1)?;
    /// # let events: Vec<_> = Events::new(1).take(10).collect();
    /// # broker.append("orders", 0, pack(&events, Packing::Lz4)?)?;
    /// # let bootstrap = broker.address().to_string();
    /// let client = Client::builder().bootstrap(&bootstrap).build()?;
    /// let mut records = client.records_back("orders", 0, i64::MAX);
    /// // The topic holds the offsets 0 to 9.
    /// assert_eq!(records.try_next().await?.map(|record| record.offset), Some(9));
    /// assert_eq!(records.try_next().await?.map(|record| record.offset), Some(8));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "embedded-broker"))]
    /// # fn main() {}
    /// ```
    pub fn records_back<'c>(
        &'c self,
        topic: &str,
        partition: i32,
        from_offset: i64,
    ) -> impl Stream<Item = Result<Record, ClientError>> + Send + Unpin + use<'c, T> {
        let backwards = Backwards {
            is_end_known: false,
            ..Backwards::new(self, topic, partition, 0..from_offset.saturating_add(1), 1)
        };
        stream::unfold(Some(backwards), |state| async move {
            let mut backwards = state?;
            match backwards.next().await {
                Ok(Some(record)) => Some((Ok(record), Some(backwards))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

impl<'c, T: Transport> Backwards<'c, T> {
    /// Reads the offsets of `log`, which the log is known to hold, from the last to the first.
    pub(super) fn new(
        client: &'c Client<T>,
        topic: &str,
        partition: i32,
        log: core::ops::Range<i64>,
        window_offsets: i64,
    ) -> Self {
        Self {
            client,
            topic: topic.into(),
            partition,
            end: log.end,
            is_end_known: true,
            start: log.start,
            window_offsets: window_offsets.max(1),
            density: None,
            page: None,
            records: Vec::new(),
        }
    }

    /// The next older record.
    pub(super) async fn next(&mut self) -> Result<Option<Record>, ClientError> {
        loop {
            if let Some(record) = self.records.pop() {
                return Ok(Some(record));
            }
            let batch = self.page.as_mut().and_then(|page| page.batches.pop());
            if let (Some(page), Some(batch)) = (&self.page, batch) {
                let wanted = page.first..page.end;
                self.records = page.fetched.unpack(&batch)?;
                self.records.retain(|record| wanted.contains(&record.offset));
                continue;
            }
            self.page = None;
            if self.end <= self.start {
                return Ok(None);
            }
            self.turn_page().await?;
        }
    }

    /// Reads one window; a page comes of it, or what is known of the log changes.
    async fn turn_page(&mut self) -> Result<(), ClientError> {
        let first = self.end.saturating_sub(self.window_offsets).max(self.start);
        let page = self.client.page(&self.topic, self.partition, first);
        let max_bytes = self.expected_bytes(page.max_bytes);
        let fetched = match self.client.read_present(Read { max_bytes, ..page }).await {
            Err(ClientError::OffsetOutOfRange {
                log_start_offset,
                high_watermark,
                ..
            }) => return self.narrow(first, log_start_offset, high_watermark),
            other => other?,
        };
        self.start = self.start.max(fetched.log_start_offset());
        if !self.is_end_known {
            self.end = self.end.min(fetched.readable_end());
            self.is_end_known = true;
        }
        match (fetched.first_offset(), fetched.next_offset()) {
            // Not what was asked for; a smaller window would bring it again.
            (Some(_), Some(beyond)) if beyond <= first => Err(no_progress(&fetched, first)),
            // Not the whole window: a smaller one, of which this much is known to fit.
            (Some(_), Some(beyond)) if beyond < self.end => {
                let covered = (beyond - first).max(1);
                self.window_offsets = (self.window_offsets.min(self.end - first) / 2)
                    .min(covered)
                    .max(1);
                Ok(())
            }
            (Some(base), Some(_)) => self.take_page(fetched, first.min(base)),
            // The end was not known, and lies at or before the window.
            _ if first >= self.end => Ok(()),
            _ => Err(no_progress(&fetched, first)),
        }
    }

    /// The log begins or ends elsewhere than was thought.
    fn narrow(&mut self, asked: i64, log_start_offset: i64, high_watermark: i64) -> Result<(), ClientError> {
        let (start, end) = (self.start, self.end);
        self.start = start.max(log_start_offset);
        self.end = end.min(high_watermark);
        self.is_end_known = true;
        if (start, end) == (self.start, self.end) {
            return Err(ClientError::OffsetOutOfRange {
                topic: self.topic.as_ref().to_owned(),
                partition: self.partition,
                offset: asked,
                log_start_offset,
                high_watermark,
            });
        }
        Ok(())
    }

    fn take_page(&mut self, fetched: Fetched, first: i64) -> Result<(), ClientError> {
        let mut bytes: u64 = 0;
        let mut batches = fetched.visible_batches()?;
        let is_before =
            |batch: &Bytes| RecordBatch::parse(batch).is_ok_and(|batch| batch.base_offset() < self.end);
        batches.retain(is_before);
        for batch in fetched.batches()?.iter().filter(|batch| is_before(batch)) {
            bytes = bytes.saturating_add(batch.len() as u64);
        }
        let (end, offsets) = (self.end, self.end.saturating_sub(first).max(1));
        let limit_bytes = self.client.settings.fetch_max_bytes as u64;
        if bytes > 0 {
            let offsets = offsets.unsigned_abs();
            self.density = Some(Density { bytes, offsets });
        }
        self.window_offsets = if bytes <= limit_bytes / 4 {
            offsets.saturating_mul(2)
        } else {
            offsets
        };
        let first = first.max(self.start);
        self.end = first;
        self.page = Some(Page {
            fetched,
            batches,
            first,
            end,
        });
        Ok(())
    }

    /// What the window is expected to hold and half as much again; what lies behind it has been given and is not wanted.
    fn expected_bytes(&self, limit_bytes: usize) -> usize {
        let Some(density) = self.density else {
            let one_batch = self.window_offsets == 1;
            return if one_batch { 1 } else { limit_bytes };
        };
        let window = self.window_offsets.unsigned_abs();
        let expected = u128::from(density.bytes) * u128::from(window) * 3 / 2 / u128::from(density.offsets);
        usize::try_from(expected).map_or(limit_bytes, |expected| expected.clamp(1, limit_bytes.max(1)))
    }
}

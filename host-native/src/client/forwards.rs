//! The records of a partition as a stream, oldest first.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::collections::VecDeque;
use std::sync::Arc;
use std::vec;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;

use super::{Client, ClientError, Fetched, Read, Record, no_progress};
use crate::transport::Transport;

/// Where a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Where the log ended when the first answer came.
    OfFirstAnswer,
    At(i64),
    Never,
}

/// The records of a partition from an offset on, see [`Client::records_from`].
///
/// It asks for nothing before it is polled and for nothing once it is dropped. After an error it ends.
#[must_use = "a stream does nothing unless it is polled"]
pub struct RecordsFrom<'c, T> {
    client: &'c Client<T>,
    topic: Arc<str>,
    partition: i32,
    /// The first offset that is wanted.
    first: i64,
    /// Where the next fetch begins.
    next: i64,
    end: End,
    read_ahead_bytes: usize,
    fetching: Fetching<'c>,
    page: Option<Page>,
    records: vec::IntoIter<Record>,
    has_ended: bool,
}

/// What is left of an answer. Batches are unpacked one by one, so that no more than one is in memory decompressed.
struct Page {
    fetched: Fetched,
    batches: VecDeque<Bytes>,
}

enum Fetching<'c> {
    Nothing,
    Running(BoxFuture<'c, Result<Fetched, ClientError>>),
    Arrived(Result<Box<Fetched>, ClientError>),
}

impl<T: Transport> Client<T> {
    /// The records from `offset` on, oldest first, as a stream that fetches page after page of
    /// [`ClientSettings::fetch_max_bytes`](super::ClientSettings::fetch_max_bytes). It ends where the log ended when the
    /// first answer came, as the transport told it: a cache tells a watermark that may be as old as its staleness bound.
    /// [`RecordsFrom::following`] goes on instead, [`RecordsFrom::until`] ends at an offset.
    ///
    /// Markers are left out, and aborted records if committed data is read. An offset that the log does not hold is
    /// [`ClientError::OffsetOutOfRange`], its end is not. Leaders that move are followed, and the stream ends after its
    /// first error.
    ///
    /// ```
    /// # #[cfg(feature = "embedded-broker")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn core::error::Error>> {
    /// use futures_util::TryStreamExt;
    /// use kachet::client::Client;
    /// use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
    /// use kachet::demo::records::{Events, Packing, pack};
    ///
    /// let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    /// broker.create_topic("orders", 1)?;
    /// let events: Vec<_> = Events::new(1).take(10).collect();
    /// broker.append("orders", 0, pack(&events, Packing::Lz4)?)?;
    ///
    /// let client = Client::builder().bootstrap(&broker.address().to_string()).build()?;
    /// let mut records = client.records_from("orders", 0, 4).read_ahead_bytes(256 << 10);
    /// let mut offsets = Vec::new();
    /// while let Some(record) = records.try_next().await? {
    ///     offsets.push(record.offset);
    /// }
    /// assert_eq!(offsets, [4, 5, 6, 7, 8, 9]);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "embedded-broker"))]
    /// # fn main() {}
    /// ```
    pub fn records_from(&self, topic: &str, partition: i32, offset: i64) -> RecordsFrom<'_, T> {
        RecordsFrom {
            client: self,
            topic: topic.into(),
            partition,
            first: offset,
            next: offset,
            end: End::OfFirstAnswer,
            read_ahead_bytes: 0,
            fetching: Fetching::Nothing,
            page: None,
            records: Vec::new().into_iter(),
            has_ended: false,
        }
    }
}

impl<T: Transport> RecordsFrom<'_, T> {
    /// Ends where the log ended when the first answer came. This is the default.
    pub fn until_end(mut self) -> Self {
        self.end = End::OfFirstAnswer;
        self
    }

    /// Ends before `offset`, or at the end of the log if that comes first.
    pub fn until(mut self, offset: i64) -> Self {
        self.end = End::At(offset);
        self
    }

    /// Waits at the end of the log for what is written next, and never ends by itself.
    pub fn following(mut self) -> Self {
        self.end = End::Never;
        self
    }

    /// How much the next fetch may bring while the records of this page are consumed, in bytes of batches, at most
    /// [`ClientSettings::fetch_max_bytes`](super::ClientSettings::fetch_max_bytes); a first batch that is larger comes
    /// whole. 0, which is the default, fetches the next page only once this one is consumed. There is never more than
    /// one page ahead. The fetch goes on while the stream is polled; nothing runs in the background.
    pub fn read_ahead_bytes(mut self, read_ahead_bytes: usize) -> Self {
        self.read_ahead_bytes = read_ahead_bytes;
        self
    }

    fn is_beyond_end(&self, offset: i64) -> bool {
        matches!(self.end, End::At(end) if offset >= end)
    }

    fn poll_fetch(&mut self, max_bytes: usize, context: &mut Context<'_>) -> Poll<()> {
        if matches!(self.fetching, Fetching::Nothing) {
            let (client, topic) = (self.client, Arc::clone(&self.topic));
            let (partition, offset) = (self.partition, self.next);
            let follows = self.end == End::Never;
            self.fetching = Fetching::Running(Box::pin(async move {
                let page = client.page(&topic, partition, offset);
                let read = Read { max_bytes, ..page };
                if follows {
                    client.read_or_wait(read).await
                } else {
                    client.read_present(read).await
                }
            }));
        }
        if let Fetching::Running(running) = &mut self.fetching {
            let arrived = ready!(running.as_mut().poll(context));
            self.fetching = Fetching::Arrived(arrived.map(Box::new));
        }
        Poll::Ready(())
    }

    /// Has the next page come while this one is consumed.
    fn poll_ahead(&mut self, context: &mut Context<'_>) {
        if self.read_ahead_bytes > 0 && !self.is_beyond_end(self.next) {
            let max_bytes = self.read_ahead_bytes.min(self.client.settings.fetch_max_bytes);
            let _ = self.poll_fetch(max_bytes, context);
        }
    }

    fn take_page(&mut self, fetched: Fetched) -> Result<(), ClientError> {
        if self.end == End::OfFirstAnswer {
            self.end = End::At(fetched.readable_end());
        }
        match fetched.next_offset() {
            Some(beyond) if beyond > self.next => self.next = beyond,
            Some(_) => return Err(no_progress(&fetched, self.next)),
            None => {
                self.has_ended = self.end != End::Never;
                return Ok(());
            }
        }
        let batches = fetched.visible_batches()?.into();
        self.page = Some(Page { fetched, batches });
        Ok(())
    }

    /// The next record of what is in memory.
    fn next_at_hand(&mut self) -> Result<Option<Record>, ClientError> {
        loop {
            let first = self.first;
            if let Some(record) = self.records.find(|record| record.offset >= first) {
                return Ok(Some(record));
            }
            let Some(page) = &mut self.page else {
                return Ok(None);
            };
            match page.batches.pop_front() {
                Some(batch) => self.records = page.fetched.unpack(&batch)?.into_iter(),
                None => self.page = None,
            }
        }
    }

    fn poll_record(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Record>, ClientError>> {
        loop {
            match self.next_at_hand()? {
                Some(record) if self.is_beyond_end(record.offset) => return Poll::Ready(Ok(None)),
                Some(record) => {
                    self.poll_ahead(context);
                    return Poll::Ready(Ok(Some(record)));
                }
                None if self.has_ended || self.is_beyond_end(self.next) => return Poll::Ready(Ok(None)),
                None => {}
            }
            ready!(self.poll_fetch(self.client.settings.fetch_max_bytes, context));
            if let Fetching::Arrived(arrived) = core::mem::replace(&mut self.fetching, Fetching::Nothing) {
                self.take_page(*arrived?)?;
            }
        }
    }
}

impl<T: Transport> Stream for RecordsFrom<'_, T> {
    type Item = Result<Record, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended && self.page.is_none() && self.records.len() == 0 {
            return Poll::Ready(None);
        }
        let record = ready!(self.poll_record(context)).transpose();
        if !matches!(record, Some(Ok(_))) {
            // Lets go of what is left, a fetch that is under way included.
            self.has_ended = true;
            self.fetching = Fetching::Nothing;
            self.page = None;
            self.records = Vec::new().into_iter();
        }
        Poll::Ready(record)
    }
}

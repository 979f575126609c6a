//! Records by where they stand in the log: the last ones, and the first one of a time.

use futures_util::{StreamExt, TryStreamExt, future};

use super::backwards::Backwards;
use super::{Client, ClientError, Position, Read, Record};
use crate::transport::Transport;

impl<T: Transport> Client<T> {
    /// The last `count` records that a reader of the settings' isolation sees, in ascending order; fewer if the log
    /// holds no more. Where the log ends is asked anew, not taken from the cache.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), kachet::client::ClientError> {
    /// # use kachet::client::Client;
    /// # let client = Client::builder().bootstrap("localhost:9092").build()?;
    /// for record in client.last("orders", 0, 10).await? {
    ///     println!("{} {:?}", record.offset, record.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn last(&self, topic: &str, partition: i32, count: usize) -> Result<Vec<Record>, ClientError> {
        let (start, end) = self.bounds(topic, partition).await?;
        let window_offsets = i64::try_from(count).unwrap_or(i64::MAX);
        let mut backwards = Backwards::new(self, topic, partition, start..end, window_offsets);
        let mut records = Vec::new();
        while records.len() < count {
            match backwards.next().await? {
                Some(record) => records.push(record),
                None => break,
            }
        }
        records.reverse();
        Ok(records)
    }

    /// The first record of `timestamp_ms` (milliseconds since 1970) or later that a reader of the settings' isolation
    /// sees, by its place in the log; `None` if there is none. Where the broker's index points at a record that is
    /// gone or aborted, it is the next one that is late enough.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), kachet::client::ClientError> {
    /// # use kachet::client::Client;
    /// # let client = Client::builder().bootstrap("localhost:9092").build()?;
    /// // The first order of 2025.
    /// let first = client.first_since("orders", 0, 1_735_689_600_000).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn first_since(
        &self,
        topic: &str,
        partition: i32,
        timestamp_ms: i64,
    ) -> Result<Option<Record>, ClientError> {
        let position = Position::Timestamp(timestamp_ms.max(0));
        let offset = match self.offset_of(topic, partition, position).await {
            Err(ClientError::NoSuchTimestamp { .. }) => return Ok(None),
            other => other?,
        };
        let is_late_enough = |record: &Record| record.timestamp_ms >= timestamp_ms;
        // As a rule the record is in the first batch, and what lies behind is not wanted.
        let one_batch = Read {
            max_bytes: 1,
            ..self.page(topic, partition, offset)
        };
        let fetched = self.read_present(one_batch).await?;
        if let Some(record) = fetched.records(usize::MAX)?.into_iter().find(is_late_enough) {
            return Ok(Some(record));
        }
        let Some(next) = fetched.next_offset() else {
            return Ok(None);
        };
        let end = fetched.readable_end();
        let behind = self.records_from(topic, partition, next).until(end);
        let mut late_enough = behind.try_filter(|record| future::ready(is_late_enough(record)));
        late_enough.next().await.transpose()
    }
}

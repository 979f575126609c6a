//! Records at many offsets at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use kachet_core::wire::RecordBatch;

use super::{Client, ClientError, Fetched, Read, Record};
use crate::transport::Transport;

/// Requests that are under way at a time.
const REQUESTS_AT_ONCE: usize = 8;
/// Fetches of one partition that are under way at a time.
const HEADS_OF_PARTITION: usize = 8;
/// Partitions of one request.
const PARTITIONS_OF_REQUEST: usize = 16;

/// Where a record lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordPlace {
    /// The topic's name.
    pub topic: String,
    /// The partition's index.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

type Found = Result<Option<Record>, ClientError>;

impl<T: Transport> Client<T> {
    /// The records at many offsets of a partition, in the order in which they are asked for; each answer is what
    /// [`Client::record`] would give. Offsets in one batch take one fetch, and so does a run of batches as far as
    /// [`ClientSettings::fetch_max_bytes`](super::ClientSettings::fetch_max_bytes) goes; what lies apart is fetched
    /// beside each other. Holds the answers to all offsets in memory, each with the batch that its bytes share.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), kachet::client::ClientError> {
    /// # use kachet::client::Client;
    /// # let client = Client::builder().bootstrap("localhost:9092").build()?;
    /// for record in client.scattered("orders", 0, &[70_000, 3, 5]).await {
    ///     println!("{:?}", record?.map(|record| record.value));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn scattered(&self, topic: &str, partition: i32, offsets: &[i64]) -> Vec<Found> {
        let places = offsets.iter().map(|offset| (topic, partition, *offset));
        self.gather(places.collect()).await
    }

    /// Like [`Client::scattered`], of any partitions: those of a leader share requests.
    pub async fn scattered_places(&self, places: &[RecordPlace]) -> Vec<Found> {
        let places = places
            .iter()
            .map(|place| (place.topic.as_str(), place.partition, place.offset));
        self.gather(places.collect()).await
    }

    async fn gather(&self, places: Vec<(&str, i32, i64)>) -> Vec<Found> {
        let mut wanted: BTreeMap<(&str, i32), Wanted> = BTreeMap::new();
        for (topic, partition, offset) in &places {
            wanted
                .entry((topic, *partition))
                .or_default()
                .left
                .insert(*offset);
        }
        // Every round answers at least the offset that each of its reads begins with.
        loop {
            let jobs = self.jobs(&wanted);
            if jobs.is_empty() {
                break;
            }
            let answers = jobs.into_iter().map(|reads| self.carry_out(reads));
            let mut answers = stream::iter(answers).buffer_unordered(REQUESTS_AT_ONCE);
            while let Some(answers) = answers.next().await {
                for (read, answer) in answers {
                    if let Some(wanted) = wanted.get_mut(&(read.topic, read.partition)) {
                        wanted.take(read, answer);
                    }
                }
            }
        }
        let answer = |(topic, partition, offset): &(&str, i32, i64)| {
            let found = wanted.get(&(*topic, *partition))?.found.get(offset)?;
            Some(found.clone())
        };
        places
            .iter()
            .map(|place| answer(place).unwrap_or(Ok(None)))
            .collect()
    }

    /// The reads of one round, those that go into one request together.
    fn jobs<'t>(&self, wanted: &BTreeMap<(&'t str, i32), Wanted>) -> Vec<Vec<Read<'t>>> {
        let (mut first, mut others) = (Vec::new(), Vec::new());
        for ((topic, partition), wanted) in wanted {
            let mut reads =
                wanted
                    .heads(self.settings.fetch_max_bytes)
                    .into_iter()
                    .map(|(offset, max_bytes)| Read {
                        max_bytes,
                        ..self.page(topic, *partition, offset)
                    });
            first.extend(reads.next());
            others.extend(reads.map(|read| vec![read]));
        }
        let together = first.chunks(PARTITIONS_OF_REQUEST).map(<[_]>::to_vec);
        together.chain(others).collect()
    }

    async fn carry_out<'t>(&self, reads: Vec<Read<'t>>) -> Vec<(Read<'t>, Result<Fetched, ClientError>)> {
        match reads.as_slice() {
            [read] => vec![(*read, self.read_present(*read).await)],
            _ => self.read_several(reads).await,
        }
    }
}

/// What is wanted of a partition.
#[derive(Default)]
struct Wanted {
    left: BTreeSet<i64>,
    found: HashMap<i64, Found>,
    /// The largest batch that has been seen.
    batch: Option<BatchSize>,
}

#[derive(Clone, Copy)]
struct BatchSize {
    offsets: u64,
    bytes: usize,
}

impl Wanted {
    /// Offsets to read at, with how many bytes each read may bring. Two are in one round only if they are further apart
    /// than the batches that have been seen are long, so that no batch is fetched twice.
    fn heads(&self, limit_bytes: usize) -> Vec<(i64, usize)> {
        let Some(batch) = self.batch else {
            // One batch, from which is learned how long they are.
            return self.left.first().map(|offset| (*offset, 1)).into_iter().collect();
        };
        let mut runs: Vec<(i64, i64)> = Vec::new();
        for offset in &self.left {
            let is_full = runs.len() == HEADS_OF_PARTITION;
            match runs.last_mut() {
                Some((_, last)) if offset.abs_diff(*last) <= batch.offsets => *last = *offset,
                _ if is_full => break,
                _ => runs.push((*offset, *offset)),
            }
        }
        let bytes = |(first, last): (i64, i64)| {
            if first == last {
                return 1;
            }
            let batches = last.abs_diff(first) / batch.offsets.max(1) + 1;
            let batches = usize::try_from(batches).unwrap_or(usize::MAX);
            batch.bytes.saturating_mul(batches).clamp(1, limit_bytes.max(1))
        };
        runs.into_iter().map(|run| (run.0, bytes(run))).collect()
    }

    fn take(&mut self, read: Read<'_>, answer: Result<Fetched, ClientError>) {
        match answer {
            Ok(fetched) => match fetched.next_offset() {
                Some(beyond) if beyond > read.offset => self.take_batches(read.offset, beyond, &fetched),
                Some(_) => self.take_error(read.offset, &super::no_progress(&fetched, read.offset)),
                None => self.take_beyond_end(read.offset, &fetched),
            },
            Err(error) => self.take_error(read.offset, &error),
        }
        // Nothing above may leave the offset that was read at without an answer, or the next round would read it again.
        if self.left.remove(&read.offset) {
            self.found.insert(read.offset, Ok(None));
        }
    }

    fn take_beyond_end(&mut self, from: i64, fetched: &Fetched) {
        for offset in self.left.split_off(&from) {
            self.found.insert(offset, Err(super::beyond_end(fetched, offset)));
        }
    }

    /// Everything from `from` up to `beyond` is answered, by nothing where no batch holds it.
    fn take_batches(&mut self, from: i64, beyond: i64, fetched: &Fetched) {
        let answered: Vec<i64> = self.left.range(from..beyond).copied().collect();
        self.learn_size(fetched);
        match fetched.visible_batches() {
            Ok(batches) => {
                for batch in batches {
                    self.take_batch(&batch, &answered, fetched);
                }
            }
            Err(error) => {
                for offset in &answered {
                    self.found.insert(*offset, Err(error.clone()));
                }
            }
        }
        for offset in answered {
            self.left.remove(&offset);
            self.found.entry(offset).or_insert(Ok(None));
        }
    }

    fn take_batch(&mut self, bytes: &Bytes, answered: &[i64], fetched: &Fetched) {
        let Ok(span) = RecordBatch::parse(bytes).map(|batch| batch.span()) else {
            return;
        };
        let inside = answered.iter().filter(|offset| span.contains(**offset));
        if inside.clone().next().is_none() {
            return;
        }
        match fetched.unpack(bytes) {
            Ok(records) => {
                let wanted = |record: &Record| answered.binary_search(&record.offset).is_ok();
                for record in records.into_iter().filter(wanted) {
                    self.found.insert(record.offset, Ok(Some(record)));
                }
            }
            Err(error) => {
                for offset in inside {
                    self.found.insert(*offset, Err(error.clone()));
                }
            }
        }
    }

    fn learn_size(&mut self, fetched: &Fetched) {
        for bytes in fetched.batches().unwrap_or_default() {
            let Ok(batch) = RecordBatch::parse(&bytes) else {
                continue;
            };
            let span = batch.span();
            let known = self.batch.unwrap_or(BatchSize { offsets: 1, bytes: 1 });
            self.batch = Some(BatchSize {
                offsets: known
                    .offsets
                    .max(span.last().abs_diff(span.base()).saturating_add(1)),
                bytes: known.bytes.max(bytes.len()),
            });
        }
    }

    /// An offset out of range says nothing of those that the log holds; any other error is one of the partition.
    fn take_error(&mut self, from: i64, error: &ClientError) {
        let failed: Vec<i64> = match error {
            ClientError::OffsetOutOfRange {
                log_start_offset,
                high_watermark,
                ..
            } => {
                let is_outside = |offset: &i64| *offset < *log_start_offset || *offset >= *high_watermark;
                let mut outside: Vec<i64> = self.left.iter().copied().filter(is_outside).collect();
                outside.push(from);
                outside
            }
            _ => self.left.iter().copied().collect(),
        };
        for offset in failed {
            self.left.remove(&offset);
            let error = match error.clone() {
                ClientError::OffsetOutOfRange {
                    topic,
                    partition,
                    log_start_offset,
                    high_watermark,
                    ..
                } => ClientError::OffsetOutOfRange {
                    topic,
                    partition,
                    offset,
                    log_start_offset,
                    high_watermark,
                },
                other => other,
            };
            self.found.insert(offset, Err(error));
        }
    }
}

//! The tasks that read.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use kachet::client::ClientError;
use tokio::time::sleep;

use crate::Reader;
use crate::world::{Outcome, PARTITIONS, Read, TOPICS, World, topic_name};

/// So that 64 tasks leave the brokers some of the processors.
const PAUSE: Duration = Duration::from_millis(3);
/// Every so many reads look at a place of which something was deleted.
const LOOKS_BELOW: u64 = 16;

/// Reads until it is time to end.
pub(crate) async fn run(client: Arc<Reader>, world: Arc<World>, task: u32, ends_at: Instant) {
    let mut random = Random(u64::from(task) + 1);
    while Instant::now() < ends_at {
        sleep(PAUSE).await;
        let statistics = client.transport().statistics();
        world.judge_size(statistics.size_bytes, statistics.limit_bytes);
        let Some(read) = choose(&world, &mut random) else {
            continue;
        };
        let partition = i32::try_from(read.partition).unwrap_or(0);
        let record = client
            .record(&topic_name(read.topic), partition, read.offset)
            .await;
        world.judge(&read, &outcome(record));
    }
}

fn outcome(record: Result<Option<kachet::client::Record>, ClientError>) -> Outcome {
    match record {
        Ok(record) => {
            let value = record.and_then(|record| record.value);
            Outcome::Value(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
        }
        Err(ClientError::OffsetOutOfRange { .. }) => Outcome::OutOfRange,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// A place where something was written, most often where it still is.
fn choose(world: &World, random: &mut Random) -> Option<Read> {
    let (topic, partition) = (random.below(TOPICS as u64), random.below(PARTITIONS as u64));
    let (topic, partition) = (usize::try_from(topic).ok()?, usize::try_from(partition).ok()?);
    let before = world.topic(topic).clone();
    let known = &before.partitions[partition];
    let from = if random.below(LOOKS_BELOW) == 0 {
        0
    } else {
        known.log_start
    };
    let count = u64::try_from(known.end() - from)
        .ok()
        .filter(|count| *count > 0)?;
    let offset = from + i64::try_from(random.below(count)).ok()?;
    Some(Read {
        topic,
        partition,
        offset,
        before,
        began_at: Instant::now(),
    })
}

/// A xorshift generator; its seed is not 0.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

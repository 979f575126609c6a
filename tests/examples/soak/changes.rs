//! What happens to the cluster and to the cache's limit meanwhile.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use kachet_tests::cluster::KafkaCluster;
use kachet_tests::java::TopicWriter;
use serde_json::{Value, json};

use crate::Reader;
use crate::readers::Random;
use crate::world::{PARTITIONS, TOPICS, Topic, World, topic_name};

const PAUSE: Duration = Duration::from_millis(250);
const FIRST_RECORDS: u32 = 400;
const MORE_RECORDS: u32 = 60;
const BATCH_RECORDS: u32 = 10;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// A partition that has grown to this is cut.
const LONGEST: i64 = 4_000;
const ORDERS: [&str; 6] = ["1,2,3", "2,3,1", "3,1,2", "1,3,2", "2,1,3", "3,2,1"];

/// How often what was done.
#[derive(Clone, Default)]
pub(crate) struct Count {
    written: u64,
    deleted_records: u64,
    topics_made_anew: u64,
    moves: u64,
    limits: u64,
    brokers_ended: u64,
}

impl Count {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "written": self.written,
            "deleted_records": self.deleted_records,
            "topics_made_anew": self.topics_made_anew,
            "moves": self.moves,
            "limits": self.limits,
            "brokers_ended": self.brokers_ended,
        })
    }
}

pub(crate) struct Changes {
    cluster: KafkaCluster,
    writer: TopicWriter,
    client: Arc<Reader>,
    world: Arc<World>,
    random: Random,
    next_seed: i64,
    count: Count,
}

impl Changes {
    pub(crate) fn new(
        cluster: KafkaCluster,
        writer: TopicWriter,
        client: Arc<Reader>,
        world: Arc<World>,
        seed: u64,
    ) -> Self {
        Self {
            cluster,
            writer,
            client,
            world,
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            next_seed: 1,
            count: Count::default(),
        }
    }

    pub(crate) fn begin(&mut self) -> Result<()> {
        (0..TOPICS).try_for_each(|topic| self.create(topic))
    }

    pub(crate) fn run_until(&mut self, ends_at: Instant) -> Result<Count> {
        while Instant::now() < ends_at {
            let topic = usize::try_from(self.random.below(TOPICS as u64))?;
            let partition = usize::try_from(self.random.below(PARTITIONS as u64))?;
            match self.random.below(100) {
                0..40 => self.write(topic, partition, MORE_RECORDS)?,
                40..55 => self.delete_records(topic, partition)?,
                55..63 => self.make_anew(topic)?,
                63..82 => self.move_replicas(topic, partition)?,
                82..99 => self.change_limit(),
                _ => self.end_a_broker()?,
            }
            thread::sleep(PAUSE);
        }
        Ok(self.count.clone())
    }

    fn create(&mut self, topic: usize) -> Result<()> {
        let life = {
            let mut known = self.world.topic(topic);
            let life = known.life + 1;
            let written = core::mem::take(&mut known.partitions);
            *known = Topic {
                life,
                former: Some((written, Instant::now())),
                ..Topic::default()
            };
            life
        };
        self.writer
            .command(&format!("create {} {PARTITIONS}", topic_name(topic)))?;
        for partition in 0..PARTITIONS {
            self.write(topic, partition, FIRST_RECORDS)?;
        }
        let mut known = self.world.topic(topic);
        debug_assert_eq!(known.life, life);
        known.settled_at = Some(Instant::now());
        Ok(())
    }

    fn write(&mut self, topic: usize, partition: usize, count: u32) -> Result<()> {
        let seed = self.next_seed;
        self.next_seed += 1;
        let codec = CODECS[usize::try_from(self.random.below(CODECS.len() as u64))?];
        let (name, index) = (topic_name(topic), i32::try_from(partition)?);
        let written = self
            .writer
            .produce(&name, index, codec, (count, BATCH_RECORDS), seed);
        let (first, last) = written?;
        anyhow::ensure!(
            last - first + 1 == i64::from(count),
            "{name}: {first} to {last} for {count} records"
        );
        self.world.topic(topic).partitions[partition]
            .written
            .push((first, count, seed));
        self.count.written += u64::from(count);
        Ok(())
    }

    fn delete_records(&mut self, topic: usize, partition: usize) -> Result<()> {
        let (start, end) = {
            let known = self.world.topic(topic);
            (
                known.partitions[partition].log_start,
                known.partitions[partition].end(),
            )
        };
        // Some, inside of a batch as often as not; most of a log that has become long.
        let share = if end - start > LONGEST { 2 } else { 12 };
        let before = start + i64::try_from(self.random.below(u64::try_from((end - start) / share + 1)?))?;
        if before <= start {
            return Ok(());
        }
        {
            // From the moment on at which it may be gone.
            let mut known = self.world.topic(topic);
            known.partitions[partition].log_start = before;
            known.partitions[partition].moved_at = Some(Instant::now() + Duration::from_hours(1));
        }
        self.writer.command(&format!(
            "delete-records {} {partition} {before}",
            topic_name(topic)
        ))?;
        self.world.topic(topic).partitions[partition].moved_at = Some(Instant::now());
        self.count.deleted_records += u64::try_from(before - start)?;
        Ok(())
    }

    fn make_anew(&mut self, topic: usize) -> Result<()> {
        self.world.topic(topic).settled_at = None;
        self.writer.command(&format!("delete {}", topic_name(topic)))?;
        self.count.topics_made_anew += 1;
        self.create(topic)
    }

    fn move_replicas(&mut self, topic: usize, partition: usize) -> Result<()> {
        let order = ORDERS[usize::try_from(self.random.below(ORDERS.len() as u64))?];
        self.writer
            .command(&format!("move {} {partition} {order}", topic_name(topic)))?;
        self.count.moves += 1;
        Ok(())
    }

    fn change_limit(&mut self) {
        // What is written comes to several times the most of it.
        let limit = (64 << 10) + self.random.below(1 << 20);
        self.world.limit_changes();
        self.client.transport().set_size_limit_bytes(limit);
        self.count.limits += 1;
    }

    /// Node 1 is the controller, too, and stays.
    fn end_a_broker(&mut self) -> Result<()> {
        let node_id = 2 + i32::try_from(self.random.below(2))?;
        let is_crash = self.random.below(2) == 0;
        let node = self.cluster.node(node_id)?;
        if is_crash {
            node.kill();
        } else {
            node.stop();
        }
        thread::sleep(Duration::from_secs(4));
        node.restart()?;
        self.count.brokers_ended += 1;
        Ok(())
    }
}

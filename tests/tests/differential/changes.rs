//! Topics that are written, cut, compacted, deleted and created anew while they are read; and a judge that knows from when
//! on each change has to show (H4 to H7).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use kachet_core::wire::{BatchEntry, Batches, PartitionData, RecordBytes, TopicId, TopicRef};
use kachet_tests::java::TopicWriter;
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::campaign::{Outcome, Plan, Target, Verdict};
use crate::connection::{Answered, Connection};
use crate::judge::{Trial, asked_by};
use crate::living_sessions::{Seen, session};
use crate::requests::{Case, Maker, dice};
use crate::topics::{COMPACTED, learn};
use crate::truth::{Event, Log, Truth};

/// The bounds of the proxy that is judged here.
pub(crate) const BOUND: Duration = Duration::from_millis(400);
pub(crate) const COMPACTED_BOUND: Duration = Duration::from_millis(1_200);

const TOPICS: [&str; 5] = ["written", "transacted", "trimmed", "swept-compacted", "replaced"];
const PARTITIONS: i32 = 2;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const FINDINGS_LIMIT: usize = 10;
/// For the broker to forget a topic, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

type SharedTruth = Arc<RwLock<Truth>>;

/// Whoever changes the topics. Its names carry the run's, so that several can be one after the other.
struct Changer {
    writer: Arc<Mutex<TopicWriter>>,
    broker: Broker,
    truth: SharedTruth,
    rng: Rng,
    run: u64,
    open: bool,
}

impl Changer {
    async fn command(&self, command: String) -> Result<String> {
        let writer = Arc::clone(&self.writer);
        let work = move || {
            writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .command(&command)
        };
        tokio::task::spawn_blocking(work).await?
    }

    fn name(&self, topic: &str) -> String {
        format!("{topic}-{}", self.run)
    }

    async fn begin(&mut self) -> Result<()> {
        for topic in TOPICS {
            let name = self.name(topic);
            let settings = if topic.contains("compacted") {
                COMPACTED
            } else {
                ""
            };
            self.command(format!("create {name} {PARTITIONS} {settings}"))
                .await?;
            for partition in 0..PARTITIONS {
                self.command(format!("produce {name} {partition} none 80 8 {partition} keys=9"))
                    .await?;
            }
            learn(
                &mut self.broker,
                &mut *self.truth.write().await,
                &name,
                PARTITIONS,
            )
            .await?;
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<()> {
        let partition = self.rng.i32(0..PARTITIONS);
        let seed = self.rng.u32(0..1_000);
        match self.rng.u32(0..12) {
            0..3 => {
                let codec = CODECS[self.rng.usize(0..CODECS.len())];
                let (count, batch) = (self.rng.u32(1..40), self.rng.u32(1..9));
                let name = self.name("written");
                self.command(format!(
                    "produce {name} {partition} {codec} {count} {batch} {seed}"
                ))
                .await?;
                self.look(&name, false).await
            }
            3..6 => self.transact(partition).await,
            6..8 => {
                let (count, name) = (self.rng.u32(20..90), self.name("swept-compacted"));
                self.command(format!("produce {name} {partition} none {count} 6 {seed} keys=7"))
                    .await?;
                self.look(&name, true).await
            }
            8..11 => self.trim(partition).await,
            _ => self.replace().await,
        }
    }

    async fn transact(&mut self, partition: i32) -> Result<()> {
        let name = self.name("transacted");
        let (how, count) = (["commit", "abort"][self.rng.usize(0..2)], self.rng.u32(1..6));
        let (run, producer) = (self.run, self.rng.u32(0..2));
        if self.rng.bool() {
            self.command(format!(
                "transaction {how} {name} {partition} {count} tx-{run}-{producer}"
            ))
            .await?;
        } else if self.open {
            self.command(format!("end-transaction {how} tx-{run}-open"))
                .await?;
            self.open = false;
        } else {
            self.command(format!(
                "transaction open {name} {partition} {count} tx-{run}-open"
            ))
            .await?;
            self.open = true;
        }
        self.look(&name, false).await
    }

    async fn trim(&mut self, partition: i32) -> Result<()> {
        let name = self.name("trimmed");
        let count = self.rng.u32(5..30);
        self.command(format!("produce {name} {partition} lz4 {count} 5 3"))
            .await?;
        self.look(&name, false).await?;
        let (id, start, end) = {
            let truth = self.truth.read().await;
            let topic = truth
                .topics
                .iter()
                .find(|topic| topic.name == name)
                .context("no topic to trim")?;
            let mark = truth
                .log(topic, partition)
                .and_then(Log::newest_mark)
                .context("no log to trim")?;
            (topic.id, mark.log_start_offset, mark.high_watermark)
        };
        let from = Instant::now();
        self.note(id, Event { from, until: None }).await;
        let before = self.rng.i64(start..=end);
        self.command(format!("delete-records {name} {partition} {before}"))
            .await?;
        self.look(&name, false).await?;
        self.note(
            id,
            Event {
                from,
                until: Some(Instant::now()),
            },
        )
        .await;
        Ok(())
    }

    async fn replace(&mut self) -> Result<()> {
        let name = self.name("replaced");
        let id = self.broker.describe(&name).await?.topic_id;
        let from = Instant::now();
        self.note(id, Event { from, until: None }).await;
        self.command(format!("delete {name}")).await?;
        let deadline = Instant::now() + PATIENCE;
        while self.broker.error_of(id, 0).await? == 0 {
            ensure!(
                Instant::now() < deadline,
                "the broker does not forget a topic that was deleted"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Some(topic) = self.truth.write().await.topic_mut(id) {
            topic.deleted_at = Some(Instant::now());
        }
        while self.command(format!("create {name} {PARTITIONS}")).await.is_err() {
            ensure!(
                Instant::now() < deadline,
                "a topic does not come about a second time"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for partition in 0..PARTITIONS {
            let seed = self.rng.u32(0..1_000);
            self.command(format!("produce {name} {partition} gzip 30 5 {seed}"))
                .await?;
        }
        learn(
            &mut self.broker,
            &mut *self.truth.write().await,
            &name,
            PARTITIONS,
        )
        .await?;
        self.note(
            id,
            Event {
                from,
                until: Some(Instant::now()),
            },
        )
        .await;
        Ok(())
    }

    /// Notes that something is under way, or since when it is not.
    async fn note(&self, id: TopicId, event: Event) {
        let mut truth = self.truth.write().await;
        let Some(topic) = truth.topic_mut(id) else { return };
        match topic.events.last_mut().filter(|last| last.from == event.from) {
            Some(last) => *last = event,
            None => topic.events.push(event),
        }
    }

    /// Takes in what a change has made of a topic.
    async fn look(&mut self, name: &str, anew: bool) -> Result<()> {
        let mut truth = self.truth.write().await;
        let living = truth
            .topics
            .iter()
            .rfind(|topic| topic.name == name && topic.deleted_at.is_none());
        let Some(id) = living.map(|topic| topic.id) else {
            return Ok(());
        };
        for partition in 0..PARTITIONS {
            truth.read_on(&mut self.broker, id, partition, anew).await?;
        }
        Ok(())
    }
}

/// Judges so many requests while the topics change. The targets have to keep to [`BOUND`] and [`COMPACTED_BOUND`].
/// Beside them fetch sessions go on, so many at least.
pub(crate) async fn while_changing(
    bootstrap: &str,
    plan: &Plan,
    run: u64,
    sessions: u64,
) -> Result<(Outcome, Counts)> {
    let truth: SharedTruth = Arc::default();
    let bootstrap_here = bootstrap.to_owned();
    let writer = tokio::task::spawn_blocking(move || TopicWriter::start(&bootstrap_here)).await??;
    let mut author = Changer {
        writer: Arc::new(Mutex::new(writer)),
        broker: Broker::at(bootstrap)?,
        truth: Arc::clone(&truth),
        rng: dice(plan.seed, u64::MAX),
        run,
        open: false,
    };
    author.begin().await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let changing = tokio::spawn(async move {
        let mut count = 0;
        while !over.load(Ordering::Relaxed) {
            author.step().await?;
            count += 1;
            author.look(&author.name("swept-compacted"), true).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<u64, anyhow::Error>(count)
    });
    let are_read = AtomicBool::new(false);
    let reading = async {
        let outcome = read_meanwhile(bootstrap, plan, &truth).await;
        are_read.store(true, Ordering::Relaxed);
        outcome
    };
    let in_sessions = sessions_meanwhile(bootstrap, plan, &truth, |done| {
        done < sessions || !are_read.load(Ordering::Relaxed)
    });
    let (outcome, in_sessions) = tokio::join!(reading, in_sessions);
    is_over.store(true, Ordering::Relaxed);
    let changes = changing.await??;
    let (mut outcome, (of_sessions, sessions)) = (outcome?, in_sessions?);
    let answers = of_sessions.requests;
    outcome.add_all(of_sessions);
    let counts = Counts {
        changes,
        sessions,
        answers,
    };
    Ok((outcome, counts))
}

/// How much went on while requests were judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) changes: u64,
    pub(crate) sessions: Seen,
    /// Those of sessions.
    pub(crate) answers: u64,
}

/// One session after the other, as long as it goes on by their number.
async fn sessions_meanwhile(
    bootstrap: &str,
    plan: &Plan,
    truth: &SharedTruth,
    goes_on: impl Fn(u64) -> bool,
) -> Result<(Outcome, Seen)> {
    let (mut outcome, mut seen) = (Outcome::default(), Seen::default());
    let Some(target) = plan.targets.first() else {
        return Ok((outcome, seen));
    };
    let mut worker = Reader::to(bootstrap, target, truth)?;
    let mut number = 0;
    while goes_on(number) && outcome.findings.len() < FINDINGS_LIMIT {
        let mut verdict = Verdict::of(plan.seed, number);
        let mut injector = plan.injector.clone();
        // Beyond the numbers of the other requests.
        let rng = dice(plan.seed, (1 << 40) + number);
        if let Err(error) = session(rng, &mut worker, injector.as_mut(), &mut verdict, &mut seen).await {
            verdict.fail(&error);
        }
        outcome.add(verdict);
        number += 1;
    }
    seen.sessions = number;
    Ok((outcome, seen))
}

async fn read_meanwhile(bootstrap: &str, plan: &Plan, truth: &SharedTruth) -> Result<Outcome> {
    let next = Arc::new(AtomicU64::new(plan.numbers.0));
    let mut workers = JoinSet::new();
    for target in plan.targets.clone() {
        let (next, truth, plan) = (Arc::clone(&next), Arc::clone(truth), plan.clone());
        let mut worker = Reader::to(bootstrap, &target, &truth)?;
        workers.spawn(async move {
            let mut outcome = Outcome::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= plan.numbers.1 || outcome.findings.len() >= FINDINGS_LIMIT {
                    return Ok::<_, anyhow::Error>(outcome);
                }
                let known = truth.read().await.clone();
                let buried = buried(&known);
                let mut maker = Maker {
                    rng: dice(plan.seed, number),
                    truth: &known,
                    buried: &buried,
                };
                let case = maker.case();
                let mut verdict = Verdict::of(plan.seed, number);
                if let Err(error) = worker.judge(&case, &mut verdict).await {
                    verdict.fail(&error);
                }
                outcome.add(verdict);
            }
        });
    }
    let mut all = Outcome::default();
    while let Some(outcome) = workers.join_next().await {
        all.add_all(outcome??);
    }
    Ok(all)
}

/// The topics that are gone.
pub(crate) fn buried(truth: &Truth) -> Vec<TopicId> {
    let buried = truth.topics.iter().filter(|topic| topic.deleted_at.is_some());
    buried.map(|topic| topic.id).collect()
}

/// One worker.
pub(crate) struct Reader {
    pub(crate) direct: Connection,
    pub(crate) through: Connection,
    broker: Broker,
    pub(crate) truth: SharedTruth,
}

impl Reader {
    fn to(bootstrap: &str, target: &Target, truth: &SharedTruth) -> Result<Self> {
        Ok(Self {
            direct: Connection::to(&bootstrap),
            through: Connection::to(&target.address),
            broker: Broker::at(bootstrap)?,
            truth: Arc::clone(truth),
        })
    }

    async fn judge(&mut self, case: &Case, verdict: &mut Verdict) -> Result<()> {
        let mut at_once = case.clone();
        at_once.request.max_wait_ms = at_once.request.max_wait_ms.min(0);
        let earlier = self
            .direct
            .fetch(case.version, &at_once.request)
            .await
            .context("from the broker")?;
        let through = self
            .through
            .fetch(case.version, &case.request)
            .await
            .context("from the proxy")?;
        let later = self
            .direct
            .fetch(case.version, &at_once.request)
            .await
            .context("from the broker")?;
        verdict.one_more();
        self.catch_up(&through).await?;
        let truth = self.truth.read().await;
        let trial = trial(&truth, case, &through, &later);
        let mut findings = trial.whole(&asked_by(case), &through.response);
        findings.extend(trial.beside(&through, &[&earlier, &later]));
        verdict.note(case, &findings, &through, "while the topics change");
        Ok(())
    }

    /// Reads on where an answer tells more than is known.
    pub(crate) async fn catch_up(&mut self, through: &Answered) -> Result<()> {
        for (topic, data) in through.response.partitions() {
            let unknown = {
                let truth = self.truth.read().await;
                let living = truth.topics_of(topic).filter(|topic| topic.deleted_at.is_none());
                let unknown = living.filter_map(|topic| {
                    // None where the broker was not ready yet when the topic was met.
                    let log = truth.log(topic, data.partition_index);
                    let is_unread = log.is_none_or(|log| is_behind(log, data));
                    is_unread.then_some((topic.id, topic.is_compacted))
                });
                unknown.last()
            };
            if let Some((id, anew)) = unknown {
                let mut truth = self.truth.write().await;
                truth
                    .read_on(&mut self.broker, id, data.partition_index, anew)
                    .await?;
            }
        }
        self.meet_new_topics(through).await
    }

    /// A topic may have been created of which the one that creates it has not told yet.
    async fn meet_new_topics(&mut self, through: &Answered) -> Result<()> {
        for (topic, _) in through.response.partitions() {
            let TopicRef::Name(name) = topic else { continue };
            let is_created_anew = {
                let truth = self.truth.read().await;
                let mut known = truth.topics_of(topic).peekable();
                known.peek().is_some() && known.all(|topic| topic.deleted_at.is_some())
            };
            if !is_created_anew {
                continue;
            }
            let described = self.broker.describe(name.as_str()).await?;
            let mut truth = self.truth.write().await;
            let is_known = truth.topics.iter().any(|topic| topic.id == described.topic_id);
            if described.error_code == 0 && !is_known {
                learn(&mut self.broker, &mut truth, name.as_str(), PARTITIONS).await?;
            }
        }
        Ok(())
    }
}

/// What was true longer ago than the bounds must have shown.
pub(crate) fn trial<'t>(truth: &'t Truth, case: &'t Case, through: &Answered, later: &Answered) -> Trial<'t> {
    let before = |bound| through.sent_at.checked_sub(bound).unwrap_or(through.sent_at);
    Trial {
        truth,
        case,
        since: before(BOUND),
        clean_since: before(COMPACTED_BOUND),
        until: later.came_at,
        is_through_the_cache: true,
    }
}

fn is_behind(log: &Log, data: &PartitionData) -> bool {
    let Some(mark) = log.newest_mark() else {
        return true;
    };
    let records = data
        .records
        .as_ref()
        .map(RecordBytes::to_bytes)
        .unwrap_or_default();
    let mut batches = Batches::new(&records);
    let is_unknown = batches.any(|entry| match entry {
        Ok(BatchEntry::Batch(batch)) => {
            let versions = log.batches.get(&batch.base_offset());
            versions.is_none_or(|versions| versions.iter().all(|version| version.bytes != batch.as_bytes()))
        }
        _ => false,
    });
    is_unknown
        || data.high_watermark > mark.high_watermark
        || data.last_stable_offset > mark.last_stable_offset
        || data.log_start_offset > mark.log_start_offset
        || !batches.rest().is_empty()
}

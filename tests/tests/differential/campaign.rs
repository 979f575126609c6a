//! Sends requests to the broker and to the proxy and has both judged.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result};
use fastrand::Rng;
use kachet_core::wire::{FetchRequest, TopicId};
use tokio::task::JoinSet;

use crate::connection::{Answered, Connection};
use crate::faults::Injector;
use crate::judge::{Finding, Trial, asked_by, brief};
use crate::requests::{Case, Maker, dice};
use crate::sessions::{ONE_EPISODE_IN, episode};
use crate::truth::Truth;

/// A campaign ends after so many findings: the first ones tell.
const FINDINGS_LIMIT: usize = 10;

/// A proxy under test, and how what it has cached is dropped.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) cool: Arc<dyn Fn(&mut Rng) + Send + Sync>,
}

/// What a campaign does.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Numbers of requests: from the first up to before the second.
    pub(crate) numbers: (u64, u64),
    /// One worker each.
    pub(crate) targets: Vec<Target>,
    /// What spoils the proxy's answers.
    pub(crate) injector: Option<Injector>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    /// In the order in which they were found; what and by which rule.
    pub(crate) findings: Vec<(&'static str, String)>,
}

/// What came of one number.
pub(crate) struct Verdict {
    seed: u64,
    number: u64,
    requests: u64,
    findings: Vec<(&'static str, String)>,
}

impl Outcome {
    pub(crate) fn add(&mut self, verdict: Verdict) {
        self.requests += verdict.requests;
        self.findings.extend(verdict.findings);
    }

    pub(crate) fn add_all(&mut self, other: Self) {
        self.requests += other.requests;
        self.findings.extend(other.findings);
    }
}

impl Verdict {
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        Self {
            seed,
            number,
            requests: 0,
            findings: Vec::new(),
        }
    }

    /// There was no answer to judge.
    pub(crate) fn fail(&mut self, error: &anyhow::Error) {
        let text = format!("request {} of seed {}: {error:#}", self.number, self.seed);
        self.findings.push(("no answer", text));
    }

    pub(crate) fn one_more(&mut self) {
        self.requests += 1;
    }

    pub(crate) fn note(&mut self, case: &Case, findings: &[Finding], through: &Answered, where_: &str) {
        let Some(first) = findings.first() else { return };
        let mut text = format!(
            "request {} of seed {} ({where_}), Fetch v{}; again by `cargo xtask differential --seed {} --requests {}`\n",
            self.number,
            self.seed,
            case.version,
            self.seed,
            self.number + 1
        );
        for each in findings {
            let _ = writeln!(text, "  {each}");
        }
        let _ = writeln!(text, "  asked: {}", in_short(&case.request));
        for (topic, data) in through.response.partitions() {
            let _ = writeln!(text, "  told: {topic}/{}: {}", data.partition_index, brief(data));
        }
        self.findings.push((first.rule, text));
    }
}

/// The ways of one worker: to the broker, and to the proxy.
pub(crate) struct Lanes<'a> {
    truth: &'a Truth,
    direct: Connection,
    through: Connection,
    injector: Option<Injector>,
}

impl Lanes<'_> {
    pub(crate) async fn direct(&mut self, case: &Case) -> Result<Answered> {
        self.direct
            .fetch(case.version, &case.request)
            .await
            .context("from the broker")
    }

    pub(crate) async fn through(&mut self, case: &Case) -> Result<Answered> {
        let answered = self.through.fetch(case.version, &case.request).await;
        let mut answered = answered.context("from the proxy, where the broker has answered")?;
        if let Some(injector) = &mut self.injector {
            injector.spoil(case, &mut answered);
        }
        Ok(answered)
    }

    /// In topics that are settled everything is as it was long before the request was sent.
    pub(crate) fn trial<'t>(&'t self, case: &'t Case, through: &Answered) -> Trial<'t> {
        Trial {
            truth: self.truth,
            case,
            since: through.sent_at,
            clean_since: through.sent_at,
            until: through.came_at,
            is_through_the_cache: true,
        }
    }
}

/// Judges so many requests over topics that are settled.
pub(crate) async fn over_settled(
    broker: &str,
    truth: &Arc<Truth>,
    buried: &Arc<Vec<TopicId>>,
    plan: &Plan,
) -> Result<Outcome> {
    let next = Arc::new(AtomicU64::new(plan.numbers.0));
    let enough = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for target in plan.targets.clone() {
        let (next, enough, broker) = (Arc::clone(&next), Arc::clone(&enough), broker.to_owned());
        let (truth, buried, plan) = (Arc::clone(truth), Arc::clone(buried), plan.clone());
        workers.spawn(async move {
            let mut lanes = Lanes {
                truth: &truth,
                direct: Connection::to(&broker),
                through: Connection::to(&target.address),
                injector: plan.injector.clone(),
            };
            let mut outcome = Outcome::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= plan.numbers.1 || enough.load(Ordering::Relaxed) {
                    return Ok::<_, anyhow::Error>(outcome);
                }
                let mut maker = Maker {
                    rng: dice(plan.seed, number),
                    truth: &truth,
                    buried: &buried,
                };
                let verdict = one(&mut maker, &mut lanes, &target, plan.seed, number).await;
                outcome.add(verdict);
                if outcome.findings.len() >= FINDINGS_LIMIT {
                    enough.store(true, Ordering::Relaxed);
                }
            }
        });
    }
    let mut all = Outcome::default();
    while let Some(outcome) = workers.join_next().await {
        all.add_all(outcome??);
    }
    Ok(all)
}

/// One number: a request, or all of a session's.
async fn one(
    maker: &mut Maker<'_>,
    lanes: &mut Lanes<'_>,
    target: &Target,
    seed: u64,
    number: u64,
) -> Verdict {
    let mut verdict = Verdict {
        seed,
        number,
        requests: 0,
        findings: Vec::new(),
    };
    if maker.rng.u32(0..30) == 0 {
        (target.cool)(&mut maker.rng);
    }
    let done = if maker.rng.u32(0..ONE_EPISODE_IN) == 0 {
        episode(maker, lanes, &mut verdict).await
    } else {
        alone(maker, lanes, &mut verdict).await
    };
    if let Err(error) = done {
        verdict
            .findings
            .push(("no answer", format!("request {number} of seed {seed}: {error:#}")));
    }
    verdict
}

async fn alone(maker: &mut Maker<'_>, lanes: &mut Lanes<'_>, verdict: &mut Verdict) -> Result<()> {
    let case = maker.case();
    let direct = lanes.direct(&case).await?;
    // Again, for the second time is warm.
    for temperature in ["first", "again"] {
        let through = lanes.through(&case).await?;
        verdict.one_more();
        let trial = lanes.trial(&case, &through);
        let asked = asked_by(&case);
        let mut findings = trial.whole(&asked, &through.response);
        findings.extend(trial.beside(&through, &[&direct]));
        if trial.waiting(&through, &direct).is_some() {
            findings.extend(early_again(lanes, &case).await?);
        }
        let trial = Trial {
            is_through_the_cache: false,
            ..lanes.trial(&case, &through)
        };
        let mut own = trial.whole(&asked, &direct.response);
        for each in &mut own {
            each.what.insert_str(0, "of the broker itself: ");
        }
        findings.extend(own);
        verdict.note(&case, &findings, &through, temperature);
        if !findings.is_empty() || case.request.max_wait_ms > 5 {
            break;
        }
    }
    Ok(())
}

/// A request without what is as ever.
fn in_short(request: &FetchRequest) -> String {
    let mut text = format!(
        "wait {} ms, min {}, max {}, isolation {}, session {} {}",
        request.max_wait_ms,
        request.min_bytes,
        request.max_bytes,
        request.isolation_level,
        request.session_id,
        request.session_epoch
    );
    for (topic, asked) in request.partitions() {
        let _ = write!(
            text,
            "; {topic}/{}@{} max {}",
            asked.partition, asked.fetch_offset, asked.partition_max_bytes
        );
        if (asked.current_leader_epoch, asked.last_fetched_epoch) != (-1, -1) {
            let _ = write!(
                text,
                " epochs {} {}",
                asked.current_leader_epoch, asked.last_fetched_epoch
            );
        }
    }
    for forgotten in &request.forgotten_topics {
        let _ = write!(text, "; forgets {}/{:?}", forgotten.topic, forgotten.partitions);
    }
    text
}

/// On a busy machine the broker may take as long as a wait for what it does not wait for, and the proxy gives the answer to
/// somebody else who has been waiting for the same (H25). What happens each time is none of these.
async fn early_again(lanes: &mut Lanes<'_>, case: &Case) -> Result<Option<Finding>> {
    let mut early = None;
    for _ in 0..4 {
        let direct = lanes.direct(case).await?;
        let through = lanes.through(case).await?;
        early = lanes.trial(case, &through).waiting(&through, &direct);
        if early.is_none() {
            break;
        }
    }
    Ok(early)
}

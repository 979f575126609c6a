//! Fetch sessions that go on while topics are written, cut, compacted, deleted and created anew (H15): what an incremental
//! answer tells, and what it leaves out, beside what the broker says without a session before and after.

use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use kachet_core::wire::{FetchRequest, FetchResponse, ForgottenTopic, TaggedFields};

use crate::campaign::Verdict;
use crate::changes::{Reader, buried, trial};
use crate::connection::Answered;
use crate::contents::end_of;
use crate::faults::Injector;
use crate::judge::{Finding, Trial, asked_by, data_of, finding};
use crate::requests::{Case, Maker};
use crate::sessions::{Session, change, first_case, in_full, limits, one};
use crate::truth::Topic;

/// Long enough for several changes, and for the bounds to pass.
const STEPS: u32 = 40;
/// Between two steps, at most.
const PAUSE_MS: u64 = 50;

/// So often in a row a client takes one batch and asks for nothing else, so that of everything else only the watermarks
/// are news, for longer than the bounds.
const SLOW_STEPS: u32 = 6;
const SLOW_PAUSE_MS: u64 = 150;

/// What has been met in sessions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sessions: u64,
    /// Partitions that were told with an error, as those of deleted topics are.
    pub(crate) errors: u64,
    /// Partitions that were told without records, because of a new watermark or log start.
    pub(crate) moved: u64,
    /// Partitions that were left out.
    pub(crate) left_out: u64,
    /// Partitions that were forgotten.
    pub(crate) forgotten: u64,
}

/// Goes through a session's life, and judges every answer of it.
pub(crate) async fn session(
    mut rng: Rng,
    worker: &mut Reader,
    mut injector: Option<&mut Injector>,
    verdict: &mut Verdict,
    seen: &mut Seen,
) -> Result<()> {
    let mut session = Session::default();
    let mut last: Option<(Case, FetchResponse)> = None;
    let mut slow_steps = 0;
    for epoch in 0..=rng.i32(4..i32::try_from(STEPS)?) {
        let known = worker.truth.read().await.clone();
        let mut maker = Maker {
            rng: rng.fork(),
            truth: &known,
            buried: &buried(&known),
        };
        let case = match &last {
            None => first_case(&mut maker),
            Some((before, _)) if slow_steps > 0 => Some(slow_case(before)),
            Some((before, told)) => Some(next_case(&mut maker, before, &session, told)),
        };
        let Some(mut case) = case else { return Ok(()) };
        (case.request.session_id, case.request.session_epoch) = (session.id, epoch);
        session.update(&case.request);
        seen.forgotten += case
            .request
            .forgotten_topics
            .iter()
            .map(|topic| topic.partitions.len() as u64)
            .sum::<u64>();
        let earlier = direct(worker, &case, &session).await?;
        let mut through = worker
            .through
            .fetch(case.version, &case.request)
            .await
            .context("from the proxy")?;
        let later = direct(worker, &case, &session).await?;
        if let Some(injector) = &mut injector {
            injector.spoil(&case, &mut through);
        }
        verdict.one_more();
        worker.catch_up(&through).await?;
        let truth = worker.truth.read().await;
        let trial = trial(&truth, &case, &through, &later);
        let mut findings = trial.beside(&through, &[&earlier, &later]);
        if epoch == 0 {
            session.id = through.response.session_id;
            findings.extend(trial.whole(&asked_by(&case), &through.response));
            session.begin(&through.response);
        } else {
            findings.extend(wrong_id(&session, &through.response));
            findings.extend(left_out(&trial, &session, &through, [&earlier, &later]));
            findings.extend(session.incremental(&trial, &through.response));
            count(seen, &session, &through.response);
        }
        let place = format!(
            "epoch {epoch} of a session of {} while the topics change",
            session.partitions.len()
        );
        verdict.note(&case, &findings, &through, &place);
        drop(truth);
        if !findings.is_empty() || session.partitions.is_empty() || session.id == 0 {
            break;
        }
        last = Some((case, through.response));
        slow_steps = match slow_steps {
            0 if rng.u32(0..10) == 0 => SLOW_STEPS,
            steps => u32::saturating_sub(steps, 1),
        };
        let pause_ms = if slow_steps > 0 {
            SLOW_PAUSE_MS
        } else {
            rng.u64(0..PAUSE_MS)
        };
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    Ok(())
}

/// All that is in the session, from the broker and without one.
async fn direct(worker: &mut Reader, case: &Case, session: &Session) -> Result<Answered> {
    let whole = in_full(session);
    let is_over = session.partitions.is_empty();
    let request = FetchRequest {
        max_wait_ms: 0,
        // With the session over, the request stands for itself.
        topics: if is_over {
            case.request.topics.clone()
        } else {
            whole.topics
        },
        forgotten_topics: Vec::new(),
        session_id: 0,
        session_epoch: -1,
        ..case.request.clone()
    };
    worker
        .direct
        .fetch(case.version, &request)
        .await
        .context("from the broker")
}

/// What a client says next: it goes on behind what it was given, or at the end, and looks elsewhere now and then; what is
/// gone it forgets after a while.
fn next_case(maker: &mut Maker<'_>, before: &Case, session: &Session, told: &FetchResponse) -> Case {
    let version = before.version;
    // A client reads what is committed, or it does not; only so is anything in the way of it for long.
    let mut request = FetchRequest {
        isolation_level: before.request.isolation_level,
        ..limits(maker, version)
    };
    for (topic, asked, _) in &session.partitions {
        let Some(data) = data_of(told, topic, asked.partition) else {
            continue;
        };
        let mut asked = asked.clone();
        if data.error_code != 0 {
            if maker.rng.u32(0..3) == 0 {
                request.forgotten_topics.push(ForgottenTopic {
                    topic: topic.clone(),
                    partitions: vec![asked.partition],
                    unknown_tags: TaggedFields::default(),
                });
            }
        } else if let Some(end) = end_of(data) {
            asked.fetch_offset = match maker.rng.u32(0..4) {
                0 => data.high_watermark,
                _ => end,
            };
            // What was known of the batch before is not known of the next one.
            (asked.current_leader_epoch, asked.last_fetched_epoch) = (-1, -1);
            request.topics.push(one(topic.clone(), asked));
        }
    }
    for _ in 0..maker.rng.usize(0..3) {
        let elsewhere = change(maker, version, session);
        request.topics.push(elsewhere);
    }
    if maker.rng.u32(0..8) == 0 {
        request.forgotten_topics = maker.forgotten(&in_full(session));
    }
    Case { version, request }
}

/// One batch of what is in the session.
fn slow_case(before: &Case) -> Case {
    let request = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 1,
        topics: Vec::new(),
        forgotten_topics: Vec::new(),
        ..before.request.clone()
    };
    Case {
        version: before.version,
        request,
    }
}

fn wrong_id(session: &Session, response: &FetchResponse) -> Option<Finding> {
    let due = if session.partitions.is_empty() {
        0
    } else {
        session.id
    };
    let is_well = response.error_code != 0 || response.session_id == due;
    (!is_well).then(|| {
        finding(
            "sessions (H15)",
            format!("session id {} in place of {due}", response.session_id),
        )
    })
}

/// What is left out is as it was told last: the broker has no error for it, and its watermarks have not moved for longer than
/// the bound.
fn left_out(
    trial: &Trial<'_>,
    session: &Session,
    through: &Answered,
    direct: [&Answered; 2],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if through.response.error_code != 0 {
        return findings;
    }
    for (topic, asked, told) in &session.partitions {
        let index = asked.partition;
        if data_of(&through.response, topic, index).is_some() || trial.is_in_motion(topic) {
            continue;
        }
        let codes =
            direct.map(|each| data_of(&each.response, topic, index).map_or(0, |data| data.error_code));
        let mut found =
            |what: String| findings.push(finding("sessions (H15)", format!("{topic}/{index}: {what}")));
        if codes[0] != 0 && codes[0] == codes[1] {
            found(format!("left out though the broker says error {}", codes[0]));
        }
        let living = |topic: &&Topic| topic.deleted_at.is_none();
        let log = trial
            .truth
            .topics_of(topic)
            .find(living)
            .and_then(|topic| trial.truth.log(topic, index));
        let Some((told, log)) = told.zip(log) else {
            continue;
        };
        if let Some(mark) = log.mark_at(trial.since)
            && (told.0 < mark.high_watermark || told.1 < mark.log_start_offset)
        {
            found(format!(
                "left out though the high watermark is {} and the log start {}, and {told:?} were told",
                mark.high_watermark, mark.log_start_offset
            ));
        }
        if log.newest_mark().is_some_and(|mark| told.0 > mark.high_watermark) {
            found(format!(
                "left out though it never had the high watermark {} that was told",
                told.0
            ));
        }
    }
    findings
}

fn count(seen: &mut Seen, session: &Session, response: &FetchResponse) {
    let mut told = 0;
    for (_, data) in response.partitions() {
        told += 1;
        if data.error_code != 0 {
            seen.errors += 1;
        } else if data.records_size_bytes() == 0 {
            seen.moved += 1;
        }
    }
    seen.left_out += (session.partitions.len() as u64).saturating_sub(told);
}

//! Fetch sessions (H15): the same steps towards the broker and towards the proxy, each with its own session, and what
//! each may leave out by what it has told before.

use anyhow::Result;
use kachet_core::wire::{
    FETCH_VERSION_TOPIC_IDS, FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
    TaggedFields, TopicRef,
};

use crate::campaign::{Lanes, Verdict};
use crate::connection::Answered;
use crate::judge::{AskedList, Finding, Trial, asked_by, data_of, finding};
use crate::requests::{Case, Maker, name_of};

/// A high watermark and a log start.
type Told = (i64, i64);

/// A session as its client sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    pub(crate) id: i32,
    /// What is in it; with each the watermark and the log start that were told last.
    pub(crate) partitions: Vec<(TopicRef, FetchPartition, Option<Told>)>,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    GoOn,
    WrongEpoch,
    WrongId,
    NoId,
    OtherNaming,
    ForgetAll,
    BeginAnew,
    Close,
}

impl Session {
    /// As a broker does: what is named is added or changed, then what is to be forgotten is forgotten.
    pub(crate) fn update(&mut self, request: &FetchRequest) {
        for (topic, asked) in request.partitions() {
            let known = self
                .partitions
                .iter_mut()
                .find(|(of, known, _)| of == topic && known.partition == asked.partition);
            match known {
                Some((_, known, _)) => *known = asked.clone(),
                None => self.partitions.push((topic.clone(), asked.clone(), None)),
            }
        }
        for forgotten in &request.forgotten_topics {
            let is_forgotten = |topic: &TopicRef, asked: &FetchPartition| {
                *topic == forgotten.topic && forgotten.partitions.contains(&asked.partition)
            };
            self.partitions
                .retain(|(topic, asked, _)| !is_forgotten(topic, asked));
        }
    }

    pub(crate) fn asked(&self) -> AskedList {
        self.partitions
            .iter()
            .map(|(topic, asked, _)| (topic.clone(), asked.clone()))
            .collect()
    }

    /// Judges an answer that may leave out what is no news, and takes note of what it tells.
    pub(crate) fn incremental(&mut self, trial: &Trial<'_>, response: &FetchResponse) -> Vec<Finding> {
        if self.partitions.is_empty() {
            // The session is over, and the request stands for itself.
            return trial.whole(&asked_by(trial.case), response);
        }
        let asked = self.asked();
        let mut findings = trial.mentions(&asked, response, false);
        let in_order: Vec<_> = response
            .partitions()
            .filter_map(|(topic, data)| {
                let (of, asked) = asked
                    .iter()
                    .find(|(of, asked)| of == topic && asked.partition == data.partition_index)?;
                Some((of, asked, data))
            })
            .collect();
        // Empty ones in between may have come before others in the session's order, so only what is given counts.
        let given: Vec<_> = in_order
            .iter()
            .copied()
            .filter(|(_, _, data)| data.records_size_bytes() > 0)
            .collect();
        findings.extend(trial.limits(&given));
        let total: usize = given.iter().map(|(_, _, data)| data.records_size_bytes()).sum();
        let left = usize::try_from(trial.case.request.max_bytes)
            .unwrap_or(0)
            .saturating_sub(total);
        // As in an answer that is whole, room may have been spent on what did not fit (H12).
        let none = PartitionData::error(0, 0);
        let is_room_spent = trial.is_through_the_cache
            && asked.iter().any(|(topic, asked)| {
                let data = data_of(response, topic, asked.partition).unwrap_or(&none);
                let given = data.records_size_bytes();
                let limit = usize::try_from(asked.partition_max_bytes).unwrap_or(0);
                trial.has_more(topic, asked, data, limit.saturating_sub(given).min(left))
            });
        for (topic, asked, told) in &mut self.partitions {
            let data = data_of(response, topic, asked.partition);
            let what = match data {
                Some(data) => said_twice(data, *told).then(|| "told though nothing is new".to_owned()),
                None if told.is_none() => Some("left out though nothing of it was told yet".to_owned()),
                None => trial.visible(topic, asked).and_then(|first| {
                    let limit = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(left);
                    let fits = total == 0 || (first <= limit && !is_room_spent);
                    fits.then(|| format!("left out though {first} bytes fit into {limit}"))
                }),
            };
            findings.extend(
                what.map(|what| finding("sessions (H15)", format!("{topic}/{}: {what}", asked.partition))),
            );
            if let Some(data) = data {
                *told = told_by(data);
            }
        }
        findings
    }

    /// Takes note of what the first answer tells.
    pub(crate) fn begin(&mut self, response: &FetchResponse) {
        for (topic, asked, told) in &mut self.partitions {
            *told = data_of(response, topic, asked.partition).and_then(told_by);
        }
    }
}

fn told_by(data: &PartitionData) -> Option<Told> {
    (data.error_code == 0).then_some((data.high_watermark, data.log_start_offset))
}

fn said_twice(data: &PartitionData, told: Option<Told>) -> bool {
    data.error_code == 0
        && data.diverging_epoch.is_none()
        && data.records_size_bytes() == 0
        && told == Some((data.high_watermark, data.log_start_offset))
}

/// Goes through a session's life, and gives what was wrong with it.
pub(crate) async fn episode(
    maker: &mut Maker<'_>,
    lanes: &mut Lanes<'_>,
    verdict: &mut Verdict,
) -> Result<()> {
    let Some(mut case) = first_case(maker) else {
        return Ok(());
    };
    let (mut here, mut there) = (Session::default(), Session::default());
    let mut epoch = 0;
    let mut step = Step::BeginAnew;
    for _ in 0..maker.rng.u32(2..14) {
        let (through, direct) = ask(lanes, &case, (&here, &there), step, epoch).await?;
        let trial = lanes.trial(&case, &through);
        verdict.one_more();
        let mut findings = trial.beside(&through, &[&direct]);
        let codes = (through.response.error_code, direct.response.error_code);
        let judged = match (step, codes.0) {
            (_, code) if code != 0 => Vec::new(),
            (Step::BeginAnew, _) => {
                for (session, answered) in [(&mut here, &through), (&mut there, &direct)] {
                    *session = Session {
                        id: answered.response.session_id,
                        partitions: Vec::new(),
                    };
                    session.update(&case.request);
                }
                epoch = 1;
                begun(&trial, (&mut here, &through), (&mut there, &direct))
            }
            (Step::Close, _) => trial.whole(&asked_by(&case), &through.response),
            _ => {
                epoch += 1;
                let mut judged = Vec::new();
                let own = Trial {
                    is_through_the_cache: false,
                    ..lanes.trial(&case, &through)
                };
                let sides = [
                    (&mut here, &through, &trial, ""),
                    (&mut there, &direct, &own, "of the broker itself: "),
                ];
                for (session, answered, trial, who) in sides {
                    session.update(&case.request);
                    let of_one = session.incremental(trial, &answered.response);
                    judged.extend(
                        of_one
                            .into_iter()
                            .map(|each| finding(each.rule, format!("{who}{}", each.what))),
                    );
                }
                judged.extend(ids(&through, &direct, here.id));
                judged
            }
        };
        findings.extend(judged);
        verdict.note(
            &case,
            &findings,
            &through,
            &format!(
                "{step:?} in a session of {} at epoch {epoch}",
                here.partitions.len()
            ),
        );
        let is_over =
            matches!(step, Step::ForgetAll | Step::Close) || codes == (70, 70) && step == Step::GoOn;
        if !findings.is_empty() || (is_over && step != Step::ForgetAll && maker.rng.bool()) {
            break;
        }
        (step, case) = next_step(maker, &case, &here);
    }
    // So that the broker's room for sessions does not run out.
    case.request.topics.clear();
    case.request.forgotten_topics.clear();
    ask(lanes, &case, (&here, &there), Step::Close, epoch)
        .await
        .map(drop)
}

/// One that every broker answers with a session: of something, and with limits that exist.
pub(crate) fn first_case(maker: &mut Maker<'_>) -> Option<Case> {
    let case = (0..50).map(|_| maker.case()).find(|case| {
        let request = &case.request;
        let zero = |topic: &FetchTopic| matches!(topic.topic, TopicRef::Id(id) if id.is_zero());
        let odd = request
            .partitions()
            .any(|(_, asked)| asked.partition_max_bytes < 0);
        case.version >= 7
            && request.max_bytes >= 0
            && request.min_bytes >= 0
            && !odd
            && !request.topics.iter().any(zero)
    });
    case.map(|mut case| {
        case.request.forgotten_topics.clear();
        case.request.max_wait_ms = case.request.max_wait_ms.clamp(0, 5);
        case
    })
}

/// Sends a step to both, to each with its own id.
async fn ask(
    lanes: &mut Lanes<'_>,
    case: &Case,
    (here, there): (&Session, &Session),
    step: Step,
    epoch: i32,
) -> Result<(Answered, Answered)> {
    let with = |session: &Session| {
        let (id, epoch) = match step {
            Step::BeginAnew => (session.id, 0),
            Step::Close => (session.id, -1),
            Step::WrongEpoch => (session.id, epoch + 1),
            Step::WrongId => (session.id ^ 0x1000, epoch),
            Step::NoId => (0, epoch),
            Step::GoOn | Step::ForgetAll | Step::OtherNaming => (session.id, epoch),
        };
        let mut case = case.clone();
        (case.request.session_id, case.request.session_epoch) = (id, epoch);
        case
    };
    let direct = lanes.direct(&with(there)).await?;
    let through = lanes.through(&with(here)).await?;
    Ok((through, direct))
}

/// Judges the first answer of a session, which is whole.
fn begun(
    trial: &Trial<'_>,
    (here, through): (&mut Session, &Answered),
    (there, direct): (&mut Session, &Answered),
) -> Vec<Finding> {
    let asked = asked_by(trial.case);
    let mut findings = trial.whole(&asked, &through.response);
    if here.id == 0 && there.id != 0 && !here.partitions.is_empty() {
        findings.push(finding(
            "sessions (H15)",
            "no session, though the broker gives one".to_owned(),
        ));
    }
    for (session, answered) in [(here, through), (there, direct)] {
        session.begin(&answered.response);
    }
    findings
}

/// An answer of a session carries its id, and 0 once the session is over.
fn ids(through: &Answered, direct: &Answered, id: i32) -> Option<Finding> {
    let (told, theirs) = (through.response.session_id, direct.response.session_id);
    let is_well = if theirs == 0 { told == 0 } else { told == id };
    (!is_well).then(|| {
        finding(
            "sessions (H15)",
            format!("session id {told}, it is {id}, and the broker says {theirs}"),
        )
    })
}

fn next_step(maker: &mut Maker<'_>, before: &Case, session: &Session) -> (Step, Case) {
    let step = match maker.rng.u32(0..24) {
        0 => Step::WrongEpoch,
        1 => Step::WrongId,
        2 => Step::NoId,
        3 => Step::OtherNaming,
        4 => Step::ForgetAll,
        5 => Step::BeginAnew,
        6 => Step::Close,
        _ => Step::GoOn,
    };
    let mut version = before.version;
    if step == Step::OtherNaming {
        version = if version >= FETCH_VERSION_TOPIC_IDS {
            12
        } else {
            14
        };
    }
    if step == Step::BeginAnew {
        let case = first_case(maker).unwrap_or_else(|| before.clone());
        return (step, case);
    }
    let mut request = limits(maker, version);
    let changes = if step == Step::Close {
        1
    } else {
        maker.rng.usize(0..4)
    };
    for _ in 0..changes {
        request.topics.push(change(maker, version, session));
    }
    if step == Step::ForgetAll {
        request.topics.clear();
        request.forgotten_topics = session
            .partitions
            .iter()
            .map(|(topic, asked, _)| kachet_core::wire::ForgottenTopic {
                topic: topic.clone(),
                partitions: vec![asked.partition],
                unknown_tags: TaggedFields::default(),
            })
            .collect();
    } else if matches!(step, Step::GoOn) && maker.rng.u32(0..4) == 0 {
        request.forgotten_topics = maker.forgotten(&in_full(session));
    }
    (step, Case { version, request })
}

/// Those that exist, and short waits.
pub(crate) fn limits(maker: &mut Maker<'_>, version: i16) -> FetchRequest {
    let mut request = maker.limits(version);
    request.max_wait_ms = request.max_wait_ms.clamp(0, 5);
    request.min_bytes = request.min_bytes.max(0);
    request.max_bytes = request.max_bytes.max(0);
    request
}

/// A request that names all that is in a session.
pub(crate) fn in_full(session: &Session) -> FetchRequest {
    let partitions = session.partitions.iter();
    FetchRequest {
        topics: partitions
            .map(|(topic, asked, _)| one(topic.clone(), asked.clone()))
            .collect(),
        ..FetchRequest::default()
    }
}

/// Another offset of a partition of the session, or one more partition.
pub(crate) fn change(maker: &mut Maker<'_>, version: i16, session: &Session) -> FetchTopic {
    let by_id = version >= FETCH_VERSION_TOPIC_IDS;
    let living: Vec<_> = maker
        .truth
        .topics
        .iter()
        .filter(|topic| topic.deleted_at.is_none())
        .collect();
    let topic = living[maker.rng.usize(0..living.len())];
    let known = session
        .partitions
        .iter()
        .map(|(topic, asked, _)| (topic, asked.partition));
    let of_topic: Vec<i32> = known
        .filter(|(of, index)| **of == name_of(topic) || (**of == TopicRef::Id(topic.id) && *index >= 0))
        .map(|(_, index)| index)
        .collect();
    let index = match of_topic.as_slice() {
        [] => maker.rng.i32(0..topic.partitions),
        some => some[maker.rng.usize(0..some.len())],
    };
    let mut asked = maker.partition(version, topic, index);
    asked.partition_max_bytes = asked.partition_max_bytes.max(0);
    let name = if by_id {
        TopicRef::Id(topic.id)
    } else {
        name_of(topic)
    };
    one(name, asked)
}

pub(crate) fn one(topic: TopicRef, asked: FetchPartition) -> FetchTopic {
    FetchTopic {
        topic,
        partitions: vec![asked],
        unknown_tags: TaggedFields::default(),
    }
}

/// How often a request begins a session instead of standing for itself: one in so many.
pub(crate) const ONE_EPISODE_IN: u32 = 12;

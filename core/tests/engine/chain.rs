//! Logs from which answers are cut: for each partition three that contradict each other.

use std::sync::LazyLock;

use bytes::Bytes;
use kachet_core::wire::{AbortedTransaction, TaggedFields};

use crate::batches::{Shape, make};

/// What a partition's offsets are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terrain {
    /// From 0 on, with a gap here and there.
    Dense,
    /// Up to the last offset that there can be.
    AtTheEnd,
    /// With gaps that 32 bits cannot span.
    Sparse,
}

pub(crate) const PARTITIONS: i32 = 4;
pub(crate) const VERSIONS: usize = 3;
pub(crate) const LINKS: usize = 40;

pub(crate) fn terrain(partition: i32) -> Terrain {
    match partition {
        0 | 1 => Terrain::Dense,
        2 => Terrain::AtTheEnd,
        _ => Terrain::Sparse,
    }
}

/// A batch of a log.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) base: i64,
    pub(crate) last: i64,
    pub(crate) epoch: i32,
    pub(crate) is_transactional: bool,
    pub(crate) bytes: Bytes,
}

/// An aborted transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abort {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    pub(crate) marker_offset: i64,
}

/// A log.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) links: Vec<Link>,
    aborts: Vec<Abort>,
}

impl Chain {
    /// What a broker's transaction index gives for the offsets from `from` to `to`, in the order of the markers (H2).
    pub(crate) fn aborted(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        let touching = self
            .aborts
            .iter()
            .filter(|abort| abort.marker_offset >= from && abort.first_offset <= to);
        touching
            .map(|abort| AbortedTransaction {
                producer_id: abort.producer_id,
                first_offset: abort.first_offset,
                unknown_tags: TaggedFields::default(),
            })
            .collect()
    }

    /// The offset behind the log, if there is one.
    pub(crate) fn end(&self) -> i64 {
        self.links.last().map_or(0, |link| link.last.saturating_add(1))
    }
}

static CHAINS: LazyLock<Vec<[Chain; VERSIONS]>> = LazyLock::new(|| {
    (0..PARTITIONS)
        .map(|partition| [0, 1, 2].map(|version| build(partition, version)))
        .collect()
});

pub(crate) fn chain(partition: i32, version: usize) -> &'static Chain {
    &CHAINS[usize::try_from(partition).unwrap()][version]
}

/// The second version is the first as a cleaner would leave it, but for the epochs: other bytes, and every seventh batch gone.
/// The third has other borders and newer epochs.
fn build(partition: i32, version: usize) -> Chain {
    let borders = if version == 2 { 100 } else { 0 };
    let mut random = fastrand::Rng::with_seed(u64::try_from(partition).unwrap() + borders);
    let mut chain = Chain {
        links: Vec::new(),
        aborts: Vec::new(),
    };
    let spans = spans(partition, &mut random);
    let mut open: Option<Abort> = None;
    for (number, (base, last)) in spans.into_iter().enumerate() {
        let payload_bytes = payload_bytes(&mut random);
        let is_control = open.is_some() && number % 4 == 3;
        let producer_id = 1_000 + i64::try_from(number / 8).unwrap();
        if let Some(abort) = open.filter(|_| is_control) {
            chain.aborts.push(Abort {
                marker_offset: base,
                ..abort
            });
        }
        if number % 8 == 1 {
            open = Some(Abort {
                producer_id,
                first_offset: base,
                marker_offset: 0,
            });
        } else if is_control {
            open = None;
        }
        let is_transactional = is_control || open.is_some();
        let epoch = i32::try_from(number / 8).unwrap() + if version == 2 { 2 } else { 0 };
        let bytes = make(Shape {
            epoch,
            is_transactional,
            is_control,
            producer_id,
            payload_bytes,
            fill: version as u64,
            ..Shape::new(base, if is_control { base } else { last })
        });
        let is_cleaned = version == 1 && number % 7 == 6 && !is_control;
        if !is_cleaned {
            chain.links.push(Link {
                base,
                last: if is_control { base } else { last },
                epoch,
                is_transactional,
                bytes,
            });
        }
    }
    chain
}

/// From a header alone to what is larger than any segment and, rarely, than a small cache.
fn payload_bytes(random: &mut fastrand::Rng) -> usize {
    match random.u32(..40) {
        0 => 40_000,
        1..4 => random.usize(2_000..6_000),
        _ => random.usize(..300),
    }
}

fn spans(partition: i32, random: &mut fastrand::Rng) -> Vec<(i64, i64)> {
    let mut spans = Vec::new();
    let mut next = 0;
    for number in 0..LINKS {
        let gap = match (terrain(partition), number % 5) {
            (Terrain::Sparse, 4) => random.i64(1 << 30..1 << 35),
            (_, 2) => random.i64(0..8),
            _ => 0,
        };
        let base = next + gap;
        let last = base + random.i64(0..8);
        spans.push((base, last));
        next = last + 1;
    }
    if terrain(partition) == Terrain::AtTheEnd {
        // The last batch ends at the last offset that there is, where no watermark lies beyond it.
        let shift = i64::MAX - spans.last().unwrap().1;
        for (base, last) in &mut spans {
            (*base, *last) = (*base + shift, *last + shift);
        }
    }
    spans
}

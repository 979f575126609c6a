//! Whether the answers to a fetch are what the model allows.

use bytes::Bytes;
use kachet_core::time::Instant;
use kachet_core::wire::PartitionData;

use crate::chain::chain;
use crate::model::{Fact, Partition, State};
use crate::naive::{Ask, BOUND_MS, COMPACTED_BOUND_MS, Rules};

/// The circumstances of a fetch.
pub(crate) struct Answers<'a> {
    pub(crate) model: &'a [Partition],
    pub(crate) rules: Rules,
    pub(crate) now: Instant,
    pub(crate) is_committed: bool,
    pub(crate) max_bytes: i32,
}

impl Answers<'_> {
    pub(crate) fn judge(&self, asks: &[Ask], hits: &[PartitionData]) {
        let mut given_bytes = 0;
        let mut hits = hits.iter().peekable();
        for ask in asks {
            let hit = hits.next_if(|hit| hit.partition_index == ask.partition);
            let model = &self.model[usize::try_from(ask.partition).unwrap()];
            let max_bytes = usize::try_from(self.max_bytes).unwrap();
            let limit = usize::try_from(ask.limit)
                .unwrap()
                .min(max_bytes.saturating_sub(given_bytes));
            let expected = self.expected(model, ask, limit, given_bytes == 0);
            match (hit, expected) {
                (Some(hit), Some(run)) => self.compare(hit, model, ask, &run),
                (Some(hit), None) => panic!("{ask:?} at {}: {hit:?}", ask.offset()),
                (None, Some(run)) => assert!(!self.must_hit(ask), "{ask:?} at {}: {run:?}", ask.offset()),
                (None, None) => {}
            }
            given_bytes += hit.map_or(0, PartitionData::records_size_bytes);
        }
        assert_eq!(hits.next(), None, "nobody asked for it");
    }

    fn must_hit(&self, ask: &Ask) -> bool {
        // Gaps that are longer than 32 bits are cut.
        self.rules.is_strict && crate::chain::terrain(ask.partition) != crate::chain::Terrain::Sparse
    }

    /// The run of batches that a cache that has lost nothing answers; `None` for a miss.
    fn expected<'m>(
        &self,
        model: &'m Partition,
        ask: &Ask,
        limit: usize,
        is_first: bool,
    ) -> Option<Vec<&'m Fact>> {
        let state = model.state.as_ref()?;
        let age = self.now.since(state.validated_at?);
        let offset = ask.offset();
        // Where a partition may have gone and come back its leader epoch is that of any batch.
        let is_known_epoch = ask.current_leader_epoch < 0
            || !self.rules.is_strict
            || ask.current_leader_epoch == state.told_epoch;
        if age.as_millis() > BOUND_MS.into() || offset < state.log_start_offset || !is_known_epoch {
            return None;
        }
        let before = offset.checked_sub(1).and_then(|before| model.facts.get(&before));
        let agrees = |fact: Option<&Fact>| fact.is_some_and(|fact| fact.epoch == ask.last_fetched_epoch);
        if ask.last_fetched_epoch >= 0 && !agrees(model.at(offset)) && !agrees(before) {
            return None;
        }
        let (mut run, mut size, mut next) = (Vec::new(), 0, offset);
        while let Some(fact) = model.at(next).filter(|fact| self.is_visible(state, fact)) {
            size += fact.bytes.len();
            if size > limit && !(is_first && run.is_empty()) {
                return Some(run);
            }
            run.push(fact);
            let Some(behind) = fact.last.checked_add(1) else {
                break;
            };
            next = behind;
        }
        (!run.is_empty()).then_some(run)
    }

    fn is_visible(&self, state: &State, fact: &Fact) -> bool {
        let is_stable = fact.is_committed && fact.last < state.stable_below;
        let age = self.now.since(fact.known_at);
        let is_as_it_was = !state.is_compacted || age.as_millis() <= COMPACTED_BOUND_MS.into();
        (is_stable || !self.is_committed) && is_as_it_was
    }

    fn compare(&self, hit: &PartitionData, model: &Partition, ask: &Ask, run: &[&Fact]) {
        let records = hit.records.as_ref().unwrap();
        let slices: Vec<&Bytes> = records.slices().collect();
        let expected: Vec<&Bytes> = run.iter().map(|fact| &fact.bytes).collect();
        assert!(expected.starts_with(&slices), "{ask:?} at {}", ask.offset());
        // Where one log meets another the marker of an aborted transaction may be missing, so that a run has to end there.
        let two_logs_meet = self.is_committed
            && slices.len() < run.len()
            && run[..=slices.len()]
                .windows(2)
                .next_back()
                .is_some_and(|pair| pair[0].version != pair[1].version);
        if self.must_hit(ask) && !two_logs_meet {
            assert_eq!(slices.len(), expected.len(), "{ask:?}: as many as fit");
        }
        assert!(!slices.is_empty() || expected.is_empty() || !self.rules.is_strict);
        let served = &run[..slices.len()];
        let state = model.state.as_ref().unwrap();
        let beyond = served.last().map_or(ask.offset(), |fact| fact.last) + 1;
        let stable_beyond = if self.is_committed { beyond } else { -1 };
        let highest = (
            state.high_watermark.max(beyond),
            state.last_stable_offset.max(stable_beyond),
        );
        let told = (hit.high_watermark, hit.last_stable_offset);
        if self.rules.is_strict {
            assert_eq!(told, highest);
            assert_eq!(hit.log_start_offset, state.log_start_offset);
        } else {
            let (lowest, lowest_stable) = state.overtaken;
            assert!(
                (lowest..=highest.0).contains(&told.0),
                "{told:?}: {lowest} to {highest:?}"
            );
            assert!(
                (lowest_stable..=highest.1).contains(&told.1),
                "{told:?}: {lowest_stable} to {highest:?}"
            );
        }
        self.compare_aborted(hit, ask, served);
    }

    /// The list is the broker's for exactly that range (H2), where all of it is of one log.
    fn compare_aborted(&self, hit: &PartitionData, ask: &Ask, served: &[&Fact]) {
        let Some(aborted) = &hit.aborted_transactions else {
            assert!(!self.is_committed, "null says that nothing is known");
            return;
        };
        assert!(self.is_committed, "a list says that it is known");
        let (Some(first), Some(last)) = (served.first(), served.last()) else {
            assert_eq!(aborted.len(), 0);
            return;
        };
        if served.iter().any(|fact| fact.version.is_none()) {
            return;
        }
        let log = chain(ask.partition, first.version.unwrap_or_default());
        let of_log = log
            .links
            .iter()
            .filter(|link| link.last >= ask.offset() && link.last <= last.last);
        if !of_log
            .map(|link| &link.bytes)
            .eq(served.iter().map(|fact| &fact.bytes))
        {
            return;
        }
        let sorted = |list: &[kachet_core::wire::AbortedTransaction]| {
            let mut pairs: Vec<_> = list
                .iter()
                .map(|each| (each.producer_id, each.first_offset))
                .collect();
            pairs.sort_unstable();
            pairs
        };
        let expected = log.aborted(ask.offset(), last.last);
        assert_eq!(sorted(aborted), sorted(&expected), "{ask:?} at {}", ask.offset());
    }
}

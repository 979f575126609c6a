//! Misses at different offsets of one partition: what one fetch brings is likely to hold what others look for.
//!
//! The criterion is what the last answer to such a fetch showed: so many offsets as it brought, the next will bring.
//! An offset that lies within half of that behind the offset of a flight is joined to it: where the flight's offset
//! lies in its batch is not known, and with half of the batch it brings the other at least every second time. Then
//! the wait costs nothing on average, since a flight is half over when somebody finds it, and each that succeeds spares
//! a fetch.
//!
//! Offsets at the end of the log stay out, where a broker holds a fetch back (H14).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kachet_core::wire::{BatchEntry, Batches, FetchResponse, PartitionData};

use super::key::{FlightKey, Lane};

/// Lanes remembered at most.
const LANES_LIMIT: usize = 4096;

/// What the last answer on a lane showed.
#[derive(Clone, Copy, Debug)]
struct Reach {
    /// From the first to the last offset that it brought.
    offsets: i64,
    /// Below it, the broker has something to give at once.
    readable_end: i64,
}

/// How far flights reach, by lane.
#[derive(Debug, Default)]
pub(super) struct Reaches {
    known: Mutex<HashMap<Lane, Reach>>,
}

impl Reaches {
    /// Learns from the answer to a flight with these keys.
    pub(super) fn learn(&self, keys: &[FlightKey], response: &FetchResponse, committed: bool) {
        for FlightKey { lane, .. } in keys {
            let mut partitions = response.partitions();
            let found = partitions
                .find(|(topic, data)| **topic == lane.topic && data.partition_index == lane.asked.partition);
            let reach = found.and_then(|(_, data)| Reach::shown_by(data, committed));
            let Some(reach) = reach else { continue };
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= LANES_LIMIT && !known.contains_key(lane) {
                // It is learned again with the next answers.
                known.clear();
            }
            known.insert(lane.clone(), reach);
        }
    }

    /// Whether a flight that is under way is likely to bring what is looked for, and lands as soon as an own fetch would.
    pub(super) fn is_likely_to_bring(&self, flight: &FlightKey, wanted: &FlightKey) -> bool {
        let lane = &wanted.lane;
        let distance = wanted.fetch_offset.saturating_sub(flight.fetch_offset);
        if flight.lane != *lane || distance <= 0 {
            return false;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_prompt = lane.max_wait_ms == 0 || lane.min_bytes <= 1;
        known.get(lane).is_some_and(|reach| {
            is_prompt && distance <= reach.offsets / 2 && wanted.fetch_offset < reach.readable_end
        })
    }
}

impl Reach {
    fn shown_by(data: &PartitionData, committed: bool) -> Option<Self> {
        let bytes = data.records.as_ref()?.to_bytes();
        let mut spans = Batches::new(&bytes).map_while(|entry| match entry {
            Ok(BatchEntry::Batch(batch)) => Some(batch.span()),
            _ => None,
        });
        let first = spans.next()?;
        let last = spans.last().unwrap_or(first);
        Some(Self {
            offsets: last.last().checked_sub(first.base())?.checked_add(1)?,
            readable_end: if committed {
                data.last_stable_offset
            } else {
                data.high_watermark
            },
        })
    }
}

//! Where sequential readers stand, and when they will reach a batch.

use hashbrown::HashMap;

use crate::traces::BatchKey;

/// Cursors of one partition. Consumers beyond that replace the one that was idle for longest.
const CURSORS_MAX: usize = 16;

/// A reader is sequential once it has read so many batches in a row.
const RUN_MIN: u32 = 4;

/// How urgent a batch is that is read at the next tick of the clock; urgency is this over the time until the read.
const URGENCY_MAX: u64 = 1 << 60;

/// The sequential readers of all partitions. Time is counted in bytes that missed.
#[derive(Debug)]
pub(super) struct Readers {
    partitions: HashMap<u32, Vec<Cursor>>,
    /// How far back a reader's pace is measured.
    window_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// The batch that it reads next.
    next: u32,
    /// Batches read in a row, no further counted than it matters.
    run: u32,
    /// When it last moved on.
    moved_at: u64,
    /// Since when its pace is measured, and from where.
    measured_since: u64,
    measured_from: u32,
}

impl Readers {
    pub(super) fn new(window_bytes: u64) -> Self {
        Self {
            partitions: HashMap::new(),
            window_bytes,
        }
    }

    /// Notes a read. True if a sequential reader did it.
    pub(super) fn note(&mut self, key: BatchKey, now: u64) -> bool {
        let cursors = self.partitions.entry(key.partition).or_default();
        let reader = cursors
            .iter_mut()
            .filter(|cursor| cursor.next == key.batch)
            .max_by_key(|cursor| cursor.run);
        if let Some(cursor) = reader {
            cursor.next += 1;
            cursor.run = (cursor.run + 1).min(RUN_MIN);
            cursor.moved_at = now;
            return cursor.run == RUN_MIN;
        }
        let cursor = Cursor {
            next: key.batch + 1,
            run: 1,
            moved_at: now,
            measured_since: now,
            measured_from: key.batch,
        };
        if cursors.len() < CURSORS_MAX {
            cursors.push(cursor);
        } else {
            replace(cursors, cursor);
        }
        false
    }

    /// How urgent a batch is, by the sequential reader that will reach it first; zero if none will.
    pub(super) fn urgency(&mut self, key: BatchKey, now: u64) -> u64 {
        let Some(cursors) = self.partitions.get_mut(&key.partition) else {
            return 0;
        };
        cursors
            .iter_mut()
            .filter(|cursor| cursor.run == RUN_MIN && cursor.next <= key.batch)
            .filter_map(|cursor| cursor.reaches_in(key.batch, now, self.window_bytes))
            .min()
            .map_or(0, |time| URGENCY_MAX / time)
    }
}

/// The urgency of what was not needed for so long, and so may not be needed for as long again.
pub(super) fn urgency_after(idle_bytes: u64) -> u64 {
    URGENCY_MAX / (idle_bytes + 1)
}

/// Random reads make cursors that never move, so these go first; then the one that stands still for longest.
fn replace(cursors: &mut [Cursor], cursor: Cursor) {
    const YOUNG_MIN: usize = CURSORS_MAX / 4;
    let young = cursors.iter().filter(|cursor| cursor.run < RUN_MIN).count();
    let goes = cursors
        .iter_mut()
        .filter(|cursor| cursor.run < RUN_MIN || young < YOUNG_MIN)
        .min_by_key(|cursor| cursor.moved_at);
    if let Some(goes) = goes {
        *goes = cursor;
    }
}

impl Cursor {
    /// The time until it reaches a batch that lies ahead, at least 1; none if it does not move.
    fn reaches_in(&mut self, batch: u32, now: u64, window_bytes: u64) -> Option<u64> {
        let mut passed = self.next - self.measured_from;
        let mut elapsed = now - self.measured_since;
        while elapsed > window_bytes {
            // Half of the past counts half.
            passed /= 2;
            elapsed /= 2;
            self.measured_from = self.next - passed;
            self.measured_since = now - elapsed;
        }
        let time = u64::from(batch - self.next) * elapsed;
        Some(time.checked_div(u64::from(passed))? + 1)
    }
}

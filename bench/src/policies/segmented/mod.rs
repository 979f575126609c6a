//! Kachet's policy: a few logs of segments, of which the oldest goes as a whole.
//!
//! This is the model by which the engine was designed. It moves no bytes, and counts every one: dead bytes count until
//! their segment goes, and each batch that moves to the head of a log counts as written again.
//!
//! Three logs share the limit:
//! - the **small** log takes what nothing is known of. What was not read when its segment goes is dropped, and its
//!   ghost remembered; what was read moves to the main log. This is S3-FIFO (Yang and others, SOSP 2023).
//! - the **main** log takes these, and ghosts that are read. It is also filled by the first batches that come, until
//!   the cache is full for the first time: then it loses only what better batches displace, and a loop or scan that is
//!   longer than the cache hits what stays there. What was read since its segment was written moves to the head.
//! - the **ahead** log takes what a sequential reader will reach before the batch that would have to go is read.

mod ghosts;
mod readers;

use std::collections::VecDeque;

use hashbrown::HashMap;

use self::ghosts::Ghosts;
use self::readers::{Readers, urgency_after};
use super::Policy;
use crate::traces::BatchKey;

/// Reads of a batch are counted up to here.
const HITS_MAX: u8 = 3;

/// How many segments may go for one batch. If they held nothing but survivors, the batch is not admitted.
const EVICTIONS_MAX: u32 = 8;

/// So many batches of a segment, evenly spaced, stand for all when its urgency is estimated.
const SAMPLES: usize = 16;

/// What the policy may be built with. The default is what the engine does; the rest shows what each part is worth.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many segments the limit is cut into.
    pub segments: u64,
    /// The share of the small log, in percent of the limit.
    pub small_percent: u64,
    /// How many bytes are evicted until a ghost is forgotten, in percent of the limit.
    pub ghost_percent: u64,
    /// Whether the main log takes the first batches.
    pub fills_main_first: bool,
    /// Whether sequential readers are followed.
    pub follows_readers: bool,
    /// How far back a reader's pace is measured, in percent of the limit that missed.
    pub window_percent: u64,
    /// Whether reads by a sequential reader leave no mark on batches in the ahead log.
    pub ignores_sequential_hits: bool,
    /// How many bytes must miss, in multiples of the limit, before each segment of the main log is looked through
    /// though nothing displaces it. Zero for never.
    pub patrol: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            segments: 128,
            small_percent: 3,
            ghost_percent: 50,
            fills_main_first: true,
            follows_readers: true,
            window_percent: 500,
            ignores_sequential_hits: true,
            patrol: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogName {
    Small,
    Main,
    Ahead,
}

#[derive(Debug)]
struct Entry {
    segment: u64,
    size_bytes: u32,
    hits: u8,
    is_ahead: bool,
}

#[derive(Debug)]
struct Segment {
    id: u64,
    batches: Vec<BatchKey>,
    bytes: u64,
    /// When it was opened, in bytes that had missed.
    opened_at: u64,
}

#[derive(Debug, Default)]
struct Log {
    /// The oldest first; the last one is open.
    segments: VecDeque<Segment>,
    bytes: u64,
}

/// A segment that could go, and how urgent its bytes are.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    log: LogName,
    index: usize,
    urgency: u64,
}

/// The policy. See the [module](self).
#[derive(Debug)]
pub struct Segmented {
    settings: Settings,
    limit_bytes: u64,
    written_bytes: u64,
    /// Bytes that missed so far: the clock of everything here.
    missed_bytes: u64,
    segments_opened: u64,
    was_full: bool,
    entries: HashMap<BatchKey, Entry>,
    small: Log,
    main: Log,
    ahead: Log,
    ghosts: Ghosts,
    readers: Readers,
    /// The last candidate, until a segment is opened or goes.
    candidate: Option<Candidate>,
    /// When the main log was last patrolled, and what may pass from the small log to it in place of what went.
    patrolled_at: u64,
    refill_bytes: u64,
}

impl Segmented {
    /// An empty cache.
    pub fn new(limit_bytes: u64, settings: Settings) -> Self {
        Self {
            settings,
            limit_bytes,
            written_bytes: 0,
            missed_bytes: 0,
            segments_opened: 0,
            was_full: false,
            entries: HashMap::new(),
            small: Log::default(),
            main: Log::default(),
            ahead: Log::default(),
            ghosts: Ghosts::new(limit_bytes * settings.ghost_percent / 100),
            readers: Readers::new(limit_bytes * settings.window_percent / 100),
            candidate: None,
            patrolled_at: 0,
            refill_bytes: 0,
        }
    }

    fn log(&mut self, name: LogName) -> &mut Log {
        match name {
            LogName::Small => &mut self.small,
            LogName::Main => &mut self.main,
            LogName::Ahead => &mut self.ahead,
        }
    }

    /// Appends a batch to the open segment of a log, or to a new one if it does not fit.
    fn append(&mut self, name: LogName, key: BatchKey, size_bytes: u32, hits: u8) {
        let bytes = u64::from(size_bytes);
        let segment_bytes = self.limit_bytes / self.settings.segments;
        let (id, opened_at) = (self.segments_opened, self.missed_bytes);
        let log = self.log(name);
        log.bytes += bytes;
        let open = log
            .segments
            .back_mut()
            .filter(|open| open.bytes + bytes <= segment_bytes);
        let segment = match open {
            Some(open) => {
                open.batches.push(key);
                open.bytes += bytes;
                open.id
            }
            None => {
                log.segments.push_back(Segment {
                    id,
                    batches: vec![key],
                    bytes,
                    opened_at,
                });
                self.segments_opened += 1;
                self.candidate = None;
                id
            }
        };
        self.written_bytes += bytes;
        self.entries.insert(
            key,
            Entry {
                segment,
                size_bytes,
                hits,
                is_ahead: name == LogName::Ahead,
            },
        );
    }

    /// Where a batch that missed belongs.
    fn place(&mut self, key: BatchKey, size_bytes: u32) -> LogName {
        let was_ghost = self.ghosts.take(key);
        if self.settings.follows_readers {
            let urgency = self.readers.urgency(key, self.missed_bytes);
            let has_room = self.held_bytes() + u64::from(size_bytes) <= self.limit_bytes;
            if urgency > 0 && (has_room || urgency > self.candidate().urgency) {
                return LogName::Ahead;
            }
        }
        let main_bytes_max = self.limit_bytes * (100 - self.settings.small_percent) / 100;
        let fills = self.settings.fills_main_first && !self.was_full && self.main.bytes < main_bytes_max;
        if was_ghost || fills {
            LogName::Main
        } else {
            LogName::Small
        }
    }

    /// The segment of the main or the ahead log whose bytes are the least urgent.
    fn candidate(&mut self) -> Candidate {
        if let Some(candidate) = self.candidate {
            return candidate;
        }
        let now = self.missed_bytes;
        let mut best = Candidate {
            log: LogName::Small,
            index: 0,
            urgency: u64::MAX,
        };
        if let Some(oldest) = self.main.segments.front() {
            // Batches there that were not read for so long would go.
            best = Candidate {
                log: LogName::Main,
                index: 0,
                urgency: urgency_after(now - oldest.opened_at),
            };
        }
        for index in 0..self.ahead.segments.len() {
            let urgency = self.segment_urgency(index);
            if urgency < best.urgency {
                best = Candidate {
                    log: LogName::Ahead,
                    index,
                    urgency,
                };
            }
        }
        self.candidate = Some(best);
        best
    }

    /// The mean urgency of a byte of a segment of the ahead log; dead bytes have none.
    fn segment_urgency(&mut self, index: usize) -> u64 {
        let segment = &self.ahead.segments[index];
        let (mut bytes, mut sum) = (0u128, 0u128);
        for &key in segment
            .batches
            .iter()
            .step_by(segment.batches.len().div_ceil(SAMPLES))
        {
            let size_bytes = u128::from(self.entries[&key].size_bytes);
            bytes += size_bytes;
            sum += size_bytes * u128::from(self.readers.urgency(key, self.missed_bytes));
        }
        u64::try_from(sum / bytes.max(1)).unwrap_or(u64::MAX)
    }

    /// Lets segments go until a batch of so many bytes fits. False if it does not.
    fn make_room(&mut self, size_bytes: u32) -> bool {
        for _ in 0..EVICTIONS_MAX {
            if self.held_bytes() + u64::from(size_bytes) <= self.limit_bytes {
                return true;
            }
            self.was_full = true;
            self.evict_one();
        }
        self.held_bytes() + u64::from(size_bytes) <= self.limit_bytes
    }

    fn evict_one(&mut self) {
        let small_is_over = self.small.bytes * 100 > self.limit_bytes * self.settings.small_percent;
        if small_is_over || (self.main.segments.is_empty() && self.ahead.segments.is_empty()) {
            self.evict(LogName::Small, 0);
        } else if self.settings.follows_readers {
            let candidate = self.candidate();
            self.evict(candidate.log, candidate.index);
        } else {
            self.evict(LogName::Main, 0);
        }
    }

    /// Lets a segment go; what deserves it is appended to a log again.
    fn evict(&mut self, name: LogName, index: usize) {
        let log = self.log(name);
        let Some(segment) = log.segments.remove(index) else {
            return;
        };
        log.bytes -= segment.bytes;
        self.candidate = None;
        let urgency_min = if self.settings.follows_readers {
            self.candidate().urgency
        } else {
            u64::MAX
        };
        for key in segment.batches {
            let Entry { size_bytes, hits, .. } = self.entries[&key];
            let survives_in = if self.settings.follows_readers
                && self.readers.urgency(key, self.missed_bytes) > urgency_min
            {
                Some((LogName::Ahead, hits))
            } else if hits > 0 {
                let hits_left = if name == LogName::Main { hits - 1 } else { 0 };
                Some((LogName::Main, hits_left))
            } else if name == LogName::Small && self.refill_bytes >= u64::from(size_bytes) {
                self.refill_bytes -= u64::from(size_bytes);
                Some((LogName::Main, 0))
            } else {
                None
            };
            match survives_in {
                Some((name, hits)) => self.append(name, key, size_bytes, hits),
                None => {
                    self.entries.remove(&key);
                    if name != LogName::Main {
                        self.ghosts.remember(key, size_bytes);
                    }
                }
            }
        }
    }

    /// Looks through the oldest segment of the main log if its time has come.
    fn patrol(&mut self) {
        let period = self.limit_bytes * self.settings.patrol / self.settings.segments;
        if period == 0 || !self.was_full || self.missed_bytes - self.patrolled_at < period {
            return;
        }
        self.patrolled_at = self.missed_bytes;
        let main_bytes = self.main.bytes;
        self.evict(LogName::Main, 0);
        self.refill_bytes += main_bytes.saturating_sub(self.main.bytes);
    }
}

impl Policy for Segmented {
    fn access(&mut self, key: BatchKey, size_bytes: u32) -> bool {
        let is_sequential = self.settings.follows_readers && self.readers.note(key, self.missed_bytes);
        if let Some(entry) = self.entries.get_mut(&key) {
            if !(is_sequential && entry.is_ahead && self.settings.ignores_sequential_hits) {
                entry.hits = (entry.hits + 1).min(HITS_MAX);
            }
            return true;
        }
        self.missed_bytes += u64::from(size_bytes);
        self.patrol();
        let name = self.place(key, size_bytes);
        if self.make_room(size_bytes) {
            self.append(name, key, size_bytes, 0);
        }
        false
    }

    fn held_bytes(&self) -> u64 {
        self.small.bytes + self.main.bytes + self.ahead.bytes
    }

    fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

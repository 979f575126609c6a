//! A storage around another that fails on purpose, as its seed says: for tests, simulations and fault campaigns.
//!
//! The storage below keeps the pristine bytes: what is damaged is what is handed out, so that a fault is lifted by
//! switching it off. The same seed and the same order of operations give the same faults.

use alloc::collections::BTreeSet;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use core::task::Poll;

use bytes::Bytes;

use super::{Operation, SegmentId, SegmentReader, Storage, StorageError, StorageErrorKind, StoredSegment};

/// The faults that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An operation does nothing and fails.
    Error,
    /// A create or an append does nothing and finds the medium full.
    Full,
    /// A part of what was to be appended arrives, up to any byte, and the append fails.
    TornAppend,
    /// A read gives only the beginning of the range, and no error.
    ShortRead,
    /// A read gives the range with one bit flipped, once.
    BitFlip,
    /// A bit in a sector of 512 bytes is flipped whenever it is read. The rate is that of such sectors.
    BadSector,
    /// An operation is pending for a while before it begins.
    Delay,
    /// Nothing can be read without waiting.
    NotNow,
}

const KINDS: usize = 8;
const SECTOR_BYTES: u64 = 512;
/// How often a delayed operation is pending at most.
const DELAY_POLLS_MAX: u64 = 8;
/// The most garbage that a crash leaves behind a torn tail, in bytes.
const GARBAGE_BYTES_MAX: u64 = 4096;

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; KINDS] = [
        Self::Error,
        Self::Full,
        Self::TornAppend,
        Self::ShortRead,
        Self::BitFlip,
        Self::BadSector,
        Self::Delay,
        Self::NotNow,
    ];
}

/// How many in a thousand chances for a fault become one; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// Of all operations, [`FaultKind::Error`].
    pub error_per_mille: u32,
    /// Of creates and appends, [`FaultKind::Full`].
    pub full_per_mille: u32,
    /// Of appends, [`FaultKind::TornAppend`].
    pub torn_append_per_mille: u32,
    /// Of reads, [`FaultKind::ShortRead`].
    pub short_read_per_mille: u32,
    /// Of reads, [`FaultKind::BitFlip`].
    pub bit_flip_per_mille: u32,
    /// Of sectors, [`FaultKind::BadSector`].
    pub bad_sector_per_mille: u32,
    /// Of all operations, [`FaultKind::Delay`].
    pub delay_per_mille: u32,
    /// Of reads that do not wait, [`FaultKind::NotNow`].
    pub not_now_per_mille: u32,
}

impl FaultRates {
    fn of(self, kind: FaultKind) -> u32 {
        match kind {
            FaultKind::Error => self.error_per_mille,
            FaultKind::Full => self.full_per_mille,
            FaultKind::TornAppend => self.torn_append_per_mille,
            FaultKind::ShortRead => self.short_read_per_mille,
            FaultKind::BitFlip => self.bit_flip_per_mille,
            FaultKind::BadSector => self.bad_sector_per_mille,
            FaultKind::Delay => self.delay_per_mille,
            FaultKind::NotNow => self.not_now_per_mille,
        }
    }
}

/// Governs the faults of a [`FaultyStorage`] from outside, and counts them. Clones govern the same.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    seed: u64,
    drawn: AtomicU64,
    are_on: AtomicBool,
    rates: [AtomicU32; KINDS],
    injected: [AtomicU64; KINDS],
    operations: AtomicU64,
    /// The operation that fails, counted from the first of all.
    fail_at: AtomicU64,
    /// From which operation on all fail.
    fail_from: AtomicU64,
    /// How they fail, as a [`FaultKind`].
    failing: AtomicUsize,
}

const NEVER: u64 = u64::MAX;

impl Faults {
    /// Faults at these rates, switched on.
    pub fn new(seed: u64, rates: FaultRates) -> Self {
        Self(Arc::new(Shared {
            seed,
            drawn: AtomicU64::new(0),
            are_on: AtomicBool::new(true),
            rates: FaultKind::ALL.map(|kind| AtomicU32::new(rates.of(kind))),
            injected: FaultKind::ALL.map(|_| AtomicU64::new(0)),
            operations: AtomicU64::new(0),
            fail_at: AtomicU64::new(NEVER),
            fail_from: AtomicU64::new(NEVER),
            failing: AtomicUsize::new(FaultKind::Error as usize),
        }))
    }

    /// Switches all faults on or off, those of [`Self::fail_once`] and [`Self::fail_from`] included.
    pub fn switch(&self, on: bool) {
        self.0.are_on.store(on, Relaxed);
    }

    /// Changes the rate of one kind.
    pub fn set_per_mille(&self, kind: FaultKind, rate: u32) {
        self.0.rates[kind as usize].store(rate, Relaxed);
    }

    /// Lets the operation fail that comes after `count` more, and no other.
    pub fn fail_once(&self, count: u64) {
        self.0
            .fail_at
            .store(self.operations().saturating_add(count), Relaxed);
    }

    /// Lets all operations fail that come after `count` more.
    pub fn fail_from(&self, count: u64) {
        self.0
            .fail_from
            .store(self.operations().saturating_add(count), Relaxed);
    }

    /// How the operations fail that [`Self::fail_once`] and [`Self::fail_from`] count to: [`FaultKind::Error`] unless
    /// another is named. One that a kind does not apply to does not fail, and [`FaultKind::BadSector`],
    /// [`FaultKind::Delay`] and [`FaultKind::NotNow`] apply to none.
    pub fn fail_with(&self, kind: FaultKind) {
        self.0.failing.store(kind as usize, Relaxed);
    }

    /// Takes back [`Self::fail_once`] and [`Self::fail_from`].
    pub fn cancel(&self) {
        self.0.fail_at.store(NEVER, Relaxed);
        self.0.fail_from.store(NEVER, Relaxed);
    }

    /// How many operations there were, reads included.
    pub fn operations(&self) -> u64 {
        self.0.operations.load(Relaxed)
    }

    /// How many faults of this kind were made. Of bad sectors, how often one was read.
    pub fn injected(&self, kind: FaultKind) -> u64 {
        self.0.injected[kind as usize].load(Relaxed)
    }

    /// A number that depends on the seed and on how many were drawn before.
    fn draw(&self) -> u64 {
        mix(self.0.seed ^ mix(self.0.drawn.fetch_add(1, Relaxed)))
    }

    /// A number below `bound`, or 0.
    fn draw_below(&self, bound: u64) -> u64 {
        self.draw().checked_rem(bound).unwrap_or_default()
    }

    fn rate(&self, kind: FaultKind) -> u64 {
        let are_on = self.0.are_on.load(Relaxed);
        if are_on {
            self.0.rates[kind as usize].load(Relaxed).into()
        } else {
            0
        }
    }

    fn count(&self, kind: FaultKind) {
        self.0.injected[kind as usize].fetch_add(1, Relaxed);
    }

    /// Whether the operation that was admitted last is one that was counted to, and fails in this way.
    fn is_counted_to(&self, kind: FaultKind) -> bool {
        let number = self.operations().wrapping_sub(1);
        let is_due = number == self.0.fail_at.load(Relaxed) || number >= self.0.fail_from.load(Relaxed);
        let applies = !matches!(kind, FaultKind::Delay | FaultKind::NotNow);
        let fails = self.0.failing.load(Relaxed) == kind as usize;
        is_due && number != NEVER && fails && applies && self.0.are_on.load(Relaxed)
    }

    /// Whether a fault of this kind is due.
    fn strikes(&self, kind: FaultKind) -> bool {
        let rate = self.rate(kind);
        let strikes = self.is_counted_to(kind) || rate > 0 && self.draw_below(1000) < rate;
        if strikes {
            self.count(kind);
        }
        strikes
    }

    /// What comes before any operation: a delay, and whether it fails.
    async fn admit(&self, operation: Operation, segment: Option<SegmentId>) -> Result<(), StorageError> {
        if self.strikes(FaultKind::Delay) {
            pending(1 + self.draw_below(DELAY_POLLS_MAX)).await;
        }
        self.admit_now(operation, segment)
    }

    fn admit_now(&self, operation: Operation, segment: Option<SegmentId>) -> Result<(), StorageError> {
        self.0.operations.fetch_add(1, Relaxed);
        if self.strikes(FaultKind::Error) {
            return Err(injected(operation, segment));
        }
        Ok(())
    }

    fn room(&self, operation: Operation, segment: SegmentId) -> Result<(), StorageError> {
        if !self.strikes(FaultKind::Full) {
            return Ok(());
        }
        Err(StorageError {
            operation,
            segment: Some(segment),
            kind: StorageErrorKind::Full,
        })
    }

    /// What a read that began at `start` gives instead of `bytes`.
    fn damage(&self, segment: SegmentId, start: u64, bytes: Bytes) -> Bytes {
        let mut flips = self.bad_bits(segment, start, bytes.len() as u64);
        if !bytes.is_empty() && self.strikes(FaultKind::BitFlip) {
            flips.push(self.draw_below(bytes.len() as u64 * 8));
        }
        let mut bytes = flipped(bytes, &flips);
        if !bytes.is_empty() && self.strikes(FaultKind::ShortRead) {
            // It fits: it is less than a length.
            bytes.truncate(usize::try_from(self.draw_below(bytes.len() as u64)).unwrap_or_default());
        }
        bytes
    }

    /// Which bits of what was read lie in bad sectors and are the bad ones there.
    fn bad_bits(&self, segment: SegmentId, start: u64, length: u64) -> Vec<u64> {
        let rate = self.rate(FaultKind::BadSector);
        let mut bits = Vec::new();
        if rate == 0 || length == 0 {
            return bits;
        }
        for sector in start / SECTOR_BYTES..=(start + length - 1) / SECTOR_BYTES {
            let fate = mix(self.0.seed ^ mix(segment.0 ^ mix(sector)));
            let bit = sector * SECTOR_BYTES * 8 + (fate >> 16) % (SECTOR_BYTES * 8);
            let in_range = bit / 8 >= start && bit / 8 < start + length;
            if fate % 1000 < rate && in_range {
                self.count(FaultKind::BadSector);
                bits.push(bit - start * 8);
            }
        }
        bits
    }
}

/// The finalizer of splitmix64: every bit of the result depends on every bit of the input.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A copy with these bits flipped; the bytes themselves if there are none.
fn flipped(bytes: Bytes, bits: &[u64]) -> Bytes {
    if bits.is_empty() {
        return bytes;
    }
    let mut copy = bytes.to_vec();
    for bit in bits {
        if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| copy.get_mut(at)) {
            *byte ^= 1 << (bit % 8);
        }
    }
    copy.into()
}

fn injected(operation: Operation, segment: Option<SegmentId>) -> StorageError {
    StorageError {
        operation,
        segment,
        kind: StorageErrorKind::Medium("a fault that was asked for".to_string()),
    }
}

/// Pending so many times, and asks each time to be polled again.
fn pending(times: u64) -> impl Future<Output = ()> {
    let mut left = times;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

/// A storage that fails as [`Faults`] say, around one that does not.
#[derive(Debug)]
pub struct FaultyStorage<S> {
    inner: S,
    faults: Faults,
    unsealed: BTreeSet<SegmentId>,
}

impl<S: Storage> FaultyStorage<S> {
    /// Wraps a storage.
    pub fn new(inner: S, faults: Faults) -> Self {
        Self {
            inner,
            faults,
            unsealed: BTreeSet::new(),
        }
    }

    /// The handle on the faults.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The storage below, without faults.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// What a crash of the machine leaves: of each segment that was not sealed a beginning, up to any byte, with
    /// nothing, zeros, noise or what stood at that place of another segment behind it. The seed decides.
    ///
    /// Fails only if the storage below does.
    pub async fn crash(&mut self) -> Result<(), StorageError> {
        let mut stored = self.inner.list().await?;
        // A list comes in any order, and the seed alone is to decide.
        stored.sort_by_key(|each| each.id);
        for segment in core::mem::take(&mut self.unsealed) {
            let Some(size_bytes) = stored.iter().find(|each| each.id == segment) else {
                continue;
            };
            let kept_bytes = self.faults.draw_below(size_bytes.size_bytes + 1);
            let other = stored.iter().find(|each| each.id != segment);
            let kept = self.inner.open(segment).await?.read(0..kept_bytes).await?;
            let garbage = self.garbage(kept_bytes, other).await?;
            self.inner.remove(segment).await?;
            self.inner.create(segment).await?;
            self.inner.append(segment, vec![kept, garbage]).await?;
        }
        Ok(())
    }

    /// What lies behind a tail that was torn at byte `at`.
    async fn garbage(&mut self, at: u64, other: Option<&StoredSegment>) -> Result<Bytes, StorageError> {
        let length = self.faults.draw_below(GARBAGE_BYTES_MAX);
        // It fits: it is below 4096.
        let room = usize::try_from(length).unwrap_or_default();
        match (self.faults.draw_below(4), other) {
            (0, _) => Ok(Bytes::new()),
            (1, Some(other)) => {
                let from = at.min(other.size_bytes);
                let to = (at + length).min(other.size_bytes);
                self.inner.open(other.id).await?.read(from..to).await
            }
            (2, _) => Ok(vec![0; room].into()),
            _ => Ok((0..room).map(|_| self.faults.draw().to_le_bytes()[0]).collect()),
        }
    }

    /// Appends a part of the pieces, up to any byte, and fails.
    async fn tear(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let size_bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        // It fits, or more than there is memory was to be appended.
        let mut left = usize::try_from(self.faults.draw_below(size_bytes + 1)).unwrap_or(usize::MAX);
        let mut arrived = Vec::new();
        for mut piece in pieces {
            piece.truncate(left);
            left -= piece.len();
            arrived.push(piece);
        }
        self.inner.append(segment, arrived).await?;
        Err(injected(Operation::Append, Some(segment)))
    }
}

impl<S: Storage> Storage for FaultyStorage<S> {
    type Reader = FaultyReader<S::Reader>;

    async fn list(&mut self) -> Result<Vec<StoredSegment>, StorageError> {
        self.faults.admit(Operation::List, None).await?;
        self.inner.list().await
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.faults.admit(Operation::Create, Some(segment)).await?;
        self.faults.room(Operation::Create, segment)?;
        self.inner.create(segment).await?;
        self.unsealed.insert(segment);
        Ok(())
    }

    async fn append(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.faults.admit(Operation::Append, Some(segment)).await?;
        self.faults.room(Operation::Append, segment)?;
        if self.faults.strikes(FaultKind::TornAppend) {
            return self.tear(segment, pieces).await;
        }
        self.inner.append(segment, pieces).await
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.faults.admit(Operation::Seal, Some(segment)).await?;
        self.inner.seal(segment).await?;
        self.unsealed.remove(&segment);
        Ok(())
    }

    async fn open(&mut self, segment: SegmentId) -> Result<Self::Reader, StorageError> {
        self.faults.admit(Operation::Open, Some(segment)).await?;
        Ok(FaultyReader {
            inner: self.inner.open(segment).await?,
            segment,
            faults: self.faults.clone(),
        })
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.faults.admit(Operation::Remove, Some(segment)).await?;
        self.inner.remove(segment).await?;
        self.unsealed.remove(&segment);
        Ok(())
    }
}

/// Reads a segment of a [`FaultyStorage`].
#[derive(Clone, Debug)]
pub struct FaultyReader<R> {
    inner: R,
    segment: SegmentId,
    faults: Faults,
}

impl<R: SegmentReader> SegmentReader for FaultyReader<R> {
    const MAY_CORRUPT: bool = true;

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read_now(&self, range: Range<u64>) -> Option<Result<Bytes, StorageError>> {
        if self.faults.strikes(FaultKind::NotNow) {
            return None;
        }
        let start = range.start;
        let read = self.inner.read_now(range)?;
        let admitted = self.faults.admit_now(Operation::Read, Some(self.segment));
        let damaged = |bytes| self.faults.damage(self.segment, start, bytes);
        Some(admitted.and(read).map(damaged))
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.faults.admit(Operation::Read, Some(self.segment)).await?;
        let start = range.start;
        let bytes = self.inner.read(range).await?;
        Ok(self.faults.damage(self.segment, start, bytes))
    }

    fn is_last(&self) -> bool {
        self.inner.is_last()
    }
}

#[cfg(test)]
mod tests;

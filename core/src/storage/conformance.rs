//! What every implementation of [`Storage`] has to do, as tests: [`storage_conformance!`](crate::storage_conformance)
//! makes a module of them. Feature `conformance`.
//!
//! ```ignore
//! // Where the storage lives, how it is opened there, and that it outlives the process.
//! storage_conformance!(files, || TempDir::new().unwrap(), async |folder: &TempDir| open(folder.path()), restarts);
//! ```

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::ops::{AsyncFn, Range};
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{SegmentId, SegmentReader, Storage, StorageError, StorageErrorKind};

/// A promise that a storage did not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What was found, and what was promised.
    pub finding: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.finding)
    }
}

impl core::error::Error for Violation {}

impl From<StorageError> for Violation {
    fn from(error: StorageError) -> Self {
        let finding = format!("failed without a reason: {error}");
        Self { finding }
    }
}

/// What a check found.
pub type Outcome = Result<(), Violation>;

fn ensure(holds: bool, finding: impl FnOnce() -> String) -> Outcome {
    if holds {
        return Ok(());
    }
    Err(Violation { finding: finding() })
}

/// More polls than any check needs of a storage that wakes as it should.
const POLLS_MAX: u64 = 1 << 32;

/// Polls a future until it is ready, without an executor: for storages that need none.
///
/// # Panics
///
/// If the future is still pending after four thousand million polls, so that a test ends.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let mut polls = 0_u64;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        polls += 1;
        assert!(polls < POLLS_MAX, "a future is never ready");
        core::hint::spin_loop();
    }
}

/// Bytes that differ from segment to segment and from place to place.
fn sample(salt: u64, length: usize) -> Bytes {
    let byte = |at: usize| (at as u64 ^ (at as u64 >> 8) ^ salt.wrapping_mul(37)).to_le_bytes()[0];
    (0..length).map(byte).collect()
}

async fn write<S: Storage>(storage: &mut S, id: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
    storage.create(SegmentId(id)).await?;
    storage.append(SegmentId(id), pieces).await
}

async fn write_sealed<S: Storage>(storage: &mut S, id: u64, bytes: &Bytes) -> Result<(), StorageError> {
    write(storage, id, vec![bytes.clone()]).await?;
    storage.seal(SegmentId(id)).await
}

/// Both ways of reading give exactly these bytes for the range.
async fn expect_range<R: SegmentReader>(reader: &R, range: Range<u64>, expected: &[u8]) -> Outcome {
    let read = reader.read(range.clone()).await?;
    ensure(read == expected, || {
        format!(
            "{} bytes read for {range:?} are not those that were appended there",
            read.len()
        )
    })?;
    let Some(read_now) = reader.read_now(range.clone()) else {
        return Ok(());
    };
    let same = read_now? == expected;
    ensure(same, || format!("read and read_now differ for {range:?}"))
}

/// The reader holds exactly these bytes.
async fn expect_all<R: SegmentReader>(reader: &R, expected: &[u8]) -> Outcome {
    let size_bytes = reader.size_bytes();
    ensure(size_bytes == expected.len() as u64, || {
        format!(
            "a reader says {size_bytes} bytes, {} were appended",
            expected.len()
        )
    })?;
    expect_range(reader, 0..size_bytes, expected).await
}

/// A segment holds exactly these bytes.
async fn expect_segment<S: Storage>(storage: &mut S, id: u64, expected: &[u8]) -> Outcome {
    let reader = storage.open(SegmentId(id)).await?;
    expect_all(&reader, expected).await
}

/// The list names exactly these, in any order, and of those that state it the size.
async fn expect_list<S: Storage>(storage: &mut S, expected: &[(u64, Option<usize>)]) -> Outcome {
    let mut listed = storage.list().await?;
    listed.sort_by_key(|each| each.id);
    let mut expected = expected.to_owned();
    expected.sort_unstable();
    let ids: Vec<u64> = listed.iter().map(|each| each.id.0).collect();
    let expected_ids: Vec<u64> = expected.iter().map(|(id, _)| *id).collect();
    ensure(ids == expected_ids, || {
        format!("the list names {ids:x?}, there are {expected_ids:x?}")
    })?;
    for (each, (_, size)) in listed.iter().zip(expected) {
        let agrees = size.is_none_or(|size| size as u64 == each.size_bytes);
        ensure(agrees, || {
            format!(
                "the list says {} bytes of segment {}, it has {size:?}",
                each.size_bytes, each.id
            )
        })?;
    }
    Ok(())
}

fn expect_error<T>(what: &str, result: Result<T, StorageError>, expected: &StorageErrorKind) -> Outcome {
    let found = result.err().map(|error| error.kind);
    ensure(found.as_ref() == Some(expected), || {
        format!("{what} gave {found:?}, promised is {expected:?}")
    })
}

/// An empty storage lists nothing.
pub async fn an_empty_storage_lists_nothing<S: Storage>(storage: &mut S) -> Outcome {
    expect_list(storage, &[]).await
}

/// An empty segment is listed, opened and read, before and after it is sealed.
pub async fn an_empty_segment_is_a_segment<S: Storage>(storage: &mut S) -> Outcome {
    storage.create(SegmentId(7)).await?;
    expect_list(storage, &[(7, None)]).await?;
    expect_segment(storage, 7, &[]).await?;
    storage.append(SegmentId(7), Vec::new()).await?;
    storage.append(SegmentId(7), vec![Bytes::new()]).await?;
    storage.seal(SegmentId(7)).await?;
    expect_list(storage, &[(7, Some(0))]).await?;
    let reader = storage.open(SegmentId(7)).await?;
    expect_all(&reader, &[]).await?;
    expect_out_of_range(&reader, 0..1).await
}

/// Pieces lie in the order in which they were appended, whatever their sizes.
pub async fn pieces_lie_in_order<S: Storage>(storage: &mut S) -> Outcome {
    storage.create(SegmentId(1)).await?;
    let mut expected = Vec::new();
    for append in 0..8_u64 {
        // Whoever writes pieces in one system call meets its limit of 1024 pieces.
        let pieces: Vec<Bytes> = (0..1500_u64)
            .map(|piece| sample(append * 1500 + piece, usize::from((piece % 5).to_le_bytes()[0])))
            .collect();
        expected.extend(pieces.iter().flatten());
        storage.append(SegmentId(1), pieces).await?;
    }
    expect_segment(storage, 1, &expected).await?;
    storage.seal(SegmentId(1)).await?;
    expect_list(storage, &[(1, Some(expected.len()))]).await?;
    expect_segment(storage, 1, &expected).await
}

/// A reader of a segment that is not sealed reads what was appended before it was opened.
pub async fn an_unsealed_segment_is_read<S: Storage>(storage: &mut S) -> Outcome {
    let (first, second) = (sample(1, 1000), sample(2, 500));
    write(storage, 3, vec![first.clone()]).await?;
    let early = storage.open(SegmentId(3)).await?;
    expect_all(&early, &first).await?;
    storage.append(SegmentId(3), vec![second.clone()]).await?;
    expect_range(&early, 0..1000, &first).await?;
    let all = [first.clone(), second].concat();
    expect_segment(storage, 3, &all).await?;
    storage.seal(SegmentId(3)).await?;
    expect_range(&early, 0..1000, &first).await?;
    expect_segment(storage, 3, &all).await
}

/// Ranges are exact at every border.
pub async fn ranges_are_exact<S: Storage>(storage: &mut S) -> Outcome {
    let bytes = sample(9, 10_000);
    write(storage, 5, vec![bytes.slice(..4096), bytes.slice(4096..)]).await?;
    storage.seal(SegmentId(5)).await?;
    let reader = storage.open(SegmentId(5)).await?;
    let borders = [0, 1, 511, 512, 513, 4095, 4096, 4097, 8192, 9_999, 10_000_usize];
    for (index, from) in borders.into_iter().enumerate() {
        for &to in borders.iter().skip(index) {
            let expected = bytes.get(from..to).unwrap_or_default();
            expect_range(&reader, from as u64..to as u64, expected).await?;
        }
    }
    Ok(())
}

async fn expect_out_of_range<R: SegmentReader>(reader: &R, range: Range<u64>) -> Outcome {
    let (end, size_bytes) = (range.end, reader.size_bytes());
    let expected = StorageErrorKind::OutOfRange { end, size_bytes };
    let what = format!("reading {range:?} of {size_bytes} bytes");
    expect_error(&what, reader.read(range.clone()).await, &expected)?;
    match reader.read_now(range) {
        Some(read) => expect_error(&what, read, &expected),
        None => Ok(()),
    }
}

/// A range that does not lie within the segment is an error that says so, never less than what was asked for.
pub async fn ranges_beyond_the_end_are_errors<S: Storage>(storage: &mut S) -> Outcome {
    write_sealed(storage, 5, &sample(9, 100)).await?;
    let reader = storage.open(SegmentId(5)).await?;
    for range in [
        0..101,
        99..101,
        100..101,
        101..102,
        200..300,
        0..u64::MAX,
        u64::MAX - 1..u64::MAX,
    ] {
        expect_out_of_range(&reader, range).await?;
    }
    let (start, end) = (50, 40);
    let read = reader.read(start..end).await;
    ensure(read.is_err() || read == Ok(Bytes::new()), || {
        "a range that ends before it begins gave bytes".to_owned()
    })?;
    expect_all(&reader, &sample(9, 100)).await
}

/// Operations on a segment that is not there say so; removing it is no error.
pub async fn unknown_segments_are_not_found<S: Storage>(storage: &mut S) -> Outcome {
    write_sealed(storage, 1, &sample(1, 10)).await?;
    for id in [0, 2, u64::MAX].map(SegmentId) {
        let expected = StorageErrorKind::NotFound;
        let appended = storage.append(id, vec![sample(0, 1)]).await;
        expect_error("appending to an unknown segment", appended, &expected)?;
        expect_error("sealing an unknown segment", storage.seal(id).await, &expected)?;
        expect_error("opening an unknown segment", storage.open(id).await, &expected)?;
        storage.remove(id).await?;
    }
    expect_list(storage, &[(1, Some(10))]).await?;
    expect_segment(storage, 1, &sample(1, 10)).await
}

/// Creating a segment that is there fails and leaves it alone, sealed or not.
pub async fn creating_twice_changes_nothing<S: Storage>(storage: &mut S) -> Outcome {
    let bytes = sample(1, 100);
    write(storage, 1, vec![bytes.clone()]).await?;
    let again = storage.create(SegmentId(1)).await;
    expect_error("creating a segment twice", again, &StorageErrorKind::Exists)?;
    expect_segment(storage, 1, &bytes).await?;
    storage.seal(SegmentId(1)).await?;
    let again = storage.create(SegmentId(1)).await;
    expect_error("creating a sealed segment", again, &StorageErrorKind::Exists)?;
    expect_segment(storage, 1, &bytes).await
}

/// Nothing is appended to a sealed segment, and sealing it twice changes nothing.
pub async fn sealed_segments_do_not_change<S: Storage>(storage: &mut S) -> Outcome {
    let bytes = sample(1, 100);
    write_sealed(storage, 1, &bytes).await?;
    let appended = storage.append(SegmentId(1), vec![sample(2, 10)]).await;
    expect_error(
        "appending to a sealed segment",
        appended,
        &StorageErrorKind::Sealed,
    )?;
    storage.seal(SegmentId(1)).await?;
    let appended = storage.append(SegmentId(1), vec![sample(2, 10)]).await;
    expect_error(
        "appending to a sealed segment",
        appended,
        &StorageErrorKind::Sealed,
    )?;
    expect_list(storage, &[(1, Some(100))]).await?;
    expect_segment(storage, 1, &bytes).await
}

/// Readers and what they read stay as they are when the segment is removed; the segment is gone.
pub async fn readers_outlive_removal<S: Storage>(storage: &mut S) -> Outcome {
    let bytes = sample(1, 20_000);
    write_sealed(storage, 1, &bytes).await?;
    write(storage, 2, vec![bytes.clone()]).await?;
    for id in [1, 2].map(SegmentId) {
        let reader = storage.open(id).await?;
        let before = reader.read(100..300).await?;
        storage.remove(id).await?;
        let opened = storage.open(id).await;
        expect_error("opening a removed segment", opened, &StorageErrorKind::NotFound)?;
        // What comes after must not come in the place of what was removed.
        write_sealed(storage, id.0 + 10, &sample(3, 20_000)).await?;
        let clone = reader.clone();
        expect_all(&reader, &bytes).await?;
        drop(reader);
        expect_all(&clone, &bytes).await?;
        drop(clone);
        ensure(bytes.get(100..300) == Some(&*before), || {
            "bytes that were read changed after their segment was removed".to_owned()
        })?;
    }
    expect_list(storage, &[(11, Some(20_000)), (12, Some(20_000))]).await
}

/// A reader knows whether anybody else holds its removed segment.
pub async fn the_last_reader_knows_that_it_is<S: Storage>(storage: &mut S) -> Outcome {
    write_sealed(storage, 1, &sample(1, 20_000)).await?;
    let reader = storage.open(SegmentId(1)).await?;
    let clone = reader.clone();
    storage.remove(SegmentId(1)).await?;
    let not_last = !reader.is_last() && !clone.is_last();
    ensure(not_last, || {
        "a reader is the last though a clone lives".to_owned()
    })?;
    drop(clone);
    let (one, other) = (reader.read(0..20_000).await?, reader.read(0..20_000).await?);
    // The same memory twice is the segment's own; a copy is the reader's.
    let is_shared = one.as_ptr() == other.as_ptr();
    ensure(!(is_shared && reader.is_last()), || {
        "a reader is the last though bytes of the segment's memory live".to_owned()
    })?;
    drop((one, other));
    let is_last = reader.is_last();
    ensure(is_last, || {
        "nobody else holds the removed segment, and its reader is not the last".to_owned()
    })
}

/// The list is exact among many segments, and each holds what is its own.
pub async fn many_segments_do_not_mix<S: Storage>(storage: &mut S) -> Outcome {
    let bytes_of = |id: u64| sample(id, usize::from(id.to_le_bytes()[0]) * 3);
    for id in 0..200 {
        storage.create(SegmentId(id)).await?;
    }
    for id in 0..200 {
        storage.append(SegmentId(id), vec![bytes_of(id)]).await?;
    }
    for id in 0..200 {
        // Every other way round, so that all segments are open at a time.
        let id = 199 - id;
        storage.append(SegmentId(id), vec![bytes_of(id)]).await?;
        storage.seal(SegmentId(id)).await?;
    }
    for id in (0..200).step_by(3) {
        storage.remove(SegmentId(id)).await?;
    }
    let left = || (0..200_u64).filter(|id| id % 3 != 0);
    let expected: Vec<_> = left().map(|id| (id, Some(bytes_of(id).len() * 2))).collect();
    expect_list(storage, &expected).await?;
    for id in left() {
        expect_segment(storage, id, &bytes_of(id).repeat(2)).await?;
    }
    Ok(())
}

/// A segment of several MiB, appended in large pieces.
pub async fn a_large_segment_is_read<S: Storage>(storage: &mut S) -> Outcome {
    let bytes = sample(4, (5 << 20) + 12_345);
    storage.create(SegmentId(1)).await?;
    for start in (0..bytes.len()).step_by(1 << 20) {
        let end = bytes.len().min(start + (1 << 20));
        storage
            .append(SegmentId(1), vec![bytes.slice(start..end)])
            .await?;
    }
    storage.seal(SegmentId(1)).await?;
    let reader = storage.open(SegmentId(1)).await?;
    expect_all(&reader, &bytes).await?;
    for start in (0..bytes.len() - 20_000).step_by(777_777) {
        let expected = bytes.get(start..start + 20_000).unwrap_or_default();
        expect_range(&reader, start as u64..start as u64 + 20_000, expected).await?;
    }
    Ok(())
}

/// Numbers use all of their 64 bits.
pub async fn numbers_are_64_bits<S: Storage>(storage: &mut S) -> Outcome {
    let ids = [
        0,
        1,
        10,
        16,
        1 << 32,
        (1 << 32) + 1,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    for id in ids {
        write_sealed(storage, id, &sample(id, 50)).await?;
    }
    expect_list(storage, &ids.map(|id| (id, Some(50)))).await?;
    for id in ids {
        expect_segment(storage, id, &sample(id, 50)).await?;
    }
    storage.remove(SegmentId(u64::MAX)).await?;
    let expected: Vec<_> = ids
        .iter()
        .map(|id| (*id, Some(50)))
        .filter(|(id, _)| *id != u64::MAX)
        .collect();
    expect_list(storage, &expected).await
}

/// What was sealed is there after a restart, what was removed is not, and what was not sealed is at least a beginning
/// of what was appended. `open` opens the storage that lives at `place`.
pub async fn segments_outlive_a_restart<P, S: Storage>(place: &P, open: impl AsyncFn(&P) -> S) -> Outcome {
    let bytes = sample(1, 100_000);
    let mut storage = open(place).await;
    write_sealed(&mut storage, 1, &bytes).await?;
    write(&mut storage, 2, vec![bytes.clone()]).await?;
    write_sealed(&mut storage, 3, &bytes).await?;
    storage.create(SegmentId(4)).await?;
    storage.seal(SegmentId(4)).await?;
    storage.remove(SegmentId(3)).await?;
    drop(storage);
    let mut storage = open(place).await;
    expect_list(&mut storage, &[(1, Some(100_000)), (2, None), (4, Some(0))]).await?;
    expect_segment(&mut storage, 1, &bytes).await?;
    let unsealed = storage.open(SegmentId(2)).await?;
    let size_bytes = unsealed.size_bytes();
    let kept = usize::try_from(size_bytes)
        .ok()
        .and_then(|size| bytes.get(..size));
    let kept = kept.unwrap_or_default();
    expect_all(&unsealed, kept).await?;
    let again = storage.create(SegmentId(1)).await;
    expect_error(
        "creating a segment of before the restart",
        again,
        &StorageErrorKind::Exists,
    )?;
    write_sealed(&mut storage, 5, &sample(5, 10)).await?;
    storage.remove(SegmentId(1)).await?;
    storage.remove(SegmentId(2)).await?;
    drop(storage);
    let mut storage = open(place).await;
    expect_list(&mut storage, &[(4, Some(0)), (5, Some(10))]).await
}

/// Calls the macro with every check of one storage.
#[doc(hidden)]
#[macro_export]
macro_rules! __storage_checks {
    ($($callback:ident)::+ ! ($($arguments:tt)*)) => {
        $($callback)::+! {
            ($($arguments)*)
            an_empty_storage_lists_nothing
            an_empty_segment_is_a_segment
            pieces_lie_in_order
            an_unsealed_segment_is_read
            ranges_are_exact
            ranges_beyond_the_end_are_errors
            unknown_segments_are_not_found
            creating_twice_changes_nothing
            sealed_segments_do_not_change
            readers_outlive_removal
            the_last_reader_knows_that_it_is
            many_segments_do_not_mix
            a_large_segment_is_read
            numbers_are_64_bits
        }
    };
}

/// A module of tests for an implementation of [`Storage`](crate::storage::Storage): its name, a function that makes the
/// place where one storage lives (`|| ()` if it needs none), and an async closure that opens the storage at a place.
/// `, restarts` behind it if a storage that is opened again has what it had; `, block_on = path` to run the futures by
/// a function of your own, such as in a runtime.
#[macro_export]
macro_rules! storage_conformance {
    ($name:ident, $place:expr, $open:expr) => {
        $crate::storage_conformance!(
            $name,
            $place,
            $open,
            block_on = $crate::storage::conformance::block_on
        );
    };
    ($name:ident, $place:expr, $open:expr, restarts) => {
        $crate::storage_conformance!(
            $name,
            $place,
            $open,
            restarts,
            block_on = $crate::storage::conformance::block_on
        );
    };
    ($name:ident, $place:expr, $open:expr, restarts, block_on = $block_on:path) => {
        mod $name {
            use super::*;

            $crate::__storage_checks!($crate::__storage_tests!(($place)($open)($block_on)));

            #[test]
            fn segments_outlive_a_restart() {
                let place = ($place)();
                let check = $crate::storage::conformance::segments_outlive_a_restart(&place, $open);
                let outcome = $block_on(check);
                assert!(outcome.is_ok(), "{outcome:?}");
            }
        }
    };
    ($name:ident, $place:expr, $open:expr, block_on = $block_on:path) => {
        mod $name {
            use super::*;

            $crate::__storage_checks!($crate::__storage_tests!(($place)($open)($block_on)));
        }
    };
}

/// One test for each check.
#[doc(hidden)]
#[macro_export]
macro_rules! __storage_tests {
    ((($place:expr) ($open:expr) ($block_on:path)) $($check:ident)*) => {
        $(
            #[test]
            fn $check() {
                let place = ($place)();
                let outcome = $block_on(async {
                    let mut storage = ($open)(&place).await;
                    $crate::storage::conformance::$check(&mut storage).await
                });
                assert!(outcome.is_ok(), "{outcome:?}");
            }
        )*
    };
}

#[cfg(test)]
mod tests;

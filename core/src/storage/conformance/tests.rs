//! That the storages of the core pass, and that storages with one defect each do not.

use super::*;
use crate::storage::faulty::{FaultRates, Faults, FaultyStorage};
use crate::storage::{MemoryStorage, Operation, StoredSegment};

crate::storage_conformance!(memory, || (), async |(): &()| MemoryStorage::new());

crate::storage_conformance!(without_faults, || (), async |(): &()| {
    FaultyStorage::new(MemoryStorage::new(), Faults::new(1, FaultRates::default()))
});

crate::storage_conformance!(delayed, || (), async |(): &()| {
    let rates = FaultRates {
        delay_per_mille: 500,
        not_now_per_mille: 500,
        ..FaultRates::default()
    };
    FaultyStorage::new(MemoryStorage::new(), Faults::new(1, rates))
});

/// What is wrong with a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    PiecesReversed,
    PiecesBeyond1024Lost,
    EmptyUnlisted,
    SizesDoubled,
    RemovalForgotten,
    UnknownRemovedWithError,
    CreateTruncates,
    SealIgnored,
    RangesClipped,
    NumbersOf32Bits,
    AlwaysLast,
    NeverLast,
    OpenWaitsForSeal,
}

struct Broken {
    inner: MemoryStorage,
    defect: Defect,
}

impl Broken {
    fn id(&self, id: SegmentId) -> SegmentId {
        if self.defect == Defect::NumbersOf32Bits {
            return SegmentId(id.0 & u64::from(u32::MAX));
        }
        id
    }
}

impl Storage for Broken {
    type Reader = BrokenReader;

    async fn list(&mut self) -> Result<Vec<StoredSegment>, StorageError> {
        let mut listed = self.inner.list().await?;
        match self.defect {
            Defect::EmptyUnlisted => listed.retain(|each| each.size_bytes > 0),
            Defect::SizesDoubled => listed.iter_mut().for_each(|each| each.size_bytes *= 2),
            _ => {}
        }
        Ok(listed)
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        let segment = self.id(segment);
        if self.defect == Defect::CreateTruncates {
            self.inner.remove(segment).await?;
        }
        self.inner.create(segment).await
    }

    async fn append(&mut self, segment: SegmentId, mut pieces: Vec<Bytes>) -> Result<(), StorageError> {
        match self.defect {
            Defect::PiecesReversed => pieces.reverse(),
            Defect::PiecesBeyond1024Lost => pieces.truncate(1024),
            _ => {}
        }
        let segment = self.id(segment);
        self.inner.append(segment, pieces).await
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        if self.defect == Defect::SealIgnored {
            return self.inner.append(segment, Vec::new()).await;
        }
        let segment = self.id(segment);
        self.inner.seal(segment).await
    }

    async fn open(&mut self, segment: SegmentId) -> Result<BrokenReader, StorageError> {
        let segment = self.id(segment);
        if self.defect == Defect::OpenWaitsForSeal {
            let appended = self.inner.append(segment, Vec::new()).await;
            if appended.is_ok() {
                return Err(StorageError {
                    operation: Operation::Open,
                    segment: Some(segment),
                    kind: StorageErrorKind::NotFound,
                });
            }
        }
        Ok(BrokenReader {
            inner: self.inner.open(segment).await?,
            defect: self.defect,
        })
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        let segment = self.id(segment);
        match self.defect {
            Defect::RemovalForgotten => return Ok(()),
            Defect::UnknownRemovedWithError => drop(self.inner.open(segment).await?),
            _ => {}
        }
        self.inner.remove(segment).await
    }
}

#[derive(Clone, Debug)]
struct BrokenReader {
    inner: Bytes,
    defect: Defect,
}

impl SegmentReader for BrokenReader {
    const MAY_CORRUPT: bool = true;

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read_now(&self, _: Range<u64>) -> Option<Result<Bytes, StorageError>> {
        None
    }

    async fn read(&self, mut range: Range<u64>) -> Result<Bytes, StorageError> {
        if self.defect == Defect::RangesClipped {
            range.end = range.end.min(self.size_bytes());
            range.start = range.start.min(range.end);
        }
        self.inner.read(range).await
    }

    fn is_last(&self) -> bool {
        match self.defect {
            Defect::AlwaysLast => true,
            Defect::NeverLast => false,
            _ => self.inner.is_last(),
        }
    }
}

/// The names of the checks that a storage with this defect does not pass.
fn failing(defect: Defect) -> Vec<&'static str> {
    let mut failing = Vec::new();
    macro_rules! run {
        (($defect:ident) $($check:ident)*) => {$(
            let mut storage = Broken { inner: MemoryStorage::new(), defect: $defect };
            if block_on($check(&mut storage)).is_err() {
                failing.push(stringify!($check));
            }
        )*};
    }
    crate::__storage_checks!(run!(defect));
    failing
}

#[test]
fn every_defect_is_caught_by_the_check_of_its_promise() {
    let caught_by = [
        (Defect::PiecesReversed, "pieces_lie_in_order"),
        (Defect::PiecesBeyond1024Lost, "pieces_lie_in_order"),
        (Defect::EmptyUnlisted, "an_empty_segment_is_a_segment"),
        (Defect::SizesDoubled, "many_segments_do_not_mix"),
        (Defect::RemovalForgotten, "readers_outlive_removal"),
        (Defect::UnknownRemovedWithError, "unknown_segments_are_not_found"),
        (Defect::CreateTruncates, "creating_twice_changes_nothing"),
        (Defect::SealIgnored, "sealed_segments_do_not_change"),
        (Defect::RangesClipped, "ranges_beyond_the_end_are_errors"),
        (Defect::NumbersOf32Bits, "numbers_are_64_bits"),
        (Defect::AlwaysLast, "the_last_reader_knows_that_it_is"),
        (Defect::NeverLast, "the_last_reader_knows_that_it_is"),
        (Defect::OpenWaitsForSeal, "an_unsealed_segment_is_read"),
    ];
    for (defect, check) in caught_by {
        let failing = failing(defect);
        assert!(failing.contains(&check), "{defect:?} is caught by {failing:?}");
    }
}

#[test]
fn segments_that_do_not_outlive_a_restart_are_found_out() {
    let open = async |(): &()| MemoryStorage::new();
    assert!(block_on(segments_outlive_a_restart(&(), open)).is_err());
}

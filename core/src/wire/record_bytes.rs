//! The `Records` field of a fetch response: whole batches, as slices of whatever holds them.

use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};

/// Record data as slices in order. A response from a broker has one slice; a hit has one for each cached
/// batch, and joining them would cost a copy that a vectored write saves.
#[derive(Clone, Debug, Default)]
pub struct RecordBytes {
    first: Bytes,
    rest: Vec<Bytes>,
}

impl RecordBytes {
    /// No records. Allocates nothing.
    pub const fn empty() -> Self {
        Self {
            first: Bytes::new(),
            rest: Vec::new(),
        }
    }

    /// Appends a slice.
    pub fn push(&mut self, slice: Bytes) {
        if self.first.is_empty() {
            self.first = slice;
        } else if !slice.is_empty() {
            self.rest.push(slice);
        }
    }

    /// Bytes in all.
    pub fn size_bytes(&self) -> usize {
        self.slices().map(Bytes::len).sum()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The slices in order; none of them is empty.
    pub fn slices(&self) -> impl Iterator<Item = &Bytes> {
        (!self.first.is_empty())
            .then_some(&self.first)
            .into_iter()
            .chain(&self.rest)
    }

    /// Everything in one slice; copies if there are several.
    pub fn to_bytes(&self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.clone();
        }
        let mut joined = BytesMut::with_capacity(self.size_bytes());
        for slice in self.slices() {
            joined.put_slice(slice);
        }
        joined.freeze()
    }
}

impl From<Bytes> for RecordBytes {
    fn from(bytes: Bytes) -> Self {
        Self {
            first: bytes,
            rest: Vec::new(),
        }
    }
}

/// Equal when the bytes are, however they are cut into slices.
impl PartialEq for RecordBytes {
    fn eq(&self, other: &Self) -> bool {
        self.size_bytes() == other.size_bytes()
            && self
                .slices()
                .flat_map(|slice| slice.iter())
                .eq(other.slices().flat_map(|slice| slice.iter()))
    }
}

impl Eq for RecordBytes {}

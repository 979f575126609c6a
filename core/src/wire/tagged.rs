//! Tagged fields that are not known here: kept as they came, so that what is passed on is what was sent.

use alloc::vec::Vec;

use bytes::Bytes;

/// More unknown tags than this in one structure are refused: each takes two bytes on the wire and some
/// forty in memory.
pub(super) const MAX_UNKNOWN_TAGS: usize = 64;

/// One tagged field (KIP-482).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedField {
    /// Its tag.
    pub tag: u32,
    /// Its value, undecoded.
    pub data: Bytes,
}

/// The unknown tagged fields of one structure, in ascending order of their tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaggedFields(Vec<TaggedField>);

impl TaggedFields {
    /// The fields in ascending order of their tags.
    pub fn as_slice(&self) -> &[TaggedField] {
        &self.0
    }

    /// False if there is no more room.
    pub(super) fn push(&mut self, field: TaggedField) -> bool {
        let room = self.0.len() < MAX_UNKNOWN_TAGS;
        if room {
            self.0.push(field);
        }
        room
    }
}

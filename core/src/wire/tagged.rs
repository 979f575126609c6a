//! Tagged fields that are not known here: kept as they came, so that what is passed on is what was sent.

use alloc::vec::Vec;

use bytes::Bytes;

/// More unknown tags than this in one structure are refused: each takes two bytes on the wire and some
/// forty in memory.
pub(super) const MAX_UNKNOWN_TAGS: usize = 64;

/// One tagged field (KIP-482).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaggedField {
    /// Its tag.
    pub tag: u32,
    /// Its value, undecoded.
    pub data: Bytes,
}

/// The unknown tagged fields of one structure, in ascending order of their tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaggedFields(Vec<TaggedField>);

impl TaggedFields {
    /// The fields in ascending order of their tags.
    pub fn as_slice(&self) -> &[TaggedField] {
        &self.0
    }

    /// Appends a field, of which `left` are said to come, this one included. False if there is no more room.
    pub(super) fn push(&mut self, field: TaggedField, left: u32) -> bool {
        let room = self.0.len() < MAX_UNKNOWN_TAGS;
        if room {
            if self.0.is_empty() {
                // Room for what comes and no more: doubling took up to 80 bytes for each on the wire.
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                self.0.reserve_exact(left.min(MAX_UNKNOWN_TAGS));
            }
            self.0.push(field);
        }
        room
    }
}

//! Tagged fields that are not known here: kept as they came, so that what is passed on is what was sent.

use alloc::boxed::Box;
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
///
/// There are hardly ever any, and every structure has this, so it is a pointer and not the three words of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::box_collection,
    reason = "small where it is empty, which it mostly is"
)]
pub struct TaggedFields(Option<Box<Vec<TaggedField>>>);

impl TaggedFields {
    /// The fields in ascending order of their tags.
    pub fn as_slice(&self) -> &[TaggedField] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Appends a field, of which `left` are said to come, this one included. False if there is no more room.
    pub(super) fn push(&mut self, field: TaggedField, left: u32) -> bool {
        let fields = self.0.get_or_insert_with(|| {
            // Room for what comes and no more: doubling took up to 80 bytes for each on the wire.
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            Box::new(Vec::with_capacity(left.min(MAX_UNKNOWN_TAGS)))
        });
        let room = fields.len() < MAX_UNKNOWN_TAGS;
        if room {
            fields.push(field);
        }
        room
    }
}

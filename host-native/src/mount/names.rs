//! Which files of a mount point are its own. Whatever is named otherwise is left alone.

use std::ffi::OsStr;

use kachet_core::storage::SegmentId;

/// Says what the folder is.
pub(super) const SUPERBLOCK: &str = "kachet.superblock";
/// Is locked by whoever has the mount point open.
pub(super) const LOCK: &str = "kachet.lock";
/// What is written behind another name and then renamed; a crash leaves it.
const TEMPORARY: &str = ".tmp";
const SEGMENT: &str = ".segment";
const NOTE: &str = ".note";
const NOTE_NAME_BYTES_MAX: usize = 32;
const SEGMENT_DIGITS: usize = 16;

/// What a file in the folder is, going by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Superblock,
    Lock,
    Segment(SegmentId),
    Note,
    /// Of a superblock or a note that was being written.
    Temporary,
}

impl Named {
    /// `None` for what is not ours.
    pub(super) fn parse(name: &OsStr) -> Option<Self> {
        let name = name.to_str()?;
        match name {
            SUPERBLOCK => return Some(Self::Superblock),
            LOCK => return Some(Self::Lock),
            _ => {}
        }
        if let Some(finished) = name.strip_suffix(TEMPORARY) {
            let is_ours = finished == SUPERBLOCK || note_of(finished).is_some();
            return is_ours.then_some(Self::Temporary);
        }
        if let Some(digits) = name.strip_suffix(SEGMENT) {
            return segment_of(digits).map(Self::Segment);
        }
        note_of(name).map(|_| Self::Note)
    }
}

/// Only as it is written: sixteen digits, none of them large, and no sign.
fn segment_of(digits: &str) -> Option<SegmentId> {
    let is_strict = digits.len() == SEGMENT_DIGITS
        && digits
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if !is_strict {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(SegmentId)
}

fn note_of(file: &str) -> Option<&str> {
    file.strip_suffix(NOTE).filter(|name| is_note_name(name))
}

/// The file of a segment.
pub(super) fn segment_file(segment: SegmentId) -> String {
    format!("{segment}{SEGMENT}")
}

/// The file of a note; `None` if the name is not allowed.
pub(super) fn note_file(name: &str) -> Option<String> {
    is_note_name(name).then(|| format!("{name}{NOTE}"))
}

fn is_note_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte == b'-' || byte.is_ascii_lowercase();
    (1..=NOTE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed)
}

/// The name behind which a file is written.
pub(super) fn temporary_file(file: &str) -> String {
    format!("{file}{TEMPORARY}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Option<Named> {
        Named::parse(OsStr::new(name))
    }

    #[test]
    fn a_segment_has_the_name_that_its_number_is_written_as_and_no_other() {
        for id in [0, 1, 0xabc, u64::MAX].map(SegmentId) {
            assert_eq!(parse(&segment_file(id)), Some(Named::Segment(id)));
        }
        for name in [
            "1.segment",
            "00000000000000001.segment",
            "000000000000000A.segment",
            "+00000000000000a.segment",
            "0000000000000001.segment.tmp",
            "0000000000000001.SEGMENT",
            "0000000000000001",
            " 000000000000001.segment",
            ".segment",
            "",
        ] {
            assert_eq!(parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn names_of_notes_are_small_letters_and_hyphens() {
        let longest = "a".repeat(32);
        for name in ["catalogue", "a", "a-b", &longest] {
            let file = note_file(name).unwrap();
            assert_eq!(parse(&file), Some(Named::Note));
            assert_eq!(parse(&temporary_file(&file)), Some(Named::Temporary));
        }
        let too_long = "a".repeat(33);
        for name in ["", "A", "a.b", "../a", "a/b", "a1", "ä", &too_long] {
            assert_eq!(note_file(name), None, "{name:?}");
            assert_eq!(parse(&format!("{name}.note")), None, "{name:?}");
        }
    }

    #[test]
    fn temporary_files_of_others_are_not_ours() {
        assert_eq!(parse(&temporary_file(SUPERBLOCK)), Some(Named::Temporary));
        for name in [".tmp", "a.tmp", "kachet.lock.tmp", "kachet.superblock.tmp.tmp"] {
            assert_eq!(parse(name), None, "{name:?}");
        }
    }
}

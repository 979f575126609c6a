//! Files mapped into memory: with [`bus_error`] the only unsafe code of this crate.
#![allow(unsafe_code)]

mod bus_error;

use core::ops::Range;
use std::fs::File;
use std::io;

use memmap2::{Advice, Mmap, MmapOptions};

use self::bus_error::Watch;
use super::blocking::drop_off_the_runtime;

/// How many pages are asked after in one call.
const PAGES_AT_ONCE: usize = 256;

/// A file mapped into memory, to read. If the file is cut while it is mapped, what is missing reads as zeros, and the
/// mapping is damaged from then on.
#[derive(Debug)]
pub(super) struct Mapping {
    /// `None` only while it is being dropped.
    map: Option<Mmap>,
    watch: Watch,
}

impl Mapping {
    /// Maps the first `length` bytes, at least one.
    pub(super) fn new(file: &File, length: usize) -> io::Result<Self> {
        // SAFETY: Mapped memory must not change while somebody reads it. This process writes to a segment's file only
        // before it is mapped, cuts it never after, and the lock keeps other processes of ours away. No lock keeps
        // another program of the same user from the file; that is the caveat of every mapping, and why this mode is
        // not for folders that others write to. What then changes are plain bytes, of which every value is valid, and
        // no index or length that was read from them is used without a check against the slice. If the file is cut,
        // `bus_error` puts zeros where bytes are missing, so that every address of the slice can be read.
        let map = unsafe { MmapOptions::new().len(length).map(file) }?;
        let watch = Watch::over(map.as_ptr().addr(), map.len())?;
        Ok(Self {
            map: Some(map),
            watch,
        })
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Whether something of it was missing when it was read.
    pub(super) fn is_damaged(&self) -> bool {
        self.watch.is_damaged()
    }

    /// Whether all of a range lies in memory at this moment, so that nobody waits who reads it. `false` if that cannot
    /// be told.
    pub(super) fn is_resident(&self, range: Range<usize>) -> bool {
        let Some(bytes) = self.bytes().get(range) else {
            return false;
        };
        let page_bytes = rustix::param::page_size();
        let (begins, ends) = (bytes.as_ptr().addr(), bytes.as_ptr().addr() + bytes.len());
        let mut at = begins - begins % page_bytes;
        let mut states = [0_u8; PAGES_AT_ONCE];
        while at < ends {
            let length = (ends - at).min(PAGES_AT_ONCE * page_bytes);
            let pages = length.div_ceil(page_bytes);
            let address = bytes.as_ptr().with_addr(at).cast_mut().cast();
            // SAFETY: `at` is aligned to a page, and up to the end of the last page all is part of the mapping, which
            // begins at a page and ends with one. One byte is written for each page, `pages` in all, which is at most
            // what `states` has. Nothing is written to the mapping.
            let told = unsafe { libc::mincore(address, length, states.as_mut_ptr().cast()) };
            let is_resident = |states: &[u8]| states.iter().all(|state| state & 1 == 1);
            if told != 0 || !states.get(..pages).is_some_and(is_resident) {
                return false;
            }
            at += length;
        }
        true
    }

    /// Has a range come into memory in as few reads as may be. What comes of it the read itself will show.
    pub(super) fn prefetch(&self, range: Range<usize>) {
        if let Some(map) = &self.map {
            let length = range.end.saturating_sub(range.start);
            let _ = map.advise_range(Advice::WillNeed, range.start, length);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // From here on nobody reads it, so that its place can be forgotten before it is free for another.
        self.watch.end();
        drop_off_the_runtime(self.map.take());
    }
}

#[cfg(test)]
mod tests;

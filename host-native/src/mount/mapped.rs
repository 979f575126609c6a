//! A sealed segment as a part of memory. Reads are slices of the mapping: no copy, and no allocation for a hit.

#[cfg(target_os = "linux")]
pub(super) use self::linux::MappedSegment;
#[cfg(not(target_os = "linux"))]
pub(super) use self::none::MappedSegment;

#[cfg(target_os = "linux")]
mod linux {
    use core::ops::Range;
    use std::fs::File;
    use std::io;
    use std::sync::{Arc, PoisonError, RwLock};

    use bytes::Bytes;

    use crate::mount::mapping::Mapping;

    #[derive(Debug)]
    pub(in crate::mount) struct MappedSegment {
        /// Held here once, and once by what the slices that were handed out share.
        mapping: Arc<Mapping>,
        /// All of it, of which slices are handed out; `None` until one is, and after the count of them was looked at.
        whole: RwLock<Option<Bytes>>,
    }

    struct Owner(Arc<Mapping>);

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.bytes()
        }
    }

    impl MappedSegment {
        /// `None` if the file cannot be mapped, such as an empty one, or one too many.
        pub(in crate::mount) fn new(file: &File, size_bytes: u64) -> Option<Self> {
            let length = usize::try_from(size_bytes).ok().filter(|length| *length > 0)?;
            let mapping = match Mapping::new(file, length) {
                Ok(mapping) => mapping,
                Err(error) => {
                    tracing::debug!(%error, "a segment cannot be mapped; it is read by calls");
                    return None;
                }
            };
            Some(Self {
                mapping: Arc::new(mapping),
                whole: RwLock::new(None),
            })
        }

        fn check(&self) -> io::Result<()> {
            if self.mapping.is_damaged() {
                let words = "the file was cut, or its medium failed, while it was mapped";
                return Err(io::Error::other(words));
            }
            Ok(())
        }

        pub(in crate::mount) fn read_now(&self, range: Range<u64>) -> Option<io::Result<Bytes>> {
            let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
            if let Err(error) = self.check() {
                return Some(Err(error));
            }
            // What is not in memory would have the thread wait where the bytes are looked at.
            self.mapping
                .is_resident(range.clone())
                .then(|| Ok(self.slice(range)))
        }

        fn slice(&self, range: Range<usize>) -> Bytes {
            let whole = self.whole.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(whole) = &*whole {
                return whole.slice(range);
            }
            drop(whole);
            let mut whole = self.whole.write().unwrap_or_else(PoisonError::into_inner);
            let whole = whole.get_or_insert_with(|| Bytes::from_owner(Owner(Arc::clone(&self.mapping))));
            whole.slice(range)
        }

        /// A copy, so that what is missing is waited for here and not where the bytes are used.
        pub(in crate::mount) fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
            self.check()?;
            let start = usize::try_from(range.start).map_err(io::Error::other)?;
            let end = usize::try_from(range.end).map_err(io::Error::other)?;
            self.mapping.prefetch(start..end);
            let bytes = self.mapping.bytes().get(start..end).unwrap_or_default();
            let mut copy = Vec::new();
            let reserved = copy.try_reserve_exact(bytes.len());
            reserved.map_err(|_| io::ErrorKind::OutOfMemory)?;
            copy.extend_from_slice(bytes);
            self.check()?;
            Ok(copy.into())
        }

        /// Whether no slice is held any more.
        pub(in crate::mount) fn is_unshared(&self) -> bool {
            // The slices do not tell how many they are, but with the last of them their owner goes.
            let mut whole = self.whole.write().unwrap_or_else(PoisonError::into_inner);
            *whole = None;
            Arc::strong_count(&self.mapping) == 1
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod none {
    use core::convert::Infallible;
    use core::ops::Range;
    use std::fs::File;
    use std::io;

    use bytes::Bytes;

    /// Nothing is mapped where what becomes of a file that is cut was not tested.
    #[derive(Debug)]
    pub(in crate::mount) struct MappedSegment(Infallible);

    impl MappedSegment {
        pub(in crate::mount) fn new(_: &File, _: u64) -> Option<Self> {
            None
        }

        pub(in crate::mount) fn read_now(&self, _: Range<u64>) -> Option<io::Result<Bytes>> {
            match self.0 {}
        }

        pub(in crate::mount) fn read(&self, _: Range<u64>) -> io::Result<Bytes> {
            match self.0 {}
        }

        pub(in crate::mount) fn is_unshared(&self) -> bool {
            match self.0 {}
        }
    }
}

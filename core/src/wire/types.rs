//! Small types that requests and responses share.

use core::{fmt, str};

use bytes::Bytes;

/// A topic's id: a UUID that Kafka gives a topic when it is created (KIP-516). A topic that is deleted and
/// created again under the same name has another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// What stands where no id is known.
    pub const ZERO: Self = Self([0; 16]);

    /// Whether it stands for "no id".
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A string from the wire that shares the bytes it came in. At most `i16::MAX` bytes, which is what the
/// versions before the flexible ones can carry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WireStr(Bytes);

impl WireStr {
    /// The longest string that every version can carry.
    pub const LIMIT_BYTES: usize = i16::MAX as usize;

    /// `None` if the bytes are not UTF-8 or more than [`Self::LIMIT_BYTES`].
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        (bytes.len() <= Self::LIMIT_BYTES && str::from_utf8(&bytes).is_ok()).then_some(Self(bytes))
    }

    /// Copies a string; `None` if it is longer than [`Self::LIMIT_BYTES`].
    pub fn copy_from(string: &str) -> Option<Self> {
        Self::from_utf8(Bytes::copy_from_slice(string.as_bytes()))
    }

    /// A string that lives as long as the program; one that is longer than [`Self::LIMIT_BYTES`] becomes empty.
    pub fn from_static(string: &'static str) -> Self {
        Self::from_utf8(Bytes::from_static(string.as_bytes())).unwrap_or_default()
    }

    /// The same string in an allocation of its own, so that it does not keep a whole message alive (H26).
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// The bytes, which are UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The string.
    pub fn as_str(&self) -> &str {
        // Proven when it was made; the check is repeated because this crate has no unsafe code.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for WireStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for WireStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// How a request names a topic: by name up to Fetch v12, by id from v13.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicRef {
    /// By name.
    Name(WireStr),
    /// By id.
    Id(TopicId),
}

impl fmt::Display for TopicRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => fmt::Display::fmt(name, f),
            Self::Id(id) => fmt::Display::fmt(id, f),
        }
    }
}

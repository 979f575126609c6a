//! Walks over a response and puts other addresses in place of those of brokers. Whatever is no address stays as it came,
//! to the byte, tagged fields that are not known here included; no count and no length is trusted, and nothing is
//! allocated by one.

use bytes::{BufMut, Bytes, BytesMut};

use super::brokers::BrokersError;

/// Why a response cannot be passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RewriteError {
    /// It ends too early, or a length in it is none.
    #[error("a response of the broker cannot be read where its addresses stand")]
    Malformed,
    /// There is no port for a broker that it names.
    #[error(transparent)]
    Brokers(#[from] BrokersError),
}

/// What clients are told of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advertised {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Gives what clients are told in place of a node's own address.
pub(super) trait Advertise {
    fn advertise(&self, node_id: i32, host: &str, port: i32) -> Result<Advertised, RewriteError>;
}

pub(super) type Walked<T = ()> = Result<T, RewriteError>;

/// A response as it is walked over.
pub(super) struct Splice<'a> {
    input: &'a [u8],
    at: usize,
    /// Up to here the input is in the output already.
    copied: usize,
    out: BytesMut,
    flexible: bool,
    advertise: &'a dyn Advertise,
}

impl<'a> Splice<'a> {
    /// Over `input`, whose lengths are compact and whose structures end in tagged fields (KIP-482) if it is `flexible`.
    pub(super) fn new(input: &'a [u8], flexible: bool, advertise: &'a dyn Advertise) -> Self {
        Self {
            input,
            at: 0,
            copied: 0,
            out: BytesMut::with_capacity(input.len() + 64),
            flexible,
            advertise,
        }
    }

    /// The whole response, what was not walked over included.
    pub(super) fn finish(mut self) -> Bytes {
        self.out.put_slice(&self.input[self.copied..]);
        self.out.freeze()
    }

    pub(super) fn take(&mut self, length: usize) -> Walked<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or(RewriteError::Malformed)?;
        let taken = self.input.get(self.at..end).ok_or(RewriteError::Malformed)?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn skip(&mut self, length: usize) -> Walked {
        self.take(length).map(|_| ())
    }

    pub(super) fn i16(&mut self) -> Walked<i16> {
        let bytes = self.take(2)?.try_into().map_err(|_| RewriteError::Malformed)?;
        Ok(i16::from_be_bytes(bytes))
    }

    fn i32(&mut self) -> Walked<i32> {
        let bytes = self.take(4)?.try_into().map_err(|_| RewriteError::Malformed)?;
        Ok(i32::from_be_bytes(bytes))
    }

    fn uvarint(&mut self) -> Walked<u32> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = *self.take(1)?.first().ok_or(RewriteError::Malformed)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| RewriteError::Malformed);
            }
        }
        Err(RewriteError::Malformed)
    }

    fn compact_length(&mut self) -> Walked<usize> {
        Ok(usize::try_from(self.uvarint()?.saturating_sub(1)).unwrap_or(usize::MAX))
    }

    /// A string; null is empty.
    pub(super) fn string(&mut self) -> Walked<&'a [u8]> {
        let length = if self.flexible {
            self.compact_length()?
        } else {
            usize::try_from(self.i16()?.max(0)).unwrap_or(0)
        };
        self.take(length)
    }

    /// Bytes; null is empty. Only messages that are flexible hold any here.
    pub(super) fn compact_bytes(&mut self) -> Walked {
        let length = self.compact_length()?;
        self.skip(length)
    }

    /// How many elements an array claims to have.
    pub(super) fn count(&mut self) -> Walked<usize> {
        if self.flexible {
            self.compact_length()
        } else {
            Ok(usize::try_from(self.i32()?.max(0)).unwrap_or(0))
        }
    }

    /// An array of structures, each of which takes a byte at least, so that the input bounds the loop.
    pub(super) fn array(&mut self, mut element: impl FnMut(&mut Self) -> Walked) -> Walked {
        for _ in 0..self.count()? {
            let before = self.at;
            element(self)?;
            self.tagged_fields()?;
            if self.at == before {
                return Err(RewriteError::Malformed);
            }
        }
        Ok(())
    }

    pub(super) fn tagged_fields(&mut self) -> Walked {
        self.tagged_fields_with(|_, _| Ok(()))
    }

    /// Tagged fields; `known` is given a walk over the contents of the field with tag 0.
    pub(super) fn tagged_fields_with(&mut self, known: impl Fn(&mut Splice<'a>, u32) -> Walked) -> Walked {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let size_at = self.at;
            let length = usize::try_from(self.uvarint()?).unwrap_or(usize::MAX);
            let contents = self.take(length)?;
            let mut inner = Splice::new(contents, true, self.advertise);
            known(&mut inner, tag)?;
            if inner.copied > 0 {
                let contents = inner.finish();
                self.copy_to(size_at);
                let length = u32::try_from(contents.len()).map_err(|_| RewriteError::Malformed)?;
                put_uvarint(&mut self.out, length);
                self.out.put_slice(&contents);
                self.copied = self.at;
            }
        }
        Ok(())
    }

    fn copy_to(&mut self, end: usize) {
        self.out.put_slice(&self.input[self.copied..end]);
        self.copied = end;
    }

    /// A node's id, host and port, one after the other. A node that is none (an id below 0, or no host) stays as it is.
    pub(super) fn endpoint(&mut self) -> Walked {
        let node_id = self.i32()?;
        let host_at = self.at;
        let host = self.string()?;
        let port = self.i32()?;
        if node_id < 0 || host.is_empty() {
            return Ok(());
        }
        let host = core::str::from_utf8(host).map_err(|_| RewriteError::Malformed)?;
        let told = self.advertise.advertise(node_id, host, port)?;
        self.copy_to(host_at);
        let length = told.host.len();
        if self.flexible {
            let length = u32::try_from(length + 1).map_err(|_| RewriteError::Malformed)?;
            put_uvarint(&mut self.out, length);
        } else {
            let length = i16::try_from(length).map_err(|_| RewriteError::Malformed)?;
            self.out.put_i16(length);
        }
        self.out.put_slice(told.host.as_bytes());
        self.out.put_i32(told.port.into());
        self.copied = self.at;
        Ok(())
    }

    /// Puts an array of other elements, each already encoded, in place of the one that begins at `from` and ends here.
    pub(super) fn replace_array(&mut self, from: usize, count: usize, elements: &[u8]) -> Walked {
        self.copy_to(from);
        if self.flexible {
            let count = u32::try_from(count + 1).map_err(|_| RewriteError::Malformed)?;
            put_uvarint(&mut self.out, count);
        } else {
            let count = i32::try_from(count).map_err(|_| RewriteError::Malformed)?;
            self.out.put_i32(count);
        }
        self.out.put_slice(elements);
        self.copied = self.at;
        Ok(())
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// What was walked over since `from`.
    pub(super) fn since(&self, from: usize) -> &'a [u8] {
        &self.input[from..self.at]
    }
}

pub(super) fn put_uvarint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

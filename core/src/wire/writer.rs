//! Writes Kafka's primitive types, and hands record data on without copying it.

use alloc::vec::Vec;

use bytes::{BufMut, Bytes};

use super::record_bytes::RecordBytes;
use super::tagged::TaggedFields;
use super::types::{TopicId, WireStr};

/// An encoded message as the slices that make it up, in order: fields are written here, record data is
/// shared with whoever holds it. Meant for vectored writes.
///
/// All fields stand in one buffer, one behind the other, whatever stands between them: to cut it up where record data begins
/// would count one more share of it each time.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    fields: Vec<u8>,
    /// Record data, with the length of the fields that stand in front of it.
    records: Vec<(usize, Bytes)>,
}

impl Chunks {
    /// Nothing yet; allocates nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes everything out, so that the next message is written where this one was, which allocates nothing.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.records.clear();
    }

    /// Bytes in all.
    pub fn size_bytes(&self) -> usize {
        let records = self.records.iter().map(|(_, records)| records.len());
        records.sum::<usize>() + self.fields.len()
    }

    /// The slices in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        let records = self.records.iter().map(|(at, records)| (*at, records.as_ref()));
        let end = (self.fields.len(), &[][..]);
        let in_order = records.chain([end]).flat_map(move |(at, records)| {
            let fields = self.fields.get(from..at).unwrap_or_default();
            from = at;
            [fields, records]
        });
        in_order.filter(|slice| !slice.is_empty())
    }

    /// The slices in order, as shares that outlive this.
    pub fn into_slices(self) -> Vec<Bytes> {
        let fields = Bytes::from(self.fields);
        let mut slices = Vec::with_capacity(2 * self.records.len() + 1);
        let mut from = 0;
        for (at, records) in self.records {
            if from < at {
                slices.push(fields.slice(from..at));
            }
            slices.push(records);
            from = at;
        }
        if from < fields.len() {
            slices.push(fields.slice(from..));
        }
        slices
    }

    /// Everything as one allocation; copies if there is record data.
    pub fn into_bytes(self) -> Bytes {
        if self.records.is_empty() {
            return self.fields.into();
        }
        let mut joined = Vec::with_capacity(self.size_bytes());
        for slice in self.slices() {
            joined.extend_from_slice(slice);
        }
        joined.into()
    }
}

/// A tag that is known here, whether it is present, and what writes its value.
pub(super) type KnownTag<'a> = (u32, bool, &'a dyn Fn(&mut Writer<'_>));

/// What most messages fit into, beside their records.
const ROOM_BYTES: usize = 256;

/// Writes into [`Chunks`].
pub(super) struct Writer<'a> {
    out: &'a mut Chunks,
    flexible: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Chunks, flexible: bool) -> Self {
        out.fields.reserve(ROOM_BYTES);
        Self { out, flexible }
    }

    pub(super) fn i8(&mut self, value: i8) {
        self.out.fields.put_i8(value);
    }

    pub(super) fn i16(&mut self, value: i16) {
        self.out.fields.put_i16(value);
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.out.fields.put_i32(value);
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.out.fields.put_i64(value);
    }

    pub(super) fn topic_id(&mut self, id: TopicId) {
        self.out.fields.put_slice(&id.0);
    }

    #[inline]
    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.fields.put_u8(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.out.fields.put_u8(value.to_le_bytes()[0]);
    }

    /// A length or count; `None` stands for null.
    ///
    /// Nothing that fits a Kafka frame (an `i32` of bytes) is too long for its prefix except a string of more
    /// than 32 KiB before the flexible versions; [`WireStr`] cannot hold one.
    fn length(&mut self, length: Option<usize>, short: bool) {
        let length = length.map_or(-1, |length| i64::try_from(length).unwrap_or(i64::MAX));
        if self.flexible {
            self.uvarint(u32::try_from(length + 1).unwrap_or(u32::MAX));
        } else if short {
            self.i16(i16::try_from(length).unwrap_or(i16::MAX));
        } else {
            self.i32(i32::try_from(length).unwrap_or(i32::MAX));
        }
    }

    pub(super) fn string(&mut self, string: &WireStr) {
        self.nullable_string(Some(string));
    }

    pub(super) fn nullable_string(&mut self, string: Option<&WireStr>) {
        self.length(string.map(|s| s.as_bytes().len()), true);
        if let Some(string) = string {
            self.out.fields.put_slice(string.as_bytes());
        }
    }

    pub(super) fn records(&mut self, records: Option<&RecordBytes>) {
        self.length(records.map(RecordBytes::size_bytes), false);
        let at = self.out.fields.len();
        for slice in records.into_iter().flat_map(RecordBytes::slices) {
            self.out.records.push((at, slice.clone()));
        }
    }

    pub(super) fn count(&mut self, count: Option<usize>) {
        self.length(count, false);
    }

    pub(super) fn vec<T>(&mut self, elements: &[T], mut element: impl FnMut(&mut Self, &T)) {
        self.count(Some(elements.len()));
        for each in elements {
            element(self, each);
        }
    }

    /// The tagged fields of a structure: those known here and those that were kept as they came, in ascending
    /// order together.
    #[inline]
    pub(super) fn tagged(&mut self, known: &[KnownTag<'_>], unknown: &TaggedFields) {
        if !self.flexible {
            return;
        }
        let written = known.iter().filter(|(_, present, _)| *present).count();
        if written == 0 && unknown.as_slice().is_empty() {
            return self.uvarint(0);
        }
        self.some_tagged(known, written, unknown);
    }

    fn some_tagged(&mut self, known: &[KnownTag<'_>], written: usize, unknown: &TaggedFields) {
        self.uvarint(u32::try_from(written + unknown.as_slice().len()).unwrap_or(u32::MAX));
        let mut kept = unknown.as_slice().iter().peekable();
        for (tag, present, value) in known {
            while let Some(field) = kept.next_if(|field| field.tag < *tag) {
                self.tag(field.tag, &field.data);
            }
            if *present {
                let mut data = Chunks::new();
                value(&mut Writer::new(&mut data, true));
                self.tag(*tag, &data.into_bytes());
            }
        }
        for field in kept {
            self.tag(field.tag, &field.data);
        }
    }

    fn tag(&mut self, tag: u32, data: &[u8]) {
        self.uvarint(tag);
        self.uvarint(u32::try_from(data.len()).unwrap_or(u32::MAX));
        self.out.fields.put_slice(data);
    }
}

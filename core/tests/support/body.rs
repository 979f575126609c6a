//! Writes message bodies field by field, right or wrong.

/// A body as far as it goes.
#[derive(Clone, Default)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Bytes as they are.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// As many zeros; most fields are happy with them.
    pub(crate) fn zeros(self, count: usize) -> Self {
        self.bytes(&vec![0; count])
    }

    pub(crate) fn uvarint(mut self, mut value: u32) -> Self {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
        self
    }

    /// A section of tagged fields.
    pub(crate) fn tags<'a>(
        self,
        fields: impl IntoIterator<Item = (u32, &'a [u8]), IntoIter: ExactSizeIterator>,
    ) -> Self {
        let fields = fields.into_iter();
        let section = self.uvarint(u32::try_from(fields.len()).unwrap());
        fields.fold(section, |body, (tag, data)| {
            body.uvarint(tag)
                .uvarint(u32::try_from(data.len()).unwrap())
                .bytes(data)
        })
    }
}

/// What stands before the topics of a request, all of it zero.
pub(crate) fn request_head(version: i16) -> Body {
    let replica_id = if version <= 14 { 4 } else { 0 };
    let session = if version >= 7 { 8 } else { 0 };
    Body::new().zeros(replica_id + 13 + session)
}

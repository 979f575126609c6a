//! Places in messages, with everything before them well-formed: where damage is put in.

use super::body::{Body, request_head};

/// A place at which a field begins.
pub(crate) struct Place {
    /// The name by which errors call the field.
    pub(crate) field: &'static str,
    pub(crate) version: i16,
    /// Whether it lies in a response.
    pub(crate) response: bool,
    before: Body,
    /// What lies before it in the tagged field that holds it, if one does; the length of that field then comes
    /// between `before` and this.
    inside: Option<Body>,
}

impl Place {
    fn request(field: &'static str, version: i16, tail: &[u8]) -> Self {
        Self {
            field,
            version,
            response: false,
            before: request_head(version).bytes(tail),
            inside: None,
        }
    }

    fn response(field: &'static str, version: i16, tail: &[u8]) -> Self {
        let head_bytes = if version >= 7 { 10 } else { 4 };
        Self {
            field,
            version,
            response: true,
            before: Body::new().zeros(head_bytes).bytes(tail),
            inside: None,
        }
    }

    /// The first partition of the first topic of a response, with no topic name and all fields zero, up to its
    /// aborted transactions.
    fn aborted(version: i16) -> Body {
        let watermarks = if version >= 5 { 24 } else { 16 };
        let fields = Body::new().zeros(6 + watermarks).0;
        if version >= 12 {
            return Body::new().bytes(&[2, 1, 2]).bytes(&fields);
        }
        Body::new().bytes(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 1]).bytes(&fields)
    }

    /// The same up to its records; without a topic name there is a topic id from v13 on.
    pub(crate) fn records(version: i16) -> Self {
        let aborted = Self::aborted(version).0;
        let before = if version >= 13 {
            // The empty name gives way to an id.
            Body::new().bytes(&[2]).zeros(16).bytes(&aborted[2..])
        } else {
            Body::new().bytes(&aborted)
        };
        let empty = if version >= 12 { [1].as_slice() } else { &[0; 4] };
        let preferred = if version >= 11 { 4 } else { 0 };
        Self::response("Records", version, &before.bytes(empty).zeros(preferred).0)
    }

    /// The same place inside a tagged field.
    fn inside(mut self, inside: &[u8]) -> Self {
        self.inside = Some(Body::new().bytes(inside));
        self
    }

    pub(crate) fn is_flexible(&self) -> bool {
        self.version >= 12
    }

    fn before(&self, tail: &[u8]) -> Body {
        let Some(inside) = &self.inside else {
            return self.before.clone();
        };
        let length = u32::try_from(inside.0.len() + tail.len()).unwrap();
        self.before.clone().uvarint(length).bytes(&inside.0)
    }

    /// The message up to here, then `tail`.
    pub(crate) fn input(&self, tail: &[u8]) -> Vec<u8> {
        self.before(tail).bytes(tail).0
    }

    /// Where `tail` begins.
    pub(crate) fn at_byte(&self, tail: &[u8]) -> usize {
        self.before(tail).0.len()
    }
}

/// Every array, with the bytes that an element takes at least.
pub(crate) fn arrays() -> Vec<(Place, usize)> {
    let aborted = |version| Place::response("AbortedTransactions", version, &Place::aborted(version).0);
    let id = [&[2], [0; 16].as_slice()].concat();
    let forgotten_id = [&[1, 2], [0; 16].as_slice()].concat();
    vec![
        (Place::request("Topics", 4, &[]), 3),
        (Place::request("Partitions", 4, &[0, 0, 0, 1, 0, 0]), 16),
        (Place::request("ForgottenTopicsData", 7, &[0; 4]), 3),
        (
            Place::request("Partitions", 7, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
            4,
        ),
        (Place::request("Topics", 12, &[]), 3),
        (Place::request("Partitions", 12, &[2, 1]), 16),
        (Place::request("ForgottenTopicsData", 12, &[1]), 3),
        (Place::request("Partitions", 12, &[1, 2, 1]), 4),
        (Place::request("Topics", 18, &[]), 18),
        (Place::request("Partitions", 18, &id), 16),
        (Place::request("ForgottenTopicsData", 18, &[1]), 18),
        (Place::request("Partitions", 18, &forgotten_id), 4),
        (Place::response("Responses", 4, &[]), 3),
        (Place::response("Partitions", 4, &[0, 0, 0, 1, 0, 0]), 30),
        (aborted(4), 16),
        (Place::response("Responses", 12, &[]), 3),
        (Place::response("Partitions", 12, &[2, 1]), 37),
        (aborted(12), 16),
        (Place::response("Responses", 18, &[]), 18),
        (Place::response("Partitions", 18, &id), 37),
        (Place::response("NodeEndpoints", 16, &[1, 1, 0]).inside(&[]), 11),
    ]
}

/// Every string, and whether it may be null.
pub(crate) fn strings() -> Vec<(Place, bool)> {
    vec![
        (Place::request("Topic", 4, &[0, 0, 0, 1]), false),
        (Place::request("Topic", 7, &[0, 0, 0, 0, 0, 0, 0, 1]), false),
        (Place::request("RackId", 11, &[0; 8]), false),
        (Place::request("Topic", 12, &[2]), false),
        (Place::request("Topic", 12, &[1, 2]), false),
        (Place::request("RackId", 12, &[1, 1]), false),
        (
            Place::request("ClusterId", 12, &[1, 1, 1, 1, 0]).inside(&[]),
            true,
        ),
        (Place::response("Topic", 4, &[0, 0, 0, 1]), false),
        (Place::response("Topic", 12, &[2]), false),
        (
            Place::response("Host", 16, &[1, 1, 0]).inside(&[2, 0, 0, 0, 0]),
            false,
        ),
        (
            Place::response("Rack", 16, &[1, 1, 0]).inside(&[2, 0, 0, 0, 0, 1, 0, 0, 0, 0]),
            true,
        ),
    ]
}

/// The tagged fields of every structure.
pub(crate) fn tag_sections() -> Vec<Place> {
    let partition = [[2, 1, 2].as_slice(), &[0; 32]].concat();
    let partition_with_id = [[2].as_slice(), &[0; 16], &[2], &[0; 32]].concat();
    let aborted = Place::aborted(12).bytes(&[2]).zeros(16).0;
    // Empty records, and then one tagged field: its tag.
    let tagged = |field, tag| {
        let mut place = Place::records(18);
        place.field = field;
        place.before = place.before.bytes(&[1, 1, tag]);
        place
    };
    let mut partition_data = Place::records(12);
    partition_data.field = "PartitionData tags";
    partition_data.before = partition_data.before.bytes(&[1]);
    vec![
        Place::request("FetchRequest tags", 12, &[1, 1, 1]),
        Place::request("FetchTopic tags", 12, &[2, 1, 1]),
        Place::request("FetchPartition tags", 12, &partition),
        Place::request("FetchPartition tags", 18, &partition_with_id),
        Place::request("ForgottenTopic tags", 12, &[1, 2, 1, 1]),
        Place::request("ReplicaState tags", 15, &[1, 1, 1, 1, 1]).inside(&[0; 12]),
        Place::response("FetchResponse tags", 12, &[1]),
        Place::response("FetchableTopic tags", 12, &[2, 1, 1]),
        partition_data,
        Place::response("AbortedTransaction tags", 12, &aborted),
        tagged("DivergingEpoch tags", 0).inside(&[0; 12]),
        tagged("CurrentLeader tags", 1).inside(&[0; 8]),
        tagged("SnapshotId tags", 2).inside(&[0; 12]),
        Place::response("NodeEndpoint tags", 16, &[1, 1, 0]).inside(&[2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]),
    ]
}

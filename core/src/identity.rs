//! What a partition is, whatever it is called (H6).

use core::fmt;
use core::hash::{Hash, Hasher};

use crate::wire::TopicId;

/// A partition of one cluster. A cache serves one cluster, see
/// [`Cache::identify_cluster`](crate::cache::Cache::identify_cluster), so the cluster's id is not repeated here.
/// Names are aliases: a topic that is created again under the same name has another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionKey {
    /// The topic's id; never zero in a cache.
    pub topic_id: TopicId,
    /// The partition's index.
    pub partition: i32,
}

/// In two words: it is what every lookup begins with.
impl Hash for PartitionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let id = u128::from_ne_bytes(self.topic_id.0);
        state.write_u128(id);
        state.write_i32(self.partition);
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic_id, self.partition)
    }
}

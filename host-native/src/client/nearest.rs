//! Reads from the replica in the client's own rack, where brokers have a selector of replicas (KIP-392, H16).

use core::time::Duration;

use kachet_core::wire::{PartitionData, WireStr};
use tracing::debug;

use super::routing::Route;
use super::{Answer, Client, Read};
use crate::cluster::Nearest;
use crate::transport::{BrokerAddress, Transport, TransportError};

impl<T: Transport> Client<T> {
    /// One fetch of whoever is nearest: of the replica that the leader has named for this client's rack, else of the
    /// leader. A replica is believed where it gives records; that there are none, or an error, only the leader can say,
    /// because a replica may be behind.
    pub(super) async fn read_nearest(
        &self,
        route: &Route,
        read: Read<'_>,
    ) -> Result<Answer<PartitionData>, TransportError> {
        let rack = self.settings.rack.as_deref().filter(|rack| !rack.is_empty());
        let Some(rack) = rack.and_then(WireStr::copy_from) else {
            return self.read_once(route, &route.leader, None, read).await;
        };
        let replica = match self.routing.nearest(read.topic, read.partition) {
            Some(Nearest::Replica(replica)) => replica,
            Some(Nearest::Leader) => return self.read_once(route, &route.leader, None, read).await,
            None => {
                let answer = self.read_once(route, &route.leader, Some(&rack), read).await?;
                match self.redirected(&answer, read) {
                    Some(replica) => replica,
                    // The redirect of a broker that Metadata does not tell of cannot be followed.
                    None if is_redirect(&answer) => {
                        return self.read_once(route, &route.leader, None, read).await;
                    }
                    None => return Ok(answer),
                }
            }
        };
        let of_leader = match self.read_replica(route, &replica, &rack, read).await {
            FromReplica::Records(data) => return Ok(Answer::Value(*data)),
            // It has been waited for already.
            FromReplica::Nothing => Read {
                max_wait: Duration::ZERO,
                ..read
            },
            FromReplica::Failed => read,
        };
        self.read_once(route, &route.leader, None, of_leader).await
    }

    /// The replica that an answer names, from now on the nearest.
    fn redirected(&self, answer: &Answer<PartitionData>, read: Read<'_>) -> Option<BrokerAddress> {
        let Answer::Value(data) = answer else { return None };
        if !is_redirect(answer) {
            return None;
        }
        let node_id = data.preferred_read_replica;
        let replica = self.routing.redirect(read.topic, read.partition, node_id);
        debug!(
            topic = read.topic,
            partition = read.partition,
            node_id,
            "the leader names a replica that is nearer"
        );
        replica
    }

    async fn read_replica(
        &self,
        route: &Route,
        replica: &BrokerAddress,
        rack: &WireStr,
        read: Read<'_>,
    ) -> FromReplica {
        let (topic, partition) = (read.topic, read.partition);
        match self.read_once(route, replica, Some(rack), read).await {
            Ok(Answer::Value(data)) if data.records_size_bytes() > 0 => {
                return FromReplica::Records(data.into());
            }
            // At the end of the log, or behind the leader; it remains the nearest.
            Ok(Answer::Value(_)) => return FromReplica::Nothing,
            Ok(Answer::Error(code)) => {
                debug!(topic, partition, %replica, code, "the nearest replica refuses; the leader is read");
            }
            Err(error) => {
                debug!(topic, partition, %replica, %error, "the nearest replica fails; the leader is read");
            }
        }
        self.routing.rest_nearest(topic, partition);
        FromReplica::Failed
    }
}

enum FromReplica {
    Records(Box<PartitionData>),
    Nothing,
    Failed,
}

/// Whether an answer names a replica in place of records.
fn is_redirect(answer: &Answer<PartitionData>) -> bool {
    matches!(answer, Answer::Value(data) if data.preferred_read_replica >= 0 && data.records_size_bytes() == 0)
}

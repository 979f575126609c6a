//! What the cluster has said of itself, kept for the time when nobody can be asked: with
//! [`MaxStaleness::Forever`](kachet_core::time::MaxStaleness) a cache goes on serving what it holds while its brokers are
//! down, and whoever reads from it has to find topics, ids and leaders first. A [`Notebook`] carries it over a restart.

use core::error::Error;
use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use kachet_core::wire::{TopicId, TopicRef, WireStr};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::metadata_response::MetadataResponse;
use kafka_protocol::protocol::Decodable;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::{PartitionMetadata, TopicMetadata, Topology, code};
use crate::transport::array_counts::response_arrays_are_whole;
use crate::transport::{ApiVersions, BrokerAddress};

/// Topics that are remembered at most.
const TOPICS_LIMIT: usize = 16 * 1024;
/// Brokers that are remembered at most.
const BROKERS_LIMIT: usize = 4096;
/// What the note says first. One of another format is not read, and written anew.
const FORMAT: u64 = 1;

/// Where a cache keeps a note beside its segments, so that after a restart it knows more than they tell.
pub trait Notebook: fmt::Debug + Send + Sync + 'static {
    /// The note that was written last, if there is one that is whole.
    fn read(&self) -> BoxFuture<'_, Option<Bytes>>;

    /// Puts a note in the place of the last one, all of it or nothing.
    fn write(&self, note: Bytes) -> BoxFuture<'_, Result<(), Box<dyn Error + Send + Sync>>>;
}

/// What a notebook says; without one, or if it cannot be read, nothing.
pub(super) async fn read(notebook: Option<Arc<dyn Notebook>>) -> Catalogue {
    let Some(notebook) = notebook else {
        return Catalogue::default();
    };
    let note = notebook.read().await;
    note.map(|note| Catalogue::from_note(&note)).unwrap_or_default()
}

/// The Metadata in a response that goes by, if it is one and can be read.
pub(super) fn overheard(api_key: i16, version: i16, body: &Bytes) -> Option<Topology> {
    if api_key != ApiKey::Metadata as i16 || !response_arrays_are_whole(api_key, version, body) {
        return None;
    }
    let response = MetadataResponse::decode(&mut body.clone(), version).ok()?;
    Some(Topology::from(response))
}

/// What a notebook tells of the cluster whose batches lie beside it, for whoever looks at them without a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The cluster's id.
    pub cluster_id: Option<WireStr>,
    /// The names of topics.
    pub topics: BTreeMap<TopicId, WireStr>,
    /// The brokers by node id.
    pub brokers: BTreeMap<i32, BrokerAddress>,
}

impl Remembered {
    /// What the notebook says; where it says nothing or cannot be read, nothing.
    pub async fn read(notebook: Arc<dyn Notebook>) -> Self {
        let catalogue = read(Some(notebook)).await;
        let known = catalogue.lock();
        let topics = known.topics.iter();
        Self {
            cluster_id: known.cluster_id.clone(),
            topics: topics
                .map(|(name, topic)| (topic.topic_id, name.clone()))
                .collect(),
            brokers: known.brokers.clone(),
        }
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Catalogue(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    cluster_id: Option<WireStr>,
    brokers: BTreeMap<i32, BrokerAddress>,
    topics: BTreeMap<WireStr, TopicMetadata>,
    /// What each broker answered last.
    versions: BTreeMap<BrokerAddress, Arc<ApiVersions>>,
    /// Brokers that may answer other versions by now.
    doubted: BTreeSet<BrokerAddress>,
    /// Something has changed since the last note.
    is_changed: bool,
}

impl Catalogue {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn versions(&self, broker: &BrokerAddress) -> Option<Arc<ApiVersions>> {
        self.lock().versions.get(broker).cloned()
    }

    /// Those to begin with, without asking: of a broker of which only Metadata has told, what others of its cluster answer.
    /// A broker that is doubted is asked, once.
    pub(super) fn trusted_versions(&self, broker: &BrokerAddress) -> Option<Arc<ApiVersions>> {
        let mut known = self.lock();
        if known.doubted.remove(broker) {
            return None;
        }
        let own = known.versions.get(broker);
        let of_others = || {
            let mut brokers = known.brokers.values();
            brokers.any(|other| other == broker).then_some(())?;
            known.versions.values().next()
        };
        own.or_else(of_others).cloned()
    }

    pub(super) fn doubt_versions(&self, broker: &BrokerAddress) {
        let mut known = self.lock();
        if known.doubted.len() < BROKERS_LIMIT {
            known.doubted.insert(broker.clone());
        }
    }

    pub(super) fn learn_versions(&self, broker: &BrokerAddress, versions: &Arc<ApiVersions>) {
        let mut known = self.lock();
        known.doubted.remove(broker);
        if known.versions.get(broker) == Some(versions) {
            return;
        }
        if known.versions.len() < BROKERS_LIMIT || known.versions.contains_key(broker) {
            known.versions.insert(broker.clone(), Arc::clone(versions));
            known.is_changed = true;
        }
    }

    /// Learns what `broker` has said.
    pub(super) fn learn(&self, broker: &BrokerAddress, topology: &Topology) {
        let mut known = self.lock();
        if topology.cluster_id.is_some() && known.cluster_id != topology.cluster_id {
            // By its address a broker is known to be of this cluster, so those of another must go (H6).
            let mut versions = core::mem::take(&mut known.versions);
            versions
                .retain(|other, _| other == broker || topology.brokers.values().any(|each| each == other));
            *known = Known {
                cluster_id: topology.cluster_id.as_ref().map(WireStr::detached),
                versions,
                is_changed: true,
                ..Known::default()
            };
        }
        if !topology.brokers.is_empty() && known.brokers != topology.brokers {
            known.brokers.clone_from(&topology.brokers);
            known.is_changed = true;
        }
        for topic in &topology.topics {
            if let Some(name) = &topic.name {
                known.learn_topic(name, topic);
            }
        }
    }

    pub(super) fn cluster_id(&self) -> Option<WireStr> {
        self.lock().cluster_id.clone()
    }

    /// The ids that names stood for last.
    pub(super) fn names(&self) -> Vec<(WireStr, TopicId)> {
        let known = self.lock();
        let names = known.topics.iter();
        names
            .map(|(name, topic)| (name.clone(), topic.topic_id))
            .collect()
    }

    /// What is known of topics of the cluster to which `broker` belongs; `None` unless all of them are known.
    pub(super) fn topology(&self, broker: &BrokerAddress, topics: &[TopicRef]) -> Option<Topology> {
        let known = self.lock();
        let is_of_cluster =
            known.versions.contains_key(broker) || known.brokers.values().any(|other| other == broker);
        if !is_of_cluster {
            return None;
        }
        let found = topics.iter().map(|asked| match asked {
            TopicRef::Name(name) => known.topics.get(name).cloned(),
            TopicRef::Id(id) => known.topics.values().find(|topic| topic.topic_id == *id).cloned(),
        });
        Some(Topology {
            cluster_id: known.cluster_id.clone(),
            brokers: known.brokers.clone(),
            topics: found.collect::<Option<_>>()?,
        })
    }

    /// The address of a broker, if Metadata has told it.
    pub(super) fn broker(&self, node_id: i32) -> Option<BrokerAddress> {
        self.lock().brokers.get(&node_id).cloned()
    }

    /// Whether `broker` is known to follow another one in a partition, as far as Metadata has told.
    pub(super) fn is_follower(&self, broker: &BrokerAddress, topic: &TopicRef, partition: i32) -> bool {
        let known = self.lock();
        let topic = match topic {
            TopicRef::Name(name) => known.topics.get(name),
            TopicRef::Id(id) => known.topics.values().find(|topic| topic.topic_id == *id),
        };
        let leader = topic.and_then(|topic| topic.partitions.get(&partition));
        let leader = leader.and_then(|partition| known.brokers.get(&partition.leader_id));
        // A broker may have an address that Metadata does not tell, by which it cannot be known.
        leader.is_some_and(|leader| leader != broker) && known.brokers.values().any(|other| other == broker)
    }

    /// The note to be written, if anything has changed since the last one.
    pub(super) fn take_note(&self) -> Option<Bytes> {
        let mut known = self.lock();
        core::mem::take(&mut known.is_changed).then(|| known.to_json().to_string().into())
    }

    /// A note could not be written: the next one is due.
    pub(super) fn note_is_due(&self) {
        self.lock().is_changed = true;
    }

    /// What a note says. One that cannot be read says nothing.
    pub(super) fn from_note(note: &[u8]) -> Self {
        let known = serde_json::from_slice(note)
            .ok()
            .and_then(|note: Value| Known::from_json(&note));
        Self(Mutex::new(known.unwrap_or_default()))
    }
}

impl Known {
    fn learn_topic(&mut self, name: &WireStr, topic: &TopicMetadata) {
        if topic.error_code == code::UNKNOWN_TOPIC_OR_PARTITION {
            self.is_changed |= self.topics.remove(name).is_some();
        }
        if topic.error_code != 0 || self.topics.get(name) == Some(topic) {
            return;
        }
        if self.topics.len() < TOPICS_LIMIT || self.topics.contains_key(name) {
            let name = name.detached();
            let topic = TopicMetadata {
                name: Some(name.clone()),
                ..topic.clone()
            };
            self.topics.insert(name, topic);
            self.is_changed = true;
        }
    }

    fn to_json(&self) -> Value {
        let brokers = self
            .brokers
            .iter()
            .map(|(id, broker)| json!([id, broker.host, broker.port]));
        let topics = self.topics.iter().map(|(name, topic)| {
            let partitions = topic.partitions.iter();
            let partitions =
                partitions.map(|(index, each)| json!([index, each.leader_id, each.leader_epoch]));
            json!({
                "name": name.as_str(),
                "id": Uuid::from_bytes(topic.topic_id.0).to_string(),
                "partitions": partitions.collect::<Vec<_>>(),
            })
        });
        let versions = self.versions.iter().map(|(broker, versions)| {
            let apis = versions
                .iter()
                .map(|(key, range)| json!([key, range.start(), range.end()]));
            json!({ "broker": broker.to_string(), "apis": apis.collect::<Vec<_>>() })
        });
        json!({
            "format": FORMAT,
            "cluster_id": self.cluster_id.as_ref().map(WireStr::as_str),
            "brokers": brokers.collect::<Vec<_>>(),
            "topics": topics.collect::<Vec<_>>(),
            "versions": versions.collect::<Vec<_>>(),
        })
    }

    fn from_json(note: &Value) -> Option<Self> {
        if note["format"] != FORMAT {
            return None;
        }
        let brokers = note["brokers"].as_array()?.iter().map(|broker| {
            let (host, port) = (
                broker[1].as_str()?.to_owned(),
                u16::try_from(broker[2].as_u64()?).ok()?,
            );
            Some((int(&broker[0])?, BrokerAddress { host, port }))
        });
        let topics = note["topics"].as_array()?.iter().map(|topic| {
            let topic = topic_from_json(topic)?;
            Some((topic.name.clone()?, topic))
        });
        let versions = note["versions"].as_array()?.iter().map(|of_broker| {
            let apis = of_broker["apis"].as_array()?.iter().map(|api| {
                let (min, max) = (int(&api[1])?, int(&api[2])?);
                Some((int(&api[0])?, min..=max))
            });
            let versions = apis.collect::<Option<ApiVersions>>()?;
            Some((of_broker["broker"].as_str()?.parse().ok()?, Arc::new(versions)))
        });
        Some(Self {
            cluster_id: note["cluster_id"].as_str().and_then(WireStr::copy_from),
            brokers: brokers.collect::<Option<_>>()?,
            topics: topics.collect::<Option<_>>()?,
            versions: versions.collect::<Option<_>>()?,
            doubted: BTreeSet::new(),
            is_changed: false,
        })
    }
}

fn int<N: TryFrom<i64>>(value: &Value) -> Option<N> {
    value.as_i64().and_then(|value| N::try_from(value).ok())
}

fn topic_from_json(topic: &Value) -> Option<TopicMetadata> {
    let partitions = topic["partitions"].as_array()?.iter().map(|partition| {
        let metadata = PartitionMetadata {
            error_code: 0,
            leader_id: int(&partition[1])?,
            leader_epoch: int(&partition[2])?,
        };
        Some((int(&partition[0])?, metadata))
    });
    Some(TopicMetadata {
        name: Some(topic["name"].as_str().and_then(WireStr::copy_from)?),
        topic_id: TopicId(*Uuid::parse_str(topic["id"].as_str()?).ok()?.as_bytes()),
        error_code: 0,
        partitions: partitions.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker() -> BrokerAddress {
        BrokerAddress {
            host: "::1".to_owned(),
            port: 9092,
        }
    }

    fn topology(cluster_id: &'static str, topics: &[(&'static str, u8)]) -> Topology {
        let leader = PartitionMetadata {
            error_code: 0,
            leader_id: 3,
            leader_epoch: 7,
        };
        let topics = topics.iter().map(|(name, id)| TopicMetadata {
            name: Some(WireStr::from_static(name)),
            topic_id: TopicId([*id; 16]),
            error_code: 0,
            partitions: BTreeMap::from([(0, leader), (5, leader)]),
        });
        Topology {
            cluster_id: Some(WireStr::from_static(cluster_id)),
            brokers: BTreeMap::from([(3, broker())]),
            topics: topics.collect(),
        }
    }

    fn name(name: &'static str) -> TopicRef {
        TopicRef::Name(WireStr::from_static(name))
    }

    #[test]
    fn a_note_gives_everything_back() {
        let catalogue = Catalogue::default();
        catalogue.learn(&broker(), &topology("c", &[("a", 1), ("b", 2)]));
        let versions: ApiVersions = [(1, 4..=18), (3, 0..=13)].into_iter().collect();
        catalogue.learn_versions(&broker(), &Arc::new(versions.clone()));
        let note = catalogue.take_note().unwrap();
        assert_eq!(catalogue.take_note(), None, "nothing has changed since");
        let read = Catalogue::from_note(&note);
        assert_eq!(read.take_note(), None);
        assert_eq!(read.versions(&broker()).as_deref(), Some(&versions));
        assert_eq!(read.cluster_id(), Some(WireStr::from_static("c")));
        let asked = [name("b"), TopicRef::Id(TopicId([1; 16]))];
        let known = read.topology(&broker(), &asked).unwrap();
        let learned = topology("c", &[("b", 2), ("a", 1)]);
        assert_eq!((known.brokers, known.topics), (learned.brokers, learned.topics));
        assert!(
            read.topology(&broker(), &[name("a"), name("x")]).is_none(),
            "only if all are known"
        );
    }

    #[test]
    fn what_another_cluster_says_takes_the_place_of_everything() {
        let catalogue = Catalogue::default();
        catalogue.learn(&broker(), &topology("c", &[("a", 1)]));
        catalogue.learn(&broker(), &topology("d", &[("b", 2)]));
        assert!(catalogue.topology(&broker(), &[name("a")]).is_none());
        assert!(catalogue.topology(&broker(), &[name("b")]).is_some());
    }

    #[test]
    fn a_broker_of_which_nothing_says_that_it_is_of_the_cluster_is_told_nothing_in_its_place() {
        let catalogue = Catalogue::default();
        let bootstrap: BrokerAddress = "bootstrap:9092".parse().unwrap();
        let versions: Arc<ApiVersions> = Arc::new([(1, 4..=18)].into_iter().collect());
        catalogue.learn_versions(&bootstrap, &versions);
        catalogue.learn(&bootstrap, &topology("c", &[("a", 1)]));
        let other = "other:9092".parse().unwrap();
        let tells = |of: &BrokerAddress| catalogue.topology(of, &[name("a")]).is_some();
        assert!(tells(&bootstrap) && tells(&broker()) && !tells(&other));
        // Of a leader that was never asked, what others of the cluster answer is a beginning.
        assert_eq!(catalogue.trusted_versions(&broker()), Some(versions));
        assert_eq!(catalogue.trusted_versions(&other), None);

        // Once the notebook is of another cluster, no address of the first stands for it.
        catalogue.learn_versions(&other, &Arc::default());
        let mut second = topology("d", &[("a", 2)]);
        second.brokers.clear();
        catalogue.learn(&other, &second);
        assert!(catalogue.topology(&other, &[name("a")]).is_some());
        assert!(catalogue.topology(&bootstrap, &[name("a")]).is_none());
    }

    #[test]
    fn a_follower_is_known_only_as_metadata_has_told() {
        let catalogue = Catalogue::default();
        let mut told = topology("c", &[("a", 1)]);
        let follower: BrokerAddress = "follower:9092".parse().unwrap();
        told.brokers.insert(4, follower.clone());
        catalogue.learn(&broker(), &told);
        for topic in [name("a"), TopicRef::Id(TopicId([1; 16]))] {
            assert!(catalogue.is_follower(&follower, &topic, 5));
            assert!(!catalogue.is_follower(&broker(), &topic, 5), "the leader");
            assert!(!catalogue.is_follower(&follower, &topic, 6), "no such partition");
            let other = "bootstrap:9092".parse().unwrap();
            assert!(
                !catalogue.is_follower(&other, &topic, 5),
                "perhaps the leader's other address"
            );
        }
        assert!(!catalogue.is_follower(&follower, &name("b"), 5));
    }

    #[test]
    fn a_broker_that_may_not_understand_is_asked_once_more() {
        let catalogue = Catalogue::default();
        let versions: Arc<ApiVersions> = Arc::new([(1, 4..=18)].into_iter().collect());
        catalogue.learn_versions(&broker(), &versions);
        catalogue.doubt_versions(&broker());
        assert_eq!(catalogue.trusted_versions(&broker()), None);
        assert_eq!(catalogue.trusted_versions(&broker()), Some(versions));
    }

    #[test]
    fn a_topic_that_is_gone_is_forgotten() {
        let catalogue = Catalogue::default();
        catalogue.learn(&broker(), &topology("c", &[("a", 1)]));
        let mut gone = topology("c", &[("a", 0)]);
        gone.topics[0].error_code = code::UNKNOWN_TOPIC_OR_PARTITION;
        catalogue.learn(&broker(), &gone);
        assert!(catalogue.topology(&broker(), &[name("a")]).is_none());
    }

    #[test]
    fn a_note_that_cannot_be_read_says_nothing() {
        let catalogue = Catalogue::default();
        catalogue.learn(&broker(), &topology("c", &[("a", 1)]));
        let note = catalogue.take_note().unwrap();
        let newer = String::from_utf8(note.to_vec())
            .unwrap()
            .replace("\"format\":1", "\"format\":2");
        for unreadable in [
            &b""[..],
            b"[1]",
            b"{\"format\":1}",
            &note[..note.len() - 1],
            newer.as_bytes(),
        ] {
            let read = Catalogue::from_note(unreadable);
            assert!(read.topology(&broker(), &[name("a")]).is_none(), "{unreadable:?}");
        }
    }
}

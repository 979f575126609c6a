//! Fetch sessions (KIP-227), towards clients only: upstream every fetch is one of its own (H15).
//!
//! A connection has one session at most; another one takes its place, as a broker's cache of sessions may drop any
//! session at any time, and a session that is gone is answered error 70, upon which clients begin a new one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kachet_core::wire::{
    FETCH_VERSION_TOPIC_IDS, FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
    TaggedFields, TopicRef,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A session of more partitions is not kept: each fetch of such a client names them all.
pub(super) const PARTITIONS_LIMIT: usize = 20_000;

/// The errors that a broker answers, as its codes.
const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
const FETCH_SESSION_TOPIC_ID_ERROR: i16 = 106;

const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// The session of a connection, if it has one.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    current: Option<Session>,
    /// Partitions that the sessions of all connections may have more.
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Session {
    id: i32,
    /// What the next request has to say.
    epoch: i32,
    by_id: bool,
    /// In the order in which they are fetched: what had data goes to the end, so that none is left out for ever.
    partitions: BTreeMap<u64, Partition>,
    places: HashMap<(TopicRef, i32), u64>,
    next_place: u64,
    /// As many as there are partitions, or were.
    room: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Partition {
    topic: TopicRef,
    asked: FetchPartition,
    /// What the client was told last.
    high_watermark: i64,
    log_start_offset: i64,
}

/// How the answer to a fetch is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answering {
    /// Whole, with session id 0.
    Sessionless,
    /// Whole, with the id of a session.
    Full(i32),
    /// Only what has changed.
    Incremental(i32),
}

impl FetchSessions {
    /// None yet.
    pub(crate) fn new(room: &Arc<Semaphore>) -> Self {
        Self {
            current: None,
            room: Arc::clone(room),
        }
    }

    /// Makes a fetch one that stands for itself. Fails with the error that the whole fetch is answered.
    pub(crate) fn resolve(
        &mut self,
        version: i16,
        mut request: FetchRequest,
    ) -> Result<(FetchRequest, Answering), i16> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        request.session_id = 0;
        request.session_epoch = FINAL_EPOCH;
        let forgotten = core::mem::take(&mut request.forgotten_topics);
        if matches!(epoch, FINAL_EPOCH | INITIAL_EPOCH) {
            self.current.take_if(|session| session.id == id);
            if epoch == FINAL_EPOCH {
                return Ok((request, Answering::Sessionless));
            }
            self.current = None;
            self.current = Session::begin(version, &request, &self.room);
            let begun = self.current.as_ref();
            let answering = begun.map_or(Answering::Sessionless, |session| Answering::Full(session.id));
            return Ok((request, answering));
        }
        let known = self
            .current
            .as_mut()
            .filter(|session| session.id == id && id != 0);
        let session = known.ok_or(FETCH_SESSION_ID_NOT_FOUND)?;
        if session.epoch != epoch {
            return Err(INVALID_FETCH_SESSION_EPOCH);
        }
        if session.by_id != (version >= FETCH_VERSION_TOPIC_IDS) {
            return Err(FETCH_SESSION_TOPIC_ID_ERROR);
        }
        for topic in &request.topics {
            for asked in &topic.partitions {
                session.ask(&topic.topic, asked);
            }
        }
        for topic in &forgotten {
            for partition in &topic.partitions {
                session.forget(&topic.topic, *partition);
            }
        }
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        if session.partitions.is_empty() {
            // With the session over, a broker answers what the request itself names.
            self.current = None;
            return Ok((request, Answering::Sessionless));
        }
        request.topics = session.topics();
        if !session.has_room(&self.room) {
            self.current = None;
            return Ok((request, Answering::Sessionless));
        }
        Ok((request, Answering::Incremental(id)))
    }

    /// Leaves out of an answer what the client knows, and keeps in mind what it is told.
    pub(super) fn settle(&mut self, answering: Answering, response: &mut FetchResponse) {
        response.session_id = 0;
        let (Answering::Full(id) | Answering::Incremental(id)) = answering else {
            return;
        };
        if response.error_code != 0 {
            return;
        }
        response.session_id = id;
        // A later request on the connection may have begun another one. Then all of the answer is given.
        let Some(session) = self.current.as_mut().filter(|session| session.id == id) else {
            return;
        };
        for topic in &mut response.topics {
            let of = &topic.topic;
            topic.partitions.retain(|data| {
                let is_news = session.tell(of, data);
                is_news || matches!(answering, Answering::Full(_))
            });
        }
        response.topics.retain(|topic| !topic.partitions.is_empty());
    }
}

impl Session {
    /// `None` where there is nothing to keep, or too much.
    fn begin(version: i16, request: &FetchRequest, room: &Arc<Semaphore>) -> Option<Self> {
        let count: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
        if count == 0 || count > PARTITIONS_LIMIT {
            return None;
        }
        let held = Arc::clone(room)
            .try_acquire_many_owned(u32::try_from(count).ok()?)
            .ok()?;
        let mut session = Self {
            // Any but 0. It is good on this connection only, so it need not be hard to guess.
            id: fastrand::i32(1..),
            epoch: 1,
            by_id: version >= FETCH_VERSION_TOPIC_IDS,
            partitions: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
            room: held,
        };
        for topic in &request.topics {
            for asked in &topic.partitions {
                session.ask(&topic.topic, asked);
            }
        }
        Some(session)
    }

    /// Whether there may be as many partitions as there are.
    fn has_room(&mut self, room: &Arc<Semaphore>) -> bool {
        let count = self.partitions.len();
        let more = u32::try_from(count.saturating_sub(self.room.num_permits())).unwrap_or(u32::MAX);
        if count <= PARTITIONS_LIMIT && more > 0 {
            match Arc::clone(room).try_acquire_many_owned(more) {
                Ok(permits) => self.room.merge(permits),
                Err(_) => return false,
            }
        }
        count <= PARTITIONS_LIMIT
    }

    fn ask(&mut self, topic: &TopicRef, asked: &FetchPartition) {
        // Nothing that keeps the request alive.
        let asked = FetchPartition {
            unknown_tags: TaggedFields::default(),
            ..asked.clone()
        };
        let topic = match topic {
            TopicRef::Name(name) => TopicRef::Name(name.detached()),
            TopicRef::Id(id) => TopicRef::Id(*id),
        };
        let key = (topic, asked.partition);
        if let Some(partition) = self
            .places
            .get(&key)
            .and_then(|place| self.partitions.get_mut(place))
        {
            partition.asked = asked;
            return;
        }
        let partition = Partition {
            topic: key.0.clone(),
            asked,
            high_watermark: -1,
            log_start_offset: -1,
        };
        self.places.insert(key, self.next_place);
        self.partitions.insert(self.next_place, partition);
        self.next_place += 1;
    }

    fn forget(&mut self, topic: &TopicRef, partition: i32) {
        if let Some(place) = self.places.remove(&(topic.clone(), partition)) {
            self.partitions.remove(&place);
        }
    }

    /// All partitions in their order, neighbours of one topic together.
    fn topics(&self) -> Vec<FetchTopic> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for partition in self.partitions.values() {
            match topics.last_mut() {
                Some(last) if last.topic == partition.topic => last.partitions.push(partition.asked.clone()),
                _ => topics.push(FetchTopic {
                    topic: partition.topic.clone(),
                    partitions: vec![partition.asked.clone()],
                    unknown_tags: TaggedFields::default(),
                }),
            }
        }
        topics
    }

    /// Whether the client has to be told, by the rules of a broker: of data, errors, redirections, and of a high
    /// watermark or log start other than the last that it was told.
    fn tell(&mut self, topic: &TopicRef, data: &PartitionData) -> bool {
        let key = (topic.clone(), data.partition_index);
        let Some(place) = self.places.get(&key).copied() else {
            return true;
        };
        let Some(partition) = self.partitions.get_mut(&place) else {
            return true;
        };
        let has_data = data.records_size_bytes() > 0;
        let is_news = has_data
            || data.error_code != 0
            || data.preferred_read_replica >= 0
            || data.diverging_epoch.is_some()
            || data.high_watermark != partition.high_watermark
            || data.log_start_offset != partition.log_start_offset;
        // After an error the next answer is told whatever it is.
        partition.high_watermark = if data.error_code == 0 {
            data.high_watermark
        } else {
            -1
        };
        partition.log_start_offset = data.log_start_offset;
        if has_data && let Some(partition) = self.partitions.remove(&place) {
            self.places.insert(key, self.next_place);
            self.partitions.insert(self.next_place, partition);
            self.next_place += 1;
        }
        is_news
    }
}

#[cfg(test)]
mod tests;

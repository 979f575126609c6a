//! Random requests, each a function of the campaign's seed, of its number and of what the topics hold.

use fastrand::Rng;
use kachet_core::wire::{
    FETCH_VERSION_MAX, FETCH_VERSION_MIN, FETCH_VERSION_TOPIC_IDS, FetchPartition, FetchRequest, FetchTopic,
    ForgottenTopic, TaggedFields, TopicId, TopicRef, WireStr,
};

use crate::truth::{Topic, Truth};

/// A request, and what it takes to send it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) version: i16,
    pub(crate) request: FetchRequest,
}

/// What requests are made of.
pub(crate) struct Maker<'a> {
    pub(crate) rng: Rng,
    pub(crate) truth: &'a Truth,
    /// Ids of topics that were deleted before the campaign began.
    pub(crate) buried: &'a [TopicId],
}

/// The random numbers of one request.
pub(crate) fn dice(seed: u64, number: u64) -> Rng {
    // Neighbouring seeds give unlike sequences.
    Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03))
}

impl Maker<'_> {
    fn one_in(&mut self, times: u32) -> bool {
        self.rng.u32(0..times) == 0
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.usize(0..choices.len())]
    }

    /// A request that stands for itself.
    pub(crate) fn case(&mut self) -> Case {
        let version = self.rng.i16(FETCH_VERSION_MIN..=FETCH_VERSION_MAX);
        let topics = self.topics(version);
        let mut request = FetchRequest {
            topics,
            ..self.limits(version)
        };
        if self.one_in(60) {
            request.forgotten_topics = self.forgotten(&request);
        }
        if request.max_wait_ms > 0 && request.partitions().any(|(topic, _)| is_zero(topic)) {
            // A fetch that has to wait for the zero id is never answered (H28).
            request.max_wait_ms = 0;
        }
        Case { version, request }
    }

    /// Everything but the topics.
    pub(crate) fn limits(&mut self, version: i16) -> FetchRequest {
        let mut request = FetchRequest {
            max_wait_ms: self.one_of(&[0, 0, 0, 0, 0, 0, 0, 1, 5, 20]),
            min_bytes: self.one_of(&[0, 1, 1, 1, 1, 1, 1, 300, 100_000, i32::MAX]),
            max_bytes: self.one_of(&[0, 1, 99, 500, 2_000, 20_000, 100_000, 1 << 20, 50 << 20, i32::MAX]),
            isolation_level: self.rng.i8(0..=1),
            ..FetchRequest::default()
        };
        if self.one_in(300) {
            request.max_bytes = -1;
        }
        if self.one_in(300) {
            request.min_bytes = -5;
        }
        if self.one_in(300) {
            request.max_wait_ms = -1;
        }
        if version >= 11 && self.one_in(5) {
            request.rack_id = WireStr::from_static("rack-of-the-judge");
        }
        if version >= 12 && self.one_in(100) {
            request.cluster_id = Some(WireStr::from_static("some-cluster"));
        }
        request
    }

    fn topics(&mut self, version: i16) -> Vec<FetchTopic> {
        let count = match self.rng.u32(0..100) {
            0..55 => 1,
            55..80 => self.rng.usize(2..=5),
            80..97 => self.rng.usize(6..=20),
            _ => 70,
        };
        let mut topics: Vec<FetchTopic> = Vec::new();
        while topics.iter().map(|topic| topic.partitions.len()).sum::<usize>() < count {
            let (topic, partitions) = self.some_of_a_topic(version, count);
            // Zero beside another unknown id makes the broker throw, or never answer (H28).
            if is_zero(&topic) {
                return vec![FetchTopic {
                    topic,
                    partitions,
                    unknown_tags: TaggedFields::default(),
                }];
            }
            topics.push(FetchTopic {
                topic,
                partitions,
                unknown_tags: TaggedFields::default(),
            });
        }
        topics
    }

    fn some_of_a_topic(&mut self, version: i16, count: usize) -> (TopicRef, Vec<FetchPartition>) {
        let by_id = version >= FETCH_VERSION_TOPIC_IDS;
        if self.one_in(25) {
            let topic = self.unknown_topic(by_id);
            let partition = self.one_of(&[0, 1, 7]);
            let offset = self.one_of(&[0, 5, 1_000]);
            return (topic, vec![FetchPartition::new(partition, offset, 10_000)]);
        }
        let topic = self.living_topic().clone();
        let name = if by_id {
            TopicRef::Id(topic.id)
        } else {
            name_of(&topic)
        };
        let several = self
            .rng
            .usize(1..=count.min(topic.partitions.unsigned_abs() as usize));
        // One in so many is named twice (the last mention counts), unless all differ.
        let twice = self.one_in(12);
        let mut partitions: Vec<FetchPartition> = Vec::new();
        let first = self.rng.i32(0..topic.partitions);
        for step in 0..several {
            let index = if twice {
                self.rng.i32(0..topic.partitions)
            } else {
                (first + i32::try_from(step).unwrap_or(0)) % topic.partitions
            };
            let index = if self.one_in(80) {
                self.one_of(&[-1, 50, 999])
            } else {
                index
            };
            partitions.push(self.partition(version, &topic, index));
        }
        (name, partitions)
    }

    fn living_topic(&mut self) -> &Topic {
        let living: Vec<&Topic> = self
            .truth
            .topics
            .iter()
            .filter(|topic| topic.deleted_at.is_none())
            .collect();
        living[self.rng.usize(0..living.len())]
    }

    fn unknown_topic(&mut self, by_id: bool) -> TopicRef {
        if !by_id {
            return TopicRef::Name(WireStr::from_static(self.one_of(&[
                "nobody",
                "reborn-not",
                "no such topic",
            ])));
        }
        match self.rng.u32(0..10) {
            0 => TopicRef::Id(TopicId::ZERO),
            1..6 if !self.buried.is_empty() => TopicRef::Id(self.one_of(self.buried)),
            _ => {
                let mut id = [0; 16];
                self.rng.fill(&mut id);
                TopicRef::Id(TopicId(id))
            }
        }
    }

    /// What is asked of a partition.
    pub(crate) fn partition(&mut self, version: i16, topic: &Topic, index: i32) -> FetchPartition {
        let offset = self.offset(topic, index);
        let limit = self.one_of(&[0, 1, 70, 400, 1_500, 10_000, 60_500, 200_000, 1 << 20, i32::MAX]);
        let mut asked = FetchPartition::new(index, offset, limit);
        if self.one_in(400) {
            asked.partition_max_bytes = -7;
        }
        let newest = topic.leader_epoch;
        if version >= 9 && self.one_in(5) {
            asked.current_leader_epoch =
                self.one_of(&[0, newest - 1, newest, newest, newest, newest + 1, 90]);
        }
        if version >= 12 && self.one_in(4) {
            asked.last_fetched_epoch = self.one_of(&[0, 0, newest - 1, newest, newest, newest + 1]);
        }
        if version >= 17 && self.one_in(20) {
            asked.replica_directory_id = Some(TopicId([3; 16]));
        }
        if version >= 18 && self.one_in(20) {
            asked.high_watermark = Some(self.rng.i64(0..500));
        }
        asked
    }

    fn offset(&mut self, topic: &Topic, index: i32) -> i64 {
        let log = self.truth.log(topic, index);
        let mark = log.and_then(|log| log.newest_mark());
        let (Some(log), Some(mark)) = (log, mark) else {
            return 0;
        };
        let (start, end) = (mark.log_start_offset, mark.high_watermark);
        match self.rng.u32(0..100) {
            0..55 => self.rng.i64(start..=end),
            55..75 => {
                let edges: Vec<i64> = log
                    .batches
                    .iter()
                    .flat_map(|(base, versions)| {
                        [*base, versions[0].last_offset, versions[0].last_offset + 1]
                    })
                    .collect();
                if edges.is_empty() {
                    start
                } else {
                    self.one_of(&edges)
                }
            }
            75..83 => end,
            83..87 => mark.last_stable_offset,
            87..90 => end + self.one_of(&[1, 2, 1_000]),
            90..93 => start - 1,
            93..98 => start,
            98 => 0,
            _ => self.one_of(&[-1, -2, i64::MAX, i64::MIN]),
        }
    }

    /// Some of the partitions of a request, and perhaps one that it does not have.
    pub(crate) fn forgotten(&mut self, request: &FetchRequest) -> Vec<ForgottenTopic> {
        let mut forgotten = Vec::new();
        for (topic, asked) in request.partitions() {
            if self.one_in(3) {
                forgotten.push(ForgottenTopic {
                    topic: topic.clone(),
                    partitions: vec![asked.partition],
                    unknown_tags: TaggedFields::default(),
                });
            }
        }
        forgotten
    }
}

pub(crate) fn name_of(topic: &Topic) -> TopicRef {
    TopicRef::Name(WireStr::copy_from(&topic.name).unwrap_or_default())
}

fn is_zero(topic: &TopicRef) -> bool {
    matches!(topic, TopicRef::Id(id) if id.is_zero())
}

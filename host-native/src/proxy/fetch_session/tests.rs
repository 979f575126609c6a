//! The rules of a session, as a broker of Kafka 4.4.0 has them.

use kachet_core::wire::{FetchableTopic, ForgottenTopic, RecordBytes, TopicId, WireStr};

use super::*;

fn topic(name: &'static str) -> TopicRef {
    TopicRef::Name(WireStr::from_static(name))
}

fn request(id: i32, epoch: i32, partitions: &[(i32, i64)]) -> FetchRequest {
    let asked = partitions
        .iter()
        .map(|(index, offset)| FetchPartition::new(*index, *offset, 100));
    let topics = vec![FetchTopic {
        topic: topic("orders"),
        partitions: asked.collect(),
        unknown_tags: TaggedFields::default(),
    }];
    FetchRequest {
        session_id: id,
        session_epoch: epoch,
        topics: if partitions.is_empty() { Vec::new() } else { topics },
        ..FetchRequest::default()
    }
}

fn data(index: i32, high_watermark: i64, records: &'static [u8]) -> PartitionData {
    PartitionData {
        error_code: 0,
        high_watermark,
        log_start_offset: 0,
        records: Some(RecordBytes::from(bytes::Bytes::from_static(records))),
        ..PartitionData::error(index, 0)
    }
}

fn response(partitions: Vec<PartitionData>) -> FetchResponse {
    FetchResponse {
        topics: vec![FetchableTopic {
            topic: topic("orders"),
            partitions,
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchResponse::default()
    }
}

fn asked(request: &FetchRequest) -> Vec<(i32, i64)> {
    request
        .partitions()
        .map(|(_, asked)| (asked.partition, asked.fetch_offset))
        .collect()
}

fn told(response: &FetchResponse) -> Vec<i32> {
    response
        .partitions()
        .map(|(_, data)| data.partition_index)
        .collect()
}

/// A session of the partitions 0, 1 and 2, of which the client was told high watermark 5, and its id.
fn begun() -> (FetchSessions, i32) {
    let mut sessions = FetchSessions::new(&Arc::new(Semaphore::new(2 * PARTITIONS_LIMIT)));
    let (_, answering) = sessions
        .resolve(11, request(0, 0, &[(0, 0), (1, 0), (2, 0)]))
        .unwrap();
    let mut first = response(vec![data(0, 5, b""), data(1, 5, b""), data(2, 5, b"")]);
    sessions.settle(answering, &mut first);
    assert_eq!(told(&first), [0, 1, 2]);
    assert!(first.session_id != 0);
    (sessions, first.session_id)
}

#[test]
fn an_incremental_fetch_stands_for_all_partitions_of_the_session() {
    let (mut sessions, id) = begun();
    let (whole, answering) = sessions.resolve(11, request(id, 1, &[(1, 7)])).unwrap();
    assert_eq!(asked(&whole), [(0, 0), (1, 7), (2, 0)]);
    assert_eq!((whole.session_id, whole.session_epoch), (0, -1));
    assert_eq!(answering, Answering::Incremental(id));
    // New ones are added, others forgotten.
    let mut next = request(id, 2, &[(3, 9)]);
    next.forgotten_topics = vec![ForgottenTopic {
        topic: topic("orders"),
        partitions: vec![0, 44],
        unknown_tags: TaggedFields::default(),
    }];
    let (whole, _) = sessions.resolve(11, next).unwrap();
    assert_eq!(asked(&whole), [(1, 7), (2, 0), (3, 9)]);
    assert!(whole.forgotten_topics.is_empty());
}

#[test]
fn only_news_is_told() {
    let (mut sessions, id) = begun();
    let answering = Answering::Incremental(id);
    let mut settle = |partitions| {
        let mut response = response(partitions);
        sessions.settle(answering, &mut response);
        assert_eq!(response.session_id, id);
        told(&response)
    };
    let quiet = || vec![data(0, 5, b""), data(1, 5, b""), data(2, 5, b"")];
    assert!(settle(quiet()).is_empty());
    assert_eq!(
        settle(vec![data(0, 6, b""), data(1, 5, b"x"), data(2, 5, b"")]),
        [0, 1]
    );
    let mut moved = data(2, 5, b"");
    moved.log_start_offset = 3;
    // Whatever else stands beside an error.
    let failed = PartitionData {
        high_watermark: 6,
        log_start_offset: 0,
        ..PartitionData::error(0, 6)
    };
    assert_eq!(settle(vec![moved.clone(), failed]), [2, 0]);
    // What comes after an error is told, though nothing has changed.
    assert_eq!(settle(vec![data(0, 6, b""), moved]), [0]);
    let mut redirected = data(1, 5, b"");
    redirected.preferred_read_replica = 3;
    assert_eq!(settle(vec![redirected]), [1]);
}

#[test]
fn what_had_data_is_fetched_last_the_next_time() {
    let (mut sessions, id) = begun();
    let mut first = response(vec![data(0, 5, b"x"), data(1, 5, b"")]);
    sessions.settle(Answering::Incremental(id), &mut first);
    let (whole, _) = sessions.resolve(11, request(id, 1, &[])).unwrap();
    assert_eq!(asked(&whole), [(1, 0), (2, 0), (0, 0)]);
}

#[test]
fn wrong_ids_and_epochs_are_the_errors_of_a_broker() {
    let (mut sessions, id) = begun();
    assert_eq!(sessions.resolve(11, request(0, 1, &[])), Err(70));
    assert_eq!(sessions.resolve(11, request(id ^ 1, 1, &[])), Err(70));
    assert_eq!(sessions.resolve(11, request(id, 2, &[])), Err(71));
    assert_eq!(sessions.resolve(13, request(id, 1, &[])), Err(106));
    // The session survives all of it.
    assert!(sessions.resolve(11, request(id, 1, &[])).is_ok());
    // A session that is closed is gone.
    let (_, answering) = sessions.resolve(11, request(id, -1, &[])).unwrap();
    assert_eq!(answering, Answering::Sessionless);
    assert_eq!(sessions.resolve(11, request(id, 2, &[])), Err(70));
}

#[test]
fn forgetting_the_last_partition_closes_the_session() {
    let mut sessions = FetchSessions::new(&Arc::new(Semaphore::new(2 * PARTITIONS_LIMIT)));
    let by_id = TopicRef::Id(TopicId([7; 16]));
    let mut first = request(0, 0, &[(0, 0)]);
    first.topics[0].topic = by_id.clone();
    let Ok((_, Answering::Full(id))) = sessions.resolve(13, first) else {
        panic!("no session")
    };
    let mut last = request(id, 1, &[]);
    last.forgotten_topics = vec![ForgottenTopic {
        topic: by_id,
        partitions: vec![0],
        unknown_tags: TaggedFields::default(),
    }];
    let (whole, answering) = sessions.resolve(13, last).unwrap();
    assert_eq!((asked(&whole).len(), answering), (0, Answering::Sessionless));
    assert_eq!(sessions.resolve(13, request(id, 2, &[])), Err(70));
}

#[test]
fn what_the_request_names_that_empties_a_session_is_answered_without_one() {
    let mut sessions = FetchSessions::new(&Arc::new(Semaphore::new(2 * PARTITIONS_LIMIT)));
    let Ok((_, Answering::Full(id))) = sessions.resolve(11, request(0, 0, &[(0, 0), (1, 0)])) else {
        panic!("no session")
    };
    let mut last = request(id, 1, &[(1, 7)]);
    last.forgotten_topics = vec![ForgottenTopic {
        topic: last.topics[0].topic.clone(),
        partitions: vec![0, 1],
        unknown_tags: TaggedFields::default(),
    }];
    let (whole, answering) = sessions.resolve(11, last).unwrap();
    assert_eq!((asked(&whole), answering), (vec![(1, 7)], Answering::Sessionless));
    assert_eq!(sessions.resolve(11, request(id, 2, &[])), Err(70));
}

#[test]
fn a_new_session_takes_the_place_of_the_old_and_too_large_ones_are_none() {
    let (mut sessions, old) = begun();
    let (_, answering) = sessions.resolve(11, request(0, 0, &[(0, 0)])).unwrap();
    assert!(matches!(answering, Answering::Full(new) if new != old));
    assert_eq!(sessions.resolve(11, request(old, 1, &[])), Err(70));
    let many: Vec<(i32, i64)> = (0..=i32::try_from(PARTITIONS_LIMIT).unwrap())
        .map(|index| (index, 0))
        .collect();
    let (whole, answering) = sessions.resolve(11, request(0, 0, &many)).unwrap();
    assert_eq!(
        (asked(&whole).len(), answering),
        (many.len(), Answering::Sessionless)
    );
    assert!(sessions.resolve(11, request(0, 0, &[])).unwrap().1 == Answering::Sessionless);
}

#[test]
fn all_sessions_together_have_no_more_partitions_than_there_is_room_for() {
    let room = Arc::new(Semaphore::new(5));
    let mut one = FetchSessions::new(&room);
    let mut other = FetchSessions::new(&room);
    let Ok((_, Answering::Full(id))) = one.resolve(11, request(0, 0, &[(0, 0), (1, 0), (2, 0)])) else {
        panic!("no session")
    };
    let too_many = request(0, 0, &[(0, 0), (1, 0), (2, 0)]);
    assert_eq!(
        other.resolve(11, too_many.clone()).unwrap().1,
        Answering::Sessionless
    );
    // One more fits, and three more do not: all are fetched, and the session is over.
    assert_eq!(
        one.resolve(11, request(id, 1, &[(3, 0)])).unwrap().1,
        Answering::Incremental(id)
    );
    let (whole, answering) = one.resolve(11, request(id, 2, &[(4, 0), (5, 0)])).unwrap();
    assert_eq!((asked(&whole).len(), answering), (6, Answering::Sessionless));
    assert!(matches!(
        other.resolve(11, too_many).unwrap().1,
        Answering::Full(_)
    ));
    drop((one, other));
    assert_eq!(room.available_permits(), 5);
}

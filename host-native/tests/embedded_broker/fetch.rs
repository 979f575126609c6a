//! What a Fetch gives: the bytes of the log, within the limits, in every version.

use bytes::{BufMut, Bytes, BytesMut};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{EVENTS_PER_LZ4_BATCH, Event, Events, Packing, pack};
use kachet_core::wire::codec::decompress;
use kachet_core::wire::{
    BatchEntry, Batches, Chunks, Crc32c, FETCH_VERSION_TOPIC_IDS, FetchPartition, FetchRequest,
    FetchResponse, TopicRef,
};
use kafka_protocol::messages::ApiKey;
use tokio::io::AsyncWriteExt;

use crate::connection::{Connection, EVERY_VERSION, append, broker, broker_with, bytes_of, from, named, of};

#[tokio::test]
async fn every_fetch_version_gives_the_log_byte_for_byte() {
    let (broker, id, held) = broker().await;
    let mut connection = Connection::to(&broker).await;
    for version in EVERY_VERSION {
        let by_id = version >= FETCH_VERSION_TOPIC_IDS;
        let topic = if by_id { TopicRef::Id(id) } else { named("orders") };
        for isolation_level in [0, 1] {
            let partitions = vec![FetchPartition::new(0, 10, i32::MAX)];
            let request = FetchRequest {
                isolation_level,
                ..of(topic.clone(), partitions)
            };
            let response = connection.fetch(version, &request).await;
            assert_eq!(response.topics.len(), 1, "v{version}");
            assert_eq!(response.topics[0].topic, topic, "v{version}");
            let [data] = &response.topics[0].partitions[..] else {
                panic!("{response:?}")
            };
            assert_eq!((data.partition_index, data.error_code), (0, 0), "v{version}");
            assert_eq!(
                (data.high_watermark, data.last_stable_offset),
                (50, 50),
                "v{version}"
            );
            assert_eq!(
                data.log_start_offset,
                if version >= 5 { 0 } else { -1 },
                "v{version}"
            );
            let aborted = data.aborted_transactions.as_ref().map(Vec::len);
            assert_eq!(aborted, (isolation_level == 1).then_some(0), "v{version}");
            assert_eq!(bytes_of(data), held[2..].concat(), "v{version}");
        }
    }
    assert_eq!(broker.requests().fetch, 30);
    assert!(broker.requests().bytes_sent > 30 * held[2..].concat().len() as u64);
}

#[tokio::test]
async fn the_batch_of_the_offset_comes_whole_and_a_gap_leads_to_the_next() {
    let (broker, id, mut held) = broker().await;
    broker.skip_offsets("orders", 0, 100).unwrap();
    held.push(append(&broker, "orders", 0, &mut Events::new(8), 150));
    let mut connection = Connection::to(&broker).await;
    for (offset, first) in [
        (0, 0),
        (4, 0),
        (5, 1),
        (47, 9),
        (50, 10),
        (149, 10),
        (152, 10),
        (155, 11),
    ] {
        let data = &connection.read(&from(id, offset)).await[0];
        assert_eq!(
            (data.error_code, data.high_watermark),
            (0, 155),
            "offset {offset}"
        );
        assert_eq!(bytes_of(data), held[first..].concat(), "offset {offset}");
    }
}

#[tokio::test]
async fn limits_apply_in_request_order_after_the_first_batch() {
    let (broker, id, held) = broker_with(BrokerSettings::default(), 3).await;
    let mut connection = Connection::to(&broker).await;
    let size = |count: usize| held[..count].concat().len();
    let limit = |bytes: usize| i32::try_from(bytes).unwrap();
    // Or else one of the cases would say something else.
    assert!(held[2].len() >= held[0].len());
    // (MaxBytes, the limit of each partition in request order) → bytes of each.
    let cases = [
        // The first partition gets one whole batch whatever the limits say, the others nothing for 0.
        (0, [0, 0, 0], [size(1), 0, 0]),
        (i32::MAX, [0, limit(size(2)), 0], [size(1), size(2), 0]),
        // What does not fit is cut off, and nothing is left for the rest.
        (limit(size(3) + 9), [i32::MAX; 3], [size(3) + 9, 0, 0]),
        (
            limit(size(3)),
            [limit(size(2)), i32::MAX, i32::MAX],
            [size(2), size(3) - size(2), 0],
        ),
        // A later partition whose first batch does not fit comes empty.
        (
            limit(size(3) - 1),
            [limit(size(2)), limit(size(1) - 1), 1],
            [size(2), 0, 0],
        ),
    ];
    for (max_bytes, limits, expected) in cases {
        let order = [2, 0, 1];
        let partitions = order.into_iter().zip(limits);
        let partitions = partitions
            .map(|(index, limit)| FetchPartition::new(index, 0, limit))
            .collect();
        let request = FetchRequest {
            max_bytes,
            ..of(TopicRef::Id(id), partitions)
        };
        let answered = connection.read(&request).await;
        assert_eq!(
            answered
                .iter()
                .map(|data| data.partition_index)
                .collect::<Vec<_>>(),
            order
        );
        let sizes: Vec<usize> = answered.iter().map(|data| bytes_of(data).len()).collect();
        assert_eq!(sizes, expected, "MaxBytes {max_bytes}, limits {limits:?}");
    }
}

#[tokio::test]
async fn the_last_batch_is_cut_off_only_where_the_settings_say_so() {
    for cut_last_batch in [true, false] {
        let settings = BrokerSettings {
            cut_last_batch,
            ..BrokerSettings::default()
        };
        let (broker, id, held) = broker_with(settings, 1).await;
        let whole = held[..2].concat();
        let limit = i32::try_from(whole.len() + 100).unwrap();
        let request = of(TopicRef::Id(id), vec![FetchPartition::new(0, 0, limit)]);
        let answered = Connection::to(&broker).await.read(&request).await;
        let expected = [&whole, &held[2][..if cut_last_batch { 100 } else { 0 }]].concat();
        assert_eq!(bytes_of(&answered[0]), expected);
    }
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_order() {
    let (broker, id, held) = broker().await;
    let mut connection = Connection::to(&broker).await;
    let mut frames = BytesMut::new();
    for offset in [45, 40, 35] {
        let mut body = Chunks::new();
        from(id, offset).encode(18, &mut body).unwrap();
        let frame = connection.request(ApiKey::Fetch, 18, &body.into_bytes());
        frames.put_u32(frame.len().try_into().unwrap());
        frames.put_slice(&frame);
    }
    connection.stream.write_all(&frames).await.unwrap();
    for (correlation_id, first) in [(1_i32, 9), (2, 8), (3, 7)] {
        let answer = connection.receive().await.unwrap();
        assert_eq!(answer[..4], correlation_id.to_be_bytes());
        let response = FetchResponse::decode(answer.slice(5..), 18).unwrap();
        assert_eq!(
            bytes_of(&response.topics[0].partitions[0]),
            held[first..].concat()
        );
    }
}

#[tokio::test]
async fn a_thousand_records_read_back_as_they_were_packed() {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await.unwrap();
    let id = broker.create_topic("orders", 2).unwrap();
    let produced: Vec<Event> = Events::new(42).take(1_000).collect();
    for (partition, packing) in [(0, Packing::Plain), (1, Packing::Lz4)] {
        for events in produced.chunks(EVENTS_PER_LZ4_BATCH) {
            broker
                .append("orders", partition, pack(events, packing).unwrap())
                .unwrap();
        }
        let (mut offset, mut read) = (0, Vec::new());
        let mut connection = Connection::to(&broker).await;
        while offset < 1_000 {
            let request = of(
                TopicRef::Id(id),
                vec![FetchPartition::new(partition, offset, 50_000)],
            );
            let records = bytes_of(&connection.read(&request).await[0]);
            for entry in Batches::new(&records) {
                let BatchEntry::Batch(batch) = entry.unwrap() else {
                    panic!("a legacy message")
                };
                batch.verify(Crc32c::PORTABLE).unwrap();
                assert_eq!(batch.base_offset(), offset);
                let payload = decompress(batch.codec().unwrap(), batch.payload(), 1 << 24).unwrap();
                for record in batch.records(&payload) {
                    let record = record.unwrap();
                    assert_eq!(record.offset, offset);
                    offset += 1;
                    let copy = |bytes: Option<&[u8]>| Bytes::copy_from_slice(bytes.unwrap());
                    let headers = record
                        .headers
                        .iter()
                        .map(|(key, value)| (copy(Some(key)), copy(value)));
                    let headers: Vec<(Bytes, Bytes)> = headers.collect();
                    read.push((record.timestamp, copy(record.key), copy(record.value), headers));
                }
            }
        }
        let produced = produced.iter().cloned().map(|event| {
            let headers = event
                .headers
                .into_iter()
                .map(|(key, value)| (Bytes::from_static(key.as_bytes()), value));
            (event.timestamp_ms, event.key, event.value, headers.collect())
        });
        assert!(read.into_iter().eq(produced), "{packing:?}");
    }
}

//! What a response costs before it is kept: its frame is decoded, its batches are walked and their checksums are computed.

use std::hint::black_box;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kachet_core::wire::{BatchEntry, Batches, Chunks, FetchResponse};
use kafka_protocol::messages as kafka;
use kafka_protocol::protocol::Decodable;

use super::Scope;
use crate::answers::VERSION;
use crate::contest::{Bound, Contest, Outcome, Role, Target, Unit};
use crate::filled::{CRC32C, answer, batches};
use crate::report::Section;

const BATCHES: usize = 8;
const BATCH_BYTES: usize = 17_000;
const TURNS: usize = 2_000;

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "responses",
        "Responses from brokers",
        "A response of 8 batches of 17 kB in one partition: with all checksums, beside computing them over the same bytes; and \
         its frame alone, beside kafka-protocol, which finds the fields but not the batches.",
    );
    let body = body()?;
    section.rows = vec![checked(scope, &body)?, frame(scope, &body)?];
    Ok(section)
}

/// A response as it comes from a broker.
fn body() -> Result<Bytes> {
    let mut made = batches(BATCHES, 1, BATCH_BYTES);
    for batch in &mut made {
        batch.size_bytes = BATCH_BYTES;
    }
    let (_, response) = answer(&made, i64::MAX).context("there are batches")?;
    let mut encoded = Chunks::new();
    response.encode(VERSION, &mut encoded)?;
    Ok(encoded.into_bytes())
}

fn checked(scope: &Scope, body: &Bytes) -> Result<Outcome> {
    ensure!(walk(body, true)? == BATCHES);
    let checked_bytes = BATCHES * (BATCH_BYTES - 21);
    let bytes = vec![1_u8; checked_bytes / BATCHES];
    Contest::new("a response with its checksums", Unit::Seconds)
        .timed("kachet", Role::Ours, TURNS, || {
            for _ in 0..TURNS {
                let _ = black_box(walk(black_box(body), true));
            }
        })
        .timed("CRC-32C alone", Role::Floor, TURNS, || {
            for _ in 0..TURNS * BATCHES {
                black_box(crc32c::crc32c(black_box(&bytes)));
            }
        })
        // 90 % of its speed.
        .target(Target::ratio("kachet", "CRC-32C alone", Bound::AtMost(1.0 / 0.9)))
        .run(scope.rounds)
}

fn frame(scope: &Scope, body: &Bytes) -> Result<Outcome> {
    ensure!(kafka::FetchResponse::decode(&mut body.clone(), VERSION).is_ok());
    let turns = 20 * TURNS;
    Contest::new("the frame of a response", Unit::Seconds)
        .timed("kachet, with its batches", Role::Ours, turns, || {
            for _ in 0..turns {
                let _ = black_box(walk(black_box(body), false));
            }
        })
        .timed("kachet, fields", Role::Ours, turns, || {
            for _ in 0..turns {
                let _ = black_box(FetchResponse::decode(black_box(body).clone(), VERSION));
            }
        })
        .timed("kafka-protocol, fields", Role::Peer, turns, || {
            for _ in 0..turns {
                let _ = black_box(kafka::FetchResponse::decode(
                    &mut black_box(body).clone(),
                    VERSION,
                ));
            }
        })
        .target(Target::ratio(
            "kachet, with its batches",
            "kafka-protocol, fields",
            Bound::AtMost(1.0 / 0.7),
        ))
        .run(scope.rounds)
}

/// Decodes a response and finds its batches; says how many there are.
fn walk(body: &Bytes, is_checked: bool) -> Result<usize> {
    let response = FetchResponse::decode(body.clone(), VERSION)?;
    let mut found = 0;
    for (_, data) in response.partitions() {
        let Some(records) = &data.records else { continue };
        for slice in records.slices() {
            for entry in Batches::new(slice) {
                let BatchEntry::Batch(batch) = entry? else {
                    continue;
                };
                if is_checked {
                    batch.verify(CRC32C)?;
                }
                found += 1;
            }
        }
    }
    Ok(found)
}

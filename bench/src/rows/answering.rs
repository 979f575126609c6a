//! Whole hits, from the bytes of a request to those of the response.

use std::hint::black_box;

use anyhow::Result;
use bytes::Bytes;
use kachet_core::time::Instant;
use kachet_core::wire::{Chunks, FetchRequest, FetchResponse};

use super::{Scope, reference};
use crate::answers::{VERSION, answer, request};
use crate::contest::{Bound, Contest, Outcome, Role, Target, Unit};
use crate::filled::{batches, cache, lookups};
use crate::report::Section;

const ANSWERS: usize = 1 << 16;

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "answers",
        "Whole answers",
        "From the bytes of a Fetch request for one batch to the bytes of its response, in memory: decoded, planned, encoded as \
         slices. The floor decodes the same requests and encodes one response over and over.",
    );
    let large = if scope.is_quick { 100_000 } else { 1_000_000 };
    for count in [10_000, large] {
        section.rows.push(row(scope, count)?);
    }
    match reference::row(scope)? {
        Ok(row) => section.rows.push(row),
        Err(why) => section.not_measured.push(why),
    }
    Ok(section)
}

fn row(scope: &Scope, count: usize) -> Result<Outcome> {
    let held = batches(count, 1, 200);
    let cache = cache(&held, 8 << 30);
    let asked = lookups(&held, ANSWERS);
    let requests = |level: i8| -> Vec<Bytes> {
        asked
            .iter()
            .map(|(key, offset)| request(key.partition, *offset, level))
            .collect()
    };
    let (uncommitted, committed) = (requests(0), requests(1));
    let any = FetchRequest::decode(uncommitted[0].clone(), VERSION)?;
    let response = cache
        .plan(any, Instant::default())
        .into_response()
        .unwrap_or_default();
    let mut encoded = [Chunks::new(), Chunks::new(), Chunks::new()];
    let [first, second, third] = &mut encoded;
    let contest = Contest::new(format!("answer, {count} batches"), Unit::Seconds)
        .timed("kachet", Role::Ours, ANSWERS, || {
            for request in &uncommitted {
                black_box(answer(&cache, request, first));
            }
        })
        .timed("kachet, read_committed", Role::Ours, ANSWERS, || {
            for request in &committed {
                black_box(answer(&cache, request, second));
            }
        })
        .timed("decode and encode", Role::Floor, ANSWERS, || {
            for request in &uncommitted {
                black_box(floor(request, &response, third));
            }
        });
    // What the design asks of a cache whose index is in the processor's caches.
    let limit = if count <= 10_000 { 250e-9 } else { 450e-9 };
    contest
        .target(Target::of("kachet", Bound::AtMost(limit)))
        .run(scope.rounds)
}

fn floor(request: &Bytes, response: &FetchResponse, encoded: &mut Chunks) -> usize {
    let request = FetchRequest::decode(request.clone(), VERSION);
    encoded.clear();
    let is_encoded = response.encode(VERSION, encoded).is_ok() && request.is_ok();
    usize::from(is_encoded) + encoded.size_bytes()
}

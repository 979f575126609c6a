//! What it takes to keep what has come, in memory, and to make room for it.

use std::hint::black_box;

use anyhow::Result;
use bytes::Bytes;
use kachet_core::cache::{Harvest, MemoryCache};
use kachet_core::time::Instant;

use super::Scope;
use crate::contest::{Contest, Outcome, Role, Unit, count};
use crate::filled::{BatchAt, CRC32C, answer, batches, key, settings};
use crate::report::Section;

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "inserts",
        "Inserts in memory",
        "Answers of one batch each are checked and kept in a cache of 64 MiB that is full, so that each makes another one go. The \
         floor copies the same bytes and computes their checksum; peers get a copy of \
         each batch after its checksum was computed, so that none keeps a whole response alive.",
    );
    for size_bytes in [1_000, 16 << 10, 512 << 10] {
        section.rows.push(row(scope, size_bytes)?);
    }
    Ok(section)
}

const LIMIT_BYTES: u64 = 64 << 20;

pub(super) fn row(scope: &Scope, size_bytes: usize) -> Result<Outcome> {
    // Twice what the cache holds, over and over.
    let number = (2 * usize::try_from(LIMIT_BYTES)? / size_bytes).min(40_000);
    let mut made = batches(number, 1, size_bytes);
    for batch in &mut made {
        batch.size_bytes = size_bytes;
    }
    let answers: Vec<_> = made
        .iter()
        .filter_map(|batch| answer(core::slice::from_ref(batch), i64::MAX))
        .collect();
    let bytes: Vec<Bytes> = made.iter().map(BatchAt::bytes).collect();
    let total = count(number * size_bytes);
    let mut cache = MemoryCache::new(settings(LIMIT_BYTES), CRC32C);
    let limit = usize::try_from(LIMIT_BYTES)?;
    let quick_cache = quick_cache::sync::Cache::with_weighter(limit / size_bytes, LIMIT_BYTES, Bytewise);
    let moka = moka::sync::Cache::builder()
        .max_capacity(LIMIT_BYTES)
        .weigher(|_: &i64, batch: &Bytes| u32::try_from(batch.len()).unwrap_or(u32::MAX))
        .build();
    let mut place = vec![0; 4 << 20];
    Contest::new(format!("insert batches of {size_bytes} B"), Unit::BytesPerSecond)
        .way("kachet", Role::Ours, || {
            let started = std::time::Instant::now();
            for (request, response) in &answers {
                for harvest in Harvest::gather(request, response, CRC32C) {
                    cache.absorb(harvest, Instant::default());
                }
            }
            let took = started.elapsed().as_secs_f64();
            // Else the next round would find everything there.
            cache.forget_partition(key(0));
            Ok(total / took)
        })
        .way("quick_cache", Role::Peer, || {
            Ok(total / inserted(&made, &bytes, |base, batch| quick_cache.insert(base, batch)))
        })
        .way("moka", Role::Peer, || {
            Ok(total / inserted(&made, &bytes, |base, batch| moka.insert(base, batch)))
        })
        .way("memcpy and CRC-32C", Role::Floor, || {
            let started = std::time::Instant::now();
            let mut at = 0;
            for batch in &bytes {
                if at + batch.len() > place.len() {
                    at = 0;
                }
                black_box(crc32c::crc32c(&batch[21..]));
                place[at..at + batch.len()].copy_from_slice(batch);
                at += batch.len();
            }
            black_box(&place);
            Ok(total / started.elapsed().as_secs_f64())
        })
        .run(scope.rounds)
}

/// A batch weighs what its bytes are.
#[derive(Clone)]
struct Bytewise;

impl quick_cache::Weighter<i64, Bytes> for Bytewise {
    fn weight(&self, _: &i64, batch: &Bytes) -> u64 {
        batch.len() as u64
    }
}

fn inserted(made: &[BatchAt], bytes: &[Bytes], insert: impl Fn(i64, Bytes)) -> f64 {
    let started = std::time::Instant::now();
    for (batch, bytes) in made.iter().zip(bytes) {
        black_box(crc32c::crc32c(&bytes[21..]));
        insert(batch.base, Bytes::copy_from_slice(bytes));
    }
    started.elapsed().as_secs_f64()
}

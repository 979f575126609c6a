//! A broker whose answers are there before they are asked for, so that what is measured is the cache.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use kachet::cache::Cache;
use kachet::mount::MountPoint;
use kachet::transport::{ApiVersions, BrokerAddress, Request, Response, Transport, TransportError};
use kachet_core::time::MaxStaleness;
use kachet_core::wire::{FETCH_VERSION_MAX, FetchRequest, FetchResponse};

use super::mounted::Made;

/// Answers by partition and first offset.
struct Prepared(HashMap<(i32, i64), FetchResponse>);

/// What a request of one partition asks for.
fn asked(request: &FetchRequest) -> Option<(i32, i64)> {
    let (_, asked) = request.partitions().next()?;
    Some((asked.partition, asked.fetch_offset))
}

impl Transport for Prepared {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let (api, version) = ("Fetch", request.version());
        let answer = match &request {
            Request::Fetch { request, .. } => asked(request).and_then(|asked| self.0.get(&asked)),
            Request::Other { .. } => None,
        };
        let message = "no answer was prepared".into();
        let broker = broker.clone();
        answer
            .cloned()
            .map(Response::Fetch)
            .ok_or(TransportError::Message {
                broker,
                api,
                version,
                message,
            })
    }

    async fn api_versions(&self, _: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        Ok(Arc::default())
    }
}

/// Fetches that are under way at once, so that no thread waits for another one to wake up.
const READERS: usize = 4;

/// Reads everything once through a cache over a mount point, and has it written out.
pub(super) async fn read_through(folder: &Path, made: &Made) -> Result<()> {
    let answers = made.answers.iter();
    let prepared = answers
        .filter_map(|(request, response)| Some((asked(request)?, response.clone())))
        .collect();
    let cache = Cache::builder(Prepared(prepared))
        .size_limit_bytes(64 << 30)
        .max_staleness(MaxStaleness::Forever)
        .mount(MountPoint::open(folder)?)
        .build();
    let broker: BrokerAddress = "localhost:9092".parse()?;
    let reads = made.answers.iter().map(|(request, _)| {
        let request = Request::Fetch {
            version: FETCH_VERSION_MAX,
            request: request.clone(),
        };
        let (cache, broker) = (cache.clone(), broker.clone());
        async move { cache.round_trip(&broker, request).await.map(drop) }
    });
    stream::iter(reads)
        .map(Ok)
        .try_for_each_concurrent(READERS, |read| read)
        .await?;
    let left_bytes = cache.write_out().await;
    let held = cache.statistics();
    // A disk that somebody else keeps busy is not waited for without end.
    let asked_for = made.batches.len() as u64;
    ensure!(
        left_bytes == 0 && held.batches * 100 >= asked_for * 99,
        "{held:?}"
    );
    Ok(())
}

//! Has the storage do what the cache wants done, beside the cache and never in a fetch's way: in memory at once,
//! elsewhere in a task of its own, for which a fetch waits a little and then goes on without (H23).

use core::time::Duration;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::join_all;
use kachet_core::cache::{Absorbed, Harvest, Warmed};
use kachet_core::storage::{SegmentReader, Storage};
use kachet_core::time::Instant;
use kachet_core::wire::FetchRequest;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{CRC32C, Inner};

/// How long a fill waits for room before what is left of it is let go.
const ROOM_PATIENCE: Duration = Duration::from_millis(250);
/// How long a batch is in memory only, about.
const WRITE_OUT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a hit waits for the storage before it is a miss.
const READ_PATIENCE: Duration = Duration::from_secs(1);
/// A batch that cannot be read is a miss, and the lookup is done again without it, at most so often.
const READ_ROUNDS: usize = 3;

impl<T, S: Storage + 'static> Inner<T, S> {
    /// Does all jobs that there are. One at a time does them; whoever comes meanwhile may leave.
    pub(super) async fn do_jobs(&self) {
        let mut storage = self.storage.lock().await;
        loop {
            let job = self.write().next_job();
            let Some(job) = job else { return };
            let done = job.perform(&mut *storage, CRC32C).await;
            if let Some(error) = done.error() {
                warn!(%error, "the cache's storage failed");
            }
            self.write().complete(done);
        }
    }
}

impl<T: Send + Sync + 'static, S: Storage + 'static> Inner<T, S> {
    /// Has what is in memory only written now and then, so that a crash loses no more than what came lately, also where
    /// little comes. Ends with the cache.
    pub(super) fn write_out_regularly(self: &Arc<Self>) {
        if !S::Reader::MAY_CORRUPT && self.notebook.is_none() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            // Without a runtime there are no fetches either; what comes later is written as it comes together.
            return;
        };
        let cache = Arc::downgrade(self);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(WRITE_OUT_INTERVAL).await;
                let Some(cache) = cache.upgrade() else { return };
                if cache.read().unwritten_bytes() > 0 {
                    cache.write().write_out(false);
                    cache.have_jobs_done_soon();
                }
                cache.write_note().await;
            }
        });
    }

    /// Writes down what brokers have said, if they have said anything new.
    pub(super) async fn write_note(&self) {
        let Some(notebook) = self.notebook.clone() else {
            return;
        };
        let Some(note) = self.catalogue.take_note() else {
            return;
        };
        if let Err(error) = notebook.write(note).await {
            warn!(%error, "what the cluster says of itself could not be written down; it is tried again");
            self.catalogue.note_is_due();
        }
    }

    /// Has the jobs done that there are; waits no longer than `patience`, and says whether they are done.
    async fn have_jobs_done(self: &Arc<Self>, patience: Duration) -> bool {
        if !self.read().is_busy() {
            return false;
        }
        if !S::Reader::MAY_CORRUPT {
            self.do_jobs().await;
            return true;
        }
        let inner = Arc::clone(self);
        let jobs = tokio::spawn(async move { inner.do_jobs().await });
        // Giving up on the task does not end it.
        timeout(patience, jobs).await.is_ok_and(|done| done.is_ok())
    }

    /// Has the jobs done that there are, without waiting for them.
    pub(super) fn have_jobs_done_soon(self: &Arc<Self>) {
        if !self.read().has_jobs() {
            return;
        }
        if !S::Reader::MAY_CORRUPT {
            // Whoever holds the storage is at it, and looks for more before it lets go.
            let _: Option<()> = self.do_jobs().now_or_never();
        } else if let Ok(runtime) = Handle::try_current() {
            let inner = Arc::clone(self);
            runtime.spawn(async move { inner.do_jobs().await });
        }
        // Without a runtime they wait for the next fetch.
    }

    /// The same for who has just answered a fetch. To seal a segment of a mebibyte in memory takes half a millisecond, in
    /// which a worker of the runtime would run no other task and hear of no socket.
    pub(super) fn have_jobs_done_aside(self: &Arc<Self>) {
        if S::Reader::MAY_CORRUPT || !self.read().has_jobs() {
            return self.have_jobs_done_soon();
        }
        match Handle::try_current() {
            Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
                let inner = Arc::clone(self);
                runtime.spawn_blocking(move || inner.have_jobs_done_soon());
            }
            // One thread has all the work in any case.
            _ => self.have_jobs_done_soon(),
        }
    }

    /// Keeps what a response brought. The lock is let go between partitions and while the storage makes room, so that
    /// hits wait no longer than it takes to copy one partition's batches. Jobs that come of it and make no room for it are
    /// left to the caller.
    pub(super) async fn absorb(self: &Arc<Self>, harvests: Vec<Harvest>, asked_at: Instant) {
        for mut harvest in harvests {
            loop {
                let absorbed = self.write().absorb(&mut harvest, asked_at);
                match absorbed {
                    Absorbed::Complete => break,
                    Absorbed::NeedsRoom => {
                        if !self.have_jobs_done(ROOM_PATIENCE).await {
                            self.write().reject(&mut harvest);
                        }
                    }
                }
            }
        }
    }

    /// Reads what the request would hit and the storage does not give at once. In memory there is no such thing.
    pub(super) async fn warm(&self, request: &FetchRequest, arrived_at: Instant) -> Warmed {
        let mut warmed = Warmed::default();
        if !S::Reader::MAY_CORRUPT {
            return warmed;
        }
        for _ in 0..READ_ROUNDS {
            let cold = self.read().cold_reads(request, arrived_at, &mut warmed);
            if cold.is_empty() {
                break;
            }
            let reads = cold.into_iter().map(|read| read.perform(CRC32C));
            let Ok(read) = timeout(READ_PATIENCE, join_all(reads)).await else {
                warn!(patience = ?READ_PATIENCE, "the cache's storage did not answer in time; asking upstream");
                break;
            };
            for result in read {
                match result {
                    Ok(batch) => warmed.insert(batch),
                    Err(fault) => {
                        warn!(error = %fault.error, "the cache's storage did not give a batch back; asking upstream");
                        self.read().note_fault(&fault);
                    }
                }
            }
        }
        debug!(batches = warmed.len(), "read from the cache's storage");
        warmed
    }
}

//! What who traces a service sees of its cache.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};

use anyhow::Result;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use super::{TOPIC, broker_with, client_of, within};

/// Keeps the names of one thread's spans with those that they stand in.
///
/// It is the process's subscriber, since one of a single thread may never hear of a span that another thread met first:
/// what `tracing` found out there, that nobody listens, it keeps.
#[derive(Clone)]
struct Names(Arc<Seen>);

struct Seen {
    thread: ThreadId,
    next: AtomicU64,
    names: Mutex<Vec<(u64, &'static str)>>,
    entered: Mutex<Vec<u64>>,
    paths: Mutex<Vec<String>>,
}

impl Names {
    fn of_this_thread() -> Self {
        Self(Arc::new(Seen {
            thread: thread::current().id(),
            next: AtomicU64::default(),
            names: Mutex::default(),
            entered: Mutex::default(),
            paths: Mutex::default(),
        }))
    }

    fn name(&self, id: u64) -> &'static str {
        let names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        names
            .iter()
            .find(|(known, _)| *known == id)
            .map_or("", |(_, name)| name)
    }

    fn paths(&self) -> Vec<String> {
        let mut paths = self.0.paths.lock().unwrap_or_else(PoisonError::into_inner);
        core::mem::take(&mut *paths)
    }
}

impl Subscriber for Names {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // Asked for each span, since the answer is another one on each thread.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span()
            && metadata.target().starts_with("kachet::")
            && thread::current().id() == self.0.thread
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed) + 1;
        let name = span.metadata().name();
        let entered = self.0.entered.lock().unwrap_or_else(PoisonError::into_inner);
        let path = entered.last().map_or_else(
            || name.to_owned(),
            |around| format!("{}/{name}", self.name(*around)),
        );
        let (mut names, mut paths) = (
            self.0.names.lock().unwrap_or_else(PoisonError::into_inner),
            self.0.paths.lock().unwrap_or_else(PoisonError::into_inner),
        );
        names.push((id, name));
        paths.push(path);
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, id: &Id) {
        self.0
            .entered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id.into_u64());
    }

    fn exit(&self, _: &Id) {
        self.0
            .entered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
    }
}

#[tokio::test]
async fn a_fetch_a_fill_and_a_revalidation_have_spans_of_these_names() -> Result<()> {
    let names = Names::of_this_thread();
    tracing::subscriber::set_global_default(names.clone())?;
    let broker = broker_with(3).await?;
    let client = client_of(&broker, within(40))?;
    client.record(TOPIC, 0, 5).await?;
    assert_eq!(names.paths(), ["fetch", "fetch/fill"]);
    client.record(TOPIC, 0, 5).await?;
    assert_eq!(names.paths().first().map(String::as_str), Some("fetch"));
    tokio::time::sleep(core::time::Duration::from_millis(60)).await;
    client.record(TOPIC, 0, 5).await?;
    let paths = names.paths();
    assert!(paths.contains(&"fetch/revalidate".to_owned()), "{paths:?}");
    Ok(())
}

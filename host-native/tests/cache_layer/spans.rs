//! What who traces a service sees of its cache.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::{TOPIC, broker_with, client_of, within};

/// Keeps the names of spans with those that they stand in.
#[derive(Clone, Default)]
struct Names(Arc<Seen>);

#[derive(Default)]
struct Seen {
    next: AtomicU64,
    names: Mutex<Vec<(u64, &'static str)>>,
    entered: Mutex<Vec<u64>>,
    paths: Mutex<Vec<String>>,
}

impl Names {
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
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("kachet::")
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
    let names = Names::default();
    let _until_the_end = tracing::subscriber::set_default(names.clone());
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

//! What is read from files, and read anew while it is used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A value that is replaced as a whole, with counts of how often.
pub(crate) struct Reloaded<T> {
    current: RwLock<Arc<T>>,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
}

impl<T> Reloaded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            current: RwLock::new(Arc::new(value)),
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
        }
    }

    /// What was read last.
    pub(crate) fn get(&self) -> Arc<T> {
        // Nothing panics while it holds the lock; if something did, the value would still be whole.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over what was read anew. Where that failed, the value from before stays.
    pub(crate) fn take_over<E>(&self, read: Result<T, E>) -> Result<(), E> {
        let count = if read.is_ok() {
            &self.reloads
        } else {
            &self.failed_reloads
        };
        count.fetch_add(1, Ordering::Relaxed);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read?);
        Ok(())
    }

    /// How often it was read anew, and how often that failed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (get(&self.reloads), get(&self.failed_reloads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_changes_nothing_and_is_counted() {
        let reloaded = Reloaded::new(1);
        assert_eq!(reloaded.take_over(Ok::<_, &str>(2)), Ok(()));
        assert_eq!(reloaded.take_over(Ok::<_, &str>(3)), Ok(()));
        assert_eq!(reloaded.take_over(Err("torn")), Err("torn"));
        assert_eq!((*reloaded.get(), reloaded.counts()), (3, (2, 1)));
    }
}

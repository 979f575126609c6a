//! The lock, tasks and timers below single flight. The unit tests of this crate take shuttle's in their place, which
//! tries the orders in which threads and tasks may run; what uses this module works there under `shuttle` only.

#[cfg(not(test))]
pub(in crate::cache) use std::sync::{Mutex, MutexGuard};

#[cfg(test)]
pub(in crate::cache) use shuttle::future::yield_now;
#[cfg(test)]
pub(in crate::cache) use shuttle::sync::{Mutex, MutexGuard};
#[cfg(test)]
pub(in crate::cache) use under_shuttle::{spawn, timeout_at};

#[cfg(not(test))]
pub(in crate::cache) use on_tokio::{spawn, timeout_at};
#[cfg(not(test))]
pub(in crate::cache) use tokio::task::yield_now;

#[cfg(not(test))]
mod on_tokio {
    use core::future::Future;

    use tokio::time::Instant;

    /// Runs a future to its end, whatever becomes of the caller.
    pub(in crate::cache) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(future);
    }

    /// The future's output, or `None` once the deadline has passed.
    pub(in crate::cache) async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
        tokio::time::timeout_at(deadline, future).await.ok()
    }
}

#[cfg(test)]
pub(in crate::cache) mod under_shuttle {
    use core::cell::RefCell;
    use core::future::Future;

    use shuttle::future::AbortHandle;
    use tokio::time::Instant;

    std::thread_local! {
        // Every task of a model runs on the thread that began it.
        static SPAWNED: RefCell<Vec<AbortHandle>> = const { RefCell::new(Vec::new()) };
    }

    pub(in crate::cache) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
        let handle = shuttle::future::spawn(future).abort_handle();
        SPAWNED.with_borrow_mut(|spawned| spawned.push(handle));
    }

    /// The tasks that were spawned since this was last asked, in their order.
    pub(in crate::cache) fn take_spawned() -> Vec<AbortHandle> {
        SPAWNED.take()
    }

    /// Time stands still in a model; deadlines are tested on tokio's clock.
    pub(in crate::cache) async fn timeout_at<F: Future>(_: Instant, future: F) -> Option<F::Output> {
        Some(future.await)
    }
}

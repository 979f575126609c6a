//! File work is done where it holds no task up.

use std::io;

use tokio::runtime::Handle;

/// Does the work on a thread of the runtime's that may block; right here where there is no runtime to hold up.
///
/// Fails if the runtime ends before the work begins, or if the work panics.
pub(super) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let Ok(runtime) = Handle::try_current() else {
        return Ok(work());
    };
    runtime.spawn_blocking(work).await.map_err(io::Error::other)
}

/// Drops it where that holds no task up: the last hold on a removed file frees all that the file took, which takes as
/// long as the file is large.
pub(super) fn drop_off_the_runtime<T: Send + 'static>(held: T) {
    if let Ok(runtime) = Handle::try_current() {
        // A runtime that is about to end drops it at once.
        drop(runtime.spawn_blocking(move || drop(held)));
    }
}
